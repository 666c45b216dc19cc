"""Price levels of one symbol as one source tells them: deltas, snapshots, and what to do without them.

    live ──(events missing)──► waiting ──(first row of a snapshot … last row)──► live

A book that began with its stream's first event is live from empty. A delta gives the quantity now at its
price, so one that comes between the rows of a snapshot is newer than they are and changes both books.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVELS_MAX = 100_000  # levels of one side; more is a fault of the feed, and the book waits for a snapshot


class Top(NamedTuple):
    """Best prices (currency) and quantities; zeros where a side is empty."""

    bid: float = 0.0
    bid_quantity: float = 0.0
    ask: float = 0.0
    ask_quantity: float = 0.0


class Level(NamedTuple):
    """One price (currency) and the quantity there."""

    price: float
    quantity: float


Sides = tuple[dict[float, float], dict[float, float]]  # buy, sell: quantity by price


def _empty() -> Sides:
    return {}, {}


@dataclass(slots=True)
class LevelBook:
    """Sides are 0 buy, 1 sell. Quantities are positive; zero takes the level away."""

    live: bool = True
    levels_max: int = LEVELS_MAX
    _sides: Sides = field(default_factory=_empty)
    _coming: Sides | None = None  # the snapshot that is being received
    _best: list[float | None] = field(default_factory=lambda: [None, None])  # None: to be looked for

    @property
    def receiving(self) -> bool:
        """Whether the first row of a snapshot has come and the last has not."""
        return self._coming is not None

    def lose(self) -> None:
        """Events are missing: what was known is no longer true, a snapshot half received neither."""
        self.live, self._coming = False, None
        self._replace(_empty())

    def change(self, side: int, price: float, quantity: float) -> None:
        """Takes a delta."""
        if self._coming is not None:
            self._receive(self._coming, side, price, quantity)
        if self.live:
            self._put(side, price, quantity)
            self._check_size()

    def change_many(
        self, side: NDArray[np.int32], price: NDArray[np.float64], quantity: NDArray[np.float64]
    ) -> None:
        """Takes deltas in order into a book that is live and receives no snapshot."""
        # The last word on a price is what counts, so each side is one update of its dict.
        for which, levels in enumerate(self._sides):
            chosen = side == which
            prices, quantities = price[chosen], quantity[chosen]
            levels.update(zip(prices.tolist(), quantities.tolist(), strict=True))
            empty = quantities == 0.0
            for gone in prices[empty].tolist():
                if levels.get(gone) == 0.0:
                    del levels[gone]
            filled = prices[~empty]
            if filled.size:
                self._compare_best(which, float(filled.min() if which else filled.max()))
            elif self._best[which] not in levels:
                self._best[which] = None
        self._check_size()

    def snapshot_row(self, side: int, price: float, quantity: float, *, first: bool, last: bool) -> bool:
        """Takes one level of a snapshot; False if no first row came before it."""
        if first:
            self._coming = _empty()
        if self._coming is None:
            return False
        coming = self._receive(self._coming, side, price, quantity)
        if coming is not None and last:
            self.live, self._coming = True, None
            self._replace(coming)
        return True

    def top(self) -> Top:
        """Best prices and their quantities."""
        buys, sells = self._sides
        bid, ask = self._best
        if bid is None and buys:
            bid = self._best[0] = max(buys)
        if ask is None and sells:
            ask = self._best[1] = min(sells)
        return Top(bid or 0.0, buys[bid] if bid else 0.0, ask or 0.0, sells[ask] if ask else 0.0)

    def depth(self, levels: int) -> tuple[list[Level], list[Level]]:
        """At most `levels` of each side, best first."""
        buys = sorted(self._sides[0].items(), reverse=True)[:levels]
        sells = sorted(self._sides[1].items())[:levels]
        return [Level(*level) for level in buys], [Level(*level) for level in sells]

    def _put(self, side: int, price: float, quantity: float) -> None:
        levels = self._sides[side]
        if quantity:
            levels[price] = quantity
            self._compare_best(side, price)
        elif levels.pop(price, None) is not None and price == self._best[side]:
            self._best[side] = None

    def _compare_best(self, side: int, price: float) -> None:
        """After a change: is `price`, the best of those filled, the side's best?"""
        levels, best = self._sides[side], self._best[side]
        if best is None:
            return
        better = price < best if side else price > best
        if better and price in levels:
            self._best[side] = price
        elif better or best not in levels:
            self._best[side] = None

    def _check_size(self) -> None:
        if max(len(self._sides[0]), len(self._sides[1])) > self.levels_max:
            self.lose()

    def _replace(self, sides: Sides) -> None:
        self._sides, self._best = sides, [None, None]

    def _receive(self, coming: Sides, side: int, price: float, quantity: float) -> Sides | None:
        """Puts a level into the snapshot that is being received; None if it has become too large."""
        levels = coming[side]
        if quantity:
            levels[price] = quantity
        else:
            levels.pop(price, None)
        if len(levels) <= self.levels_max:
            return coming
        self.lose()
        return None
