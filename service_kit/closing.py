"""Closing what a service holds: in reverse order, each within its own time, all of them whatever fails."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from service_kit.errors import ServiceKitError, StopTimedOut
from service_kit.lifecycle import Stop

LOG = logging.getLogger(__name__)

CLOSE_WITHIN_S = 1.0
TOTAL_S = 2.2  # all resources together, from the stop on; lifecycle.STOP_WITHIN_S cuts what goes beyond
RECOVERING_S = 1.6  # of that for those that recover, so that the others have their time
AT_LEAST_S = 0.05  # for each, however long the others took


@dataclass(frozen=True, slots=True)
class _Resource:
    name: str
    close: Callable[[], Any]
    within_s: float
    recovers: bool


class Resources:
    """A stack of open things; `with` (threads) or `async with` (asyncio) closes the last one first.

    A close that raises or runs out of time is noted and the others still follow. The first failure is raised
    at the end, unless the body failed: then its error stands and the failures to close are its notes.
    Time counts from the moment that `stop`, where it is given, was set.
    """

    def __init__(self, total_s: float = TOTAL_S, stop: Stop | None = None) -> None:
        self._open: list[_Resource] = []
        self._total_s = total_s
        self._stop = Stop() if stop is None else stop

    def add(
        self,
        name: str,
        close: Callable[[], Awaitable[object] | object],
        within_s: float = CLOSE_WITHIN_S,
        *,
        recovers: bool = False,
    ) -> None:
        """Have `close` called at the end, for at most `within_s` seconds; a coroutine needs `async with`.

        `recovers`: what it holds is made again from the log by the next start, as after a crash. So when the
        brokers are away, or it is in the midst of long work, it is left behind with a warning and no failure.
        """
        self._open.append(_Resource(name, close, within_s, recovers))

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
        began, failures, late = self._began(), list[Exception](), list[_Resource]()
        while self._open:
            resource = self._open.pop()
            raised: list[Exception] = []
            thread = threading.Thread(
                target=_close_noting, args=(resource, raised), name=f"close-{resource.name}", daemon=True
            )
            thread.start()
            thread.join(self._left_s(resource, began))
            if thread.is_alive():
                late.append(resource)
            failures += [failure for failure in raised if not _is_said(resource, failure)]
        self._finish(error, failures, late)

    async def close_async(self, error: BaseException | None = None) -> None:
        """Close everything from an event loop; closes that are not coroutines run in threads."""
        began, failures, late = self._began(), list[Exception](), list[_Resource]()
        while self._open:
            resource = self._open.pop()
            try:
                async with asyncio.timeout(self._left_s(resource, began)):
                    await _close_awaiting(resource)
            except TimeoutError:
                late.append(resource)
            except Exception as failure:  # noqa: BLE001 the others must still close; raised at the end
                if not _is_said(resource, failure):
                    failures.append(failure)
        self._finish(error, failures, late)

    def _began(self) -> float:
        return time.monotonic() if self._stop.set_at is None else self._stop.set_at

    def _left_s(self, resource: _Resource, began: float) -> float:
        total_s = min(self._total_s, RECOVERING_S) if resource.recovers else self._total_s
        return max(AT_LEAST_S, min(resource.within_s, began + total_s - time.monotonic()))

    def _finish(self, error: BaseException | None, failures: list[Exception], late: list[_Resource]) -> None:
        left = [one.name for one in late if one.recovers]
        if left:
            self._stop.left_behind += left
            LOG.warning("left behind at the end, the next start makes it again: %s", ", ".join(left))
        hang = tuple(one.name for one in late if not one.recovers)
        if hang:
            failures.append(StopTimedOut(hang, self._total_s))
        if error is not None:
            for failure in failures:
                error.add_note(f"and while closing: {failure}")
        elif failures:
            raise failures[0]


def _is_said(resource: _Resource, failure: Exception) -> bool:
    """Whether a failure is one of the brokers that costs nothing, and has been said."""
    if not (resource.recovers and isinstance(failure, ServiceKitError)):
        return False
    LOG.warning("%s: %s; the next start makes it again", resource.name, failure)
    return True


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
