"""What a method of the clients is made of: messages to send, answers to read, a result.

A job knows nothing of channels. `RiskClient` and `AsyncRiskClient` each have one way to run any job; the
methods themselves are written once, in `requests`, and become methods of both.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Generic, TypeVar

from risk_client.errors import ServiceFault

Result = TypeVar("Result")
Progress = Callable[[float], object]  # is told the fraction that is done, from 0 to 1
Method = TypeVar("Method", bound=Callable[..., Any])


class Job(ABC, Generic[Result]):
    """One call of a method; `deadline_s` is that of each message, None the client's own."""

    rpc: str
    deadline_s: float | None

    @abstractmethod
    def requests(self, chunk_rows: int) -> Iterator[Any]:
        """The messages, made one by one; the next may depend on what was taken."""

    @abstractmethod
    def take(self, answer: Any) -> None:
        """Reads the answer to the next message."""

    @abstractmethod
    def result(self) -> Result:
        """What the method returns, once every answer is taken."""

    def together(self, chunk_rows: int) -> int:
        """How many messages may be under way at once."""
        return 1

    @property
    def streams(self) -> bool:
        """Whether a message is answered by several, of which each is taken."""
        return False


class Ask(Job[Result]):
    """One message, one answer; with `progress` the RPC that says meanwhile how far it is."""

    def __init__(
        self,
        rpc: str,
        request: Any,
        read: Callable[[Any], Result],
        deadline_s: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.rpc = rpc if progress is None else f"{rpc}WithProgress"
        self.deadline_s = deadline_s
        self._request = request
        self._read = read
        self._progress = progress
        self._answer: Any = None

    @property
    def streams(self) -> bool:
        """Whether progress comes before the answer."""
        return self._progress is not None

    def requests(self, chunk_rows: int) -> Iterator[Any]:
        """The message."""
        yield self._request

    def take(self, answer: Any) -> None:
        """Keeps the answer, tells of progress."""
        if self._progress is None:
            self._answer = answer
        elif answer.WhichOneof("update") == "progress":
            self._progress(answer.progress.fraction)
        else:
            self._answer = answer.result

    def result(self) -> Result:
        """The answer, read."""
        if self._answer is None:
            raise ServiceFault(f"{self.rpc} ended without a result")
        return self._read(self._answer)


class Pages(Job[list[Any]]):
    """Messages until an answer names no next page; `read` gives the entries of one."""

    def __init__(
        self,
        rpc: str,
        request: Callable[[str], Any],
        read: Callable[[Any], Any],
        deadline_s: float | None = None,
    ) -> None:
        self.rpc = rpc
        self.deadline_s = deadline_s
        self._request = request
        self._read = read
        self._entries: list[Any] = []
        self._token: str | None = ""

    def requests(self, chunk_rows: int) -> Iterator[Any]:
        """A message for each page."""
        while self._token is not None:
            yield self._request(self._token)

    def take(self, answer: Any) -> None:
        """Adds a page."""
        self._entries.extend(self._read(answer))
        self._token = answer.next_page_token or None

    def result(self) -> list[Any]:
        """All entries."""
        return self._entries


def as_method(describe: Callable[..., Any], call: Method) -> Method:
    """`call` with the name, words and parameters of `describe`, and `self` before them."""
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    given = inspect.signature(describe)
    # `Job[X]`, as written there, gives X.
    returns = str(given.return_annotation).removeprefix("Job[").removesuffix("]")
    module = call.__module__
    call = wraps(describe)(call)  # type: ignore[assignment]
    call.__module__ = module
    call.__signature__ = given.replace(  # type: ignore[attr-defined]
        parameters=[own, *given.parameters.values()], return_annotation=returns
    )
    # Else whoever unwraps it finds a function without self.
    del call.__wrapped__  # type: ignore[attr-defined]
    return call
