"""The matching engine: messages in, reports out, the whole book in between."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from book_service.matching import kernel, recovery, snapshot
from book_service.matching import layout as at
from book_service.matching.controls import ControlCommand, Controls, Instrument, Limit
from book_service.matching.layout import (
    DEPTH_DTYPE,
    FLAG_ALL_ACCOUNTS,
    FLAG_ALL_SYMBOLS,
    ORDER_DTYPE,
    REPORT_DTYPE,
    Action,
)
from book_service.matching.recovery import LARGEST_SYMBOLS
from book_service.matching.storage import Storage, address

Records = NDArray[np.void]


@cache
def kernels() -> kernel.Kernels:
    """The compiled core of this process."""
    return kernel.build(kernel.fingerprint())


def checked_messages(messages: Records) -> Records:
    """The messages, contiguous and in the layout of ORDER_DTYPE; another dtype raises, naming the field."""
    dtype = getattr(messages, "dtype", None)
    if not isinstance(messages, np.ndarray) or dtype is None or dtype.names is None:
        raise TypeError(
            f"messages: a structured array of ORDER_DTYPE is needed, not {type(messages).__name__}"
        )
    if messages.ndim != 1:
        raise ValueError(f"messages: one dimension is needed, not {messages.ndim}")
    if dtype == ORDER_DTYPE:
        return np.ascontiguousarray(messages)
    fields: Any = dtype.fields
    wanted: Any = ORDER_DTYPE.fields
    for name, (kind, *_) in wanted.items():
        if name not in fields:
            raise TypeError(f"messages: field '{name}' is missing")
        if fields[name][0] != kind:
            raise TypeError(f"messages: field '{name}' must be {kind}, not {fields[name][0]}")
    for name in dtype.names:
        if name not in wanted:
            raise TypeError(f"messages: unknown field '{name}'")
    out = np.zeros(len(messages), ORDER_DTYPE)
    for name in wanted:
        out[name] = messages[name]
    return out


class MatchingEngine:
    """Price-time priority books for symbols 0..n-1; a pure function of the messages it has been given."""

    def __init__(self, instruments: int | Sequence[Instrument], controls: Controls | None = None) -> None:
        listed = [Instrument()] * instruments if isinstance(instruments, int) else list(instruments)
        if not 1 <= len(listed) <= LARGEST_SYMBOLS:
            raise ValueError(f"instruments: from 1 to {LARGEST_SYMBOLS} symbols, not {len(listed)}")
        self._symbols = len(listed)
        self._storage = Storage(len(listed), controls.most_accounts if controls else 0)
        self._kernels = kernels()
        if controls:
            self._set_up(listed, controls)

    def _set_up(self, listed: Sequence[Instrument], controls: Controls) -> None:
        storage = self._storage
        storage.limits[:, at.C_MULTIPLIER >> 3] = [one.multiplier for one in listed]
        storage.set(at.STRICT, int(controls.strict_reference))
        rows = np.zeros(len(Limit), ORDER_DTYPE)
        rows["tif"], rows["price"] = list(controls.limits().keys()), list(controls.limits().values())
        rows["flags"] = FLAG_ALL_SYMBOLS | FLAG_ALL_ACCOUNTS
        priced = [i for i, one in enumerate(listed) if one.reference is not None]
        marks = np.zeros(len(priced), ORDER_DTYPE)
        marks["kind"], marks["symbol"] = ControlCommand.SET_REFERENCE, priced
        marks["price"] = [listed[i].reference for i in priced]
        commands = np.concatenate((rows, marks))
        commands["action"] = Action.CONTROL
        self.process(commands)
        storage.set(at.SEQUENCE, 0)

    @property
    def symbols(self) -> int:
        """How many symbols there are."""
        return self._symbols

    @property
    def sequence(self) -> int:
        """Number of messages applied, which is the sequence of the next one."""
        return self._storage.get(at.SEQUENCE)

    @property
    def open_orders(self) -> int:
        """Number of resting orders and waiting stops."""
        return self._storage.get(at.LIVE)

    def state_hash(self) -> str:
        """SHA-256 of the logical state, in hex: equal for two engines that will report the same for ever."""
        return snapshot.state_hash(recovery.save(self._storage))

    def snapshot(self) -> bytes:
        """The whole logical state, with its configuration, versioned and hashed."""
        return snapshot.encode(recovery.save(self._storage))

    @classmethod
    def restore(cls, blob: bytes) -> MatchingEngine:
        """A new engine in the state of a snapshot; raises SnapshotError for bytes that are not one."""
        engine = cls.__new__(cls)
        engine._kernels = kernels()
        engine._storage = recovery.load(snapshot.decode(blob), engine._kernels)
        engine._symbols = engine._storage.get(at.N_SYMBOLS)
        return engine

    @staticmethod
    def default_controls() -> Controls:
        """Limits that let ordinary orders pass without any set-up; see Controls for strict_reference."""
        return Controls(strict_reference=False)

    def process(self, messages: Records) -> Records:
        """Applies messages in order; gives their reports in order."""
        rows = checked_messages(messages)
        storage, run, start = self._storage, self._kernels.run, 0
        parts = []
        while start < len(rows):
            start = run(storage.address, address(rows), start, len(rows))
            parts.append(storage.take_reports())
            if storage.is_full():
                storage.grow()
                self._kernels.reindex(storage.address)
        if not parts:
            return np.empty(0, REPORT_DTYPE)
        return (parts[0] if len(parts) == 1 else np.concatenate(parts)).view(REPORT_DTYPE)

    def _book(self, symbol: int, side: int) -> int:
        if not 0 <= symbol < self._symbols:
            raise ValueError(f"symbol: between 0 and {self._symbols - 1}, not {symbol}")
        return symbol * at.BOOKS_PER_SYMBOL + side

    def depth(self, symbol: int, levels: int) -> tuple[Records, Records]:
        """At most `levels` bids and asks of a symbol, best first: price (ticks), quantity, orders."""
        if levels < 0:
            raise ValueError(f"levels: not negative, not {levels}")
        sides = []
        for side in (0, 1):
            rows = np.empty(min(levels, self.open_orders), DEPTH_DTYPE)
            count = self._kernels.depth(
                self._storage.address, self._book(symbol, side), len(rows), address(rows)
            )
            sides.append(rows[:count].copy())
        return sides[0], sides[1]

    def best(self, symbol: int) -> tuple[int | None, int | None]:
        """Best bid and ask of a symbol in ticks, None where there is none."""
        bids, asks = self.depth(symbol, 1)
        return (int(bids["price"][0]) if len(bids) else None, int(asks["price"][0]) if len(asks) else None)
