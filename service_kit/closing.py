"""Closing what a service holds: in reverse order, each within its own time, all of them whatever fails."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from service_kit.errors import ServiceKitError, StopTimedOut

CLOSE_WITHIN_S = 1.0
TOTAL_S = 2.0  # all resources together; lifecycle.STOP_WITHIN_S cuts what goes beyond


@dataclass(frozen=True, slots=True)
class _Resource:
    name: str
    close: Callable[[], Any]
    within_s: float


class Resources:
    """A stack of open things; `with` (threads) or `async with` (asyncio) closes the last one first.

    A close that raises or runs out of time is noted and the others still follow. The first failure is raised
    at the end, unless the body failed: then its error stands and the failures to close are its notes.
    """

    def __init__(self, total_s: float = TOTAL_S) -> None:
        self._open: list[_Resource] = []
        self._total_s = total_s

    def add(
        self, name: str, close: Callable[[], Awaitable[object] | object], within_s: float = CLOSE_WITHIN_S
    ) -> None:
        """Have `close` called at the end, for at most `within_s` seconds; a coroutine needs `async with`."""
        self._open.append(_Resource(name, close, within_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close_async(error)

    def close(self, error: BaseException | None = None) -> None:
        """Close everything; each close runs in its own thread, so that one that blocks is left behind."""
        end_by, failures, late = time.monotonic() + self._total_s, list[Exception](), list[str]()
        while self._open:
            resource = self._open.pop()
            raised: list[Exception] = []
            thread = threading.Thread(
                target=_close_noting, args=(resource, raised), name=f"close-{resource.name}", daemon=True
            )
            thread.start()
            thread.join(max(0.0, min(resource.within_s, end_by - time.monotonic())))
            if thread.is_alive():
                late.append(resource.name)
            failures += raised
        self._finish(error, failures, late)

    async def close_async(self, error: BaseException | None = None) -> None:
        """Close everything from an event loop; closes that are not coroutines run in threads."""
        end_by, failures, late = time.monotonic() + self._total_s, list[Exception](), list[str]()
        while self._open:
            resource = self._open.pop()
            left = max(0.0, min(resource.within_s, end_by - time.monotonic()))
            try:
                async with asyncio.timeout(left):
                    await _close_awaiting(resource)
            except TimeoutError:
                late.append(resource.name)
            except Exception as failure:  # noqa: BLE001 the others must still close; raised at the end
                failures.append(failure)
        self._finish(error, failures, late)

    def _finish(self, error: BaseException | None, failures: list[Exception], late: list[str]) -> None:
        if late:
            failures.append(StopTimedOut(tuple(late), self._total_s))
        if error is not None:
            for failure in failures:
                error.add_note(f"and while closing: {failure}")
        elif failures:
            raise failures[0]


def _close_noting(resource: _Resource, raised: list[Exception]) -> None:
    try:
        result = resource.close()
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise ServiceKitError(f"{resource.name} closes asynchronously; use `async with`")
    except Exception as failure:  # noqa: BLE001 carried over to the closing thread, raised there
        raised.append(failure)


async def _close_awaiting(resource: _Resource) -> None:
    if inspect.iscoroutinefunction(resource.close):
        await resource.close()
        return
    # Daemon, unlike asyncio.to_thread: a close that blocks must not keep the process.
    raised: list[Exception] = []
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    results: list[Any] = []

    def work() -> None:
        try:
            results.append(resource.close())
        except Exception as failure:  # noqa: BLE001 carried over to the loop, raised there
            raised.append(failure)
        if not loop.is_closed():
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=work, name=f"close-{resource.name}", daemon=True).start()
    await done.wait()
    if raised:
        raise raised[0]
    if results and inspect.isawaitable(results[0]):
        await results[0]
