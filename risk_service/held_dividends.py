"""The cash dividends that a portfolio states for its underlyings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.dividend_schedules import CashDividends
from protos import packing
from protos.risk.v1.risk_pb2 import PortfolioDividends
from service_kit.errors import InvalidRequest

DIVIDENDS_MAX = 100_000  # in one portfolio
PER_UNDERLYING_MAX = 400  # a hundred years of quarters
AMOUNT_MAX = 1e12  # currency
NS_PER_YEAR = 365.0 * 86_400e9  # actual/365, as options are quoted

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class HeldDividends:
    """Sorted by underlying (its place in the portfolio), then by ex-date."""

    underlying: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    ex_time_ns: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    amount: Floats = field(default_factory=lambda: np.zeros(0))
    _keys: dict[int, int] = field(default_factory=dict, compare=False, repr=False)  # worked out so far

    def __len__(self) -> int:
        return self.amount.size

    @classmethod
    def read(cls, message: PortfolioDividends, underlyings: int) -> HeldDividends:
        """Checked; anything wrong raises InvalidRequest naming field and row."""
        names = ("underlying_index", "ex_time_ns", "amount")
        try:
            rows = packing.row_count(message, names)
            place, when, amount = (packing.column(message, name, rows) for name in names)
        except packing.PackingError as fault:
            raise InvalidRequest(f"dividends.{fault.field}", fault.why, fault.row) from fault
        if rows > DIVIDENDS_MAX:
            raise InvalidRequest("dividends.amount", f"{rows} dividends are more than {DIVIDENDS_MAX}")
        if rows and not message.amount:
            raise InvalidRequest("dividends.amount", "is missing")
        _refuse("underlying_index", place >= underlyings, "is outside underlyings")
        _refuse("ex_time_ns", when <= 0, "is missing")
        # Written so that NaN is refused too.
        _refuse("amount", ~((amount >= 0.0) & (amount <= AMOUNT_MAX)), f"must be from 0 to {AMOUNT_MAX:g}")
        order = np.lexsort((when, place))
        sizes = np.bincount(place.astype(np.int64), minlength=max(1, underlyings))
        if sizes.max() > PER_UNDERLYING_MAX:
            row = int(np.flatnonzero(place == sizes.argmax())[PER_UNDERLYING_MAX])
            why = f"{sizes.argmax()} has more than {PER_UNDERLYING_MAX} dividends"
            raise InvalidRequest("dividends.underlying_index", why, row)
        return cls(
            place[order].astype(np.int64), when[order].astype(np.int64), amount[order].astype(np.float64)
        )

    def message(self) -> PortfolioDividends:
        """As it goes over the wire."""
        found = PortfolioDividends()
        packing.write(found, "underlying_index", self.underlying.astype(np.uint32))
        packing.write(found, "ex_time_ns", self.ex_time_ns)
        packing.write(found, "amount", self.amount)
        return found

    def last_before(self, place: Integers, expiry_time_ns: Integers) -> Integers:
        """Last ex-date of each option's underlying that its expiry comes after; 0 where there is none."""
        last = np.zeros(place.size, np.int64)
        for underlying in np.unique(self.underlying).tolist():
            times = self.ex_time_ns[(self.underlying == underlying) & (self.amount > 0.0)]
            mine = np.flatnonzero(place == underlying)
            before = np.searchsorted(times, expiry_time_ns[mine], side="left")
            known = before > 0
            last[mine[known]] = times[before[known] - 1]
        return last

    def of(self, place: Integers, now_ns: Integers | int) -> CashDividends | None:
        """The dividends of options on these underlyings, seen at a moment, or each at its own; None: none."""
        if not len(self):
            return None
        moments = np.broadcast_to(np.asarray(now_ns, np.int64), place.shape)
        if np.ndim(now_ns):
            kinds, index = np.unique(np.stack((place, moments), axis=1), axis=0, return_inverse=True)
        else:
            own, index = np.unique(place, return_inverse=True)
            kinds = np.stack((own, moments[: len(own)]), axis=1)
        low, high = (np.searchsorted(self.underlying, kinds[:, 0], side) for side in ("left", "right"))
        spans = [np.arange(start, stop) for start, stop in zip(low.tolist(), high.tolist(), strict=True)]
        at = np.concatenate(spans) if spans else np.zeros(0, np.int64)
        sizes = high - low
        years = (self.ex_time_ns[at] - np.repeat(kinds[:, 1], sizes)) / NS_PER_YEAR
        offsets = np.concatenate(([0], np.cumsum(sizes)))
        return CashDividends(years, self.amount[at], offsets, index.reshape(-1))

    def keys(self, place: Integers) -> Integers:
        """A number for what is stated of each option's underlying, 0 for nothing: its digest."""
        found = np.zeros(place.size, np.int64)
        for underlying in np.intersect1d(place, self.underlying).tolist():
            found[place == underlying] = self._key(underlying)
        return found

    @classmethod
    def joined(cls, several: Iterable[HeldDividends]) -> HeldDividends:
        """What several state, each schedule once: `underlying` is its number in the order of their keys."""
        schedules: dict[int, tuple[Integers, Floats]] = {}
        for one in several:
            for underlying in np.unique(one.underlying).tolist():
                mine = one.underlying == underlying
                schedules[one._key(underlying)] = one.ex_time_ns[mine], one.amount[mine]
        if not schedules:
            return cls()
        _, columns = zip(*sorted(schedules.items()), strict=True)
        numbers = np.repeat(np.arange(len(columns)), [len(times) for times, _ in columns])
        times, amounts = (np.concatenate(column) for column in zip(*columns, strict=True))
        return cls(numbers, times, amounts)

    def places(self, keys: Integers) -> Integers:
        """Numbers of the joined schedules with these keys; one beyond the last where none has it."""
        if not len(self):
            return np.zeros(keys.size, np.int64)
        own = np.array([self._key(number) for number in np.unique(self.underlying).tolist()], np.int64)
        at = np.searchsorted(own, keys)
        known = own[np.minimum(at, len(own) - 1)] == keys
        return np.where(known, at, len(own))

    def _key(self, underlying: int) -> int:
        if underlying not in self._keys:
            mine = self.underlying == underlying
            content = self.ex_time_ns[mine].tobytes() + self.amount[mine].tobytes()
            digest = blake2b(content, digest_size=8).digest()
            self._keys[underlying] = int.from_bytes(digest, "little", signed=True)
        return self._keys[underlying]


def _refuse(name: str, bad: NDArray[np.bool_], why: str) -> None:
    rows = np.flatnonzero(bad)
    if rows.size:
        raise InvalidRequest(f"dividends.{name}", why, int(rows[0]))
