"""How long a computation goes on: until its deadline, or until nobody waits for it any more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field

from risk_service.on_demand.turns import Turns
from service_kit.errors import DeadlinePassed


class NobodyWaits(Exception):
    """The caller has gone; the computation ends and its exception reaches nobody."""


@dataclass(slots=True)
class Patience:
    """Asked between the blocks of a long computation. Safe to cancel from another thread."""

    seconds: float
    turns: Turns | None = None  # which the thread that computes has one of
    _ends: float = field(init=False)
    _cancelled: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._ends = time.monotonic() + self.seconds

    @property
    def ends_at(self) -> float:
        """When it ends, by the monotonic clock, seconds."""
        return self._ends

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        self._cancelled = True

    def check(self) -> None:
        """Ends the computation, by an exception, once it is cancelled or too late; others have their turn."""
        self.expect()
        if self.turns is not None and self.turns.pass_on():
            self.expect()

    def turn(self) -> AbstractContextManager[None]:
        """Within, this thread has a turn; waits for it."""
        return nullcontext() if self.turns is None else self.turns.held()

    def elsewhere(self) -> AbstractContextManager[None]:
        """Within, another process computes, and this thread only waits."""
        return nullcontext() if self.turns is None else self.turns.elsewhere()

    def expect(self) -> None:
        """As `check`, and goes on at once."""
        if self._cancelled:
            raise NobodyWaits
        if time.monotonic() >= self._ends:
            raise DeadlinePassed


_CURRENT: ContextVar[Patience | None] = ContextVar("gpu_risk_patience", default=None)


def current_patience() -> Patience | None:
    """The patience that this thread computes under, if any."""
    return _CURRENT.get()


@contextmanager
def under(patience: Patience) -> Iterator[None]:
    """Within, engines in other processes are asked only as long as the patience lasts."""
    token = _CURRENT.set(patience)
    try:
        yield
    finally:
        _CURRENT.reset(token)
