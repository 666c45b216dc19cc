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

from protos.risk.v1 import risk_pb2 as wire
from risk_client.errors import AlreadyChanged, InvalidRequest, RiskClientError, ServiceFault
from risk_client.given import in_callers_words
from risk_client.messages import message_of
from risk_client.tables import refused

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

    def told(self, error: RiskClientError) -> RiskClientError:
        """A failure in the caller's own words."""
        return error


class Ask(Job[Result]):
    """One message, one answer; with `progress` the RPC that says meanwhile how far it is."""

    def __init__(
        self,
        rpc: str,
        request: Any,
        read: Callable[[Any], Result],
        deadline_s: float | None = None,
        progress: Progress | None = None,
        of_table: bool = False,
    ) -> None:
        if not (progress is None or callable(progress)):
            raise refused("progress", f"must be a function that is told the fraction done, not {progress!r}")
        self.rpc = rpc if progress is None else f"{rpc}WithProgress"
        self._of_table = of_table
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

    def told(self, error: RiskClientError) -> RiskClientError:
        """A refusal of a caller's table names the table's columns."""
        return in_callers_words(error) if self._of_table and isinstance(error, InvalidRequest) else error


class AboutStored(Job[Result]):
    """A question that names the underlyings of a stored portfolio by number: those are asked for first."""

    def __init__(
        self, name: str, ask: Callable[[wire.Portfolio], Job[Result]], deadline_s: float | None = None
    ) -> None:
        self.deadline_s = deadline_s
        self._name = name
        self._ask = ask
        self._stored: wire.Portfolio | None = None
        self._question: Job[Result] | None = None

    @property
    def rpc(self) -> str:  # type: ignore[override]
        """Of the message that is due."""
        return "GetPortfolio" if self._question is None else self._question.rpc

    @property
    def streams(self) -> bool:
        """As the question, once it is asked."""
        return self._question is not None and self._question.streams

    def requests(self, chunk_rows: int) -> Iterator[Any]:
        """The look at the portfolio, then the question."""
        yield message_of(wire.GetPortfolioRequest, portfolio=self._name)
        if self._stored is None:
            raise ServiceFault("GetPortfolio ended without a result")
        self._question = self._ask(self._stored)
        yield from self._question.requests(chunk_rows)

    def take(self, answer: Any) -> None:
        """Keeps the portfolio; the rest is the question's."""
        if self._question is None:
            self._stored = answer
        else:
            self._question.take(answer)

    def result(self) -> Result:
        """What the question's answer is, unless the portfolio was another by then."""
        if self._question is None or self._stored is None:
            raise ServiceFault("GetPortfolio ended without a result")
        found = self._question.result()
        version = getattr(found, "portfolio_version", self._stored.version)
        if version != self._stored.version:
            raise AlreadyChanged(
                f"{self._name!r} was put anew while it was asked about (version {self._stored.version}, "
                f"then {version}): ask again"
            )
        return found

    def told(self, error: RiskClientError) -> RiskClientError:
        """As the question."""
        return error if self._question is None else self._question.told(error)


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
