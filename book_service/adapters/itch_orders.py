"""Orders of an ITCH stream followed to the quantity at each price level, a whole batch of them at once.

Each add starts a life; executions, cancels and deletes shorten one; a replace ends one and starts another on
the same side. Within a batch lives are matched to their messages by sorting, and level quantities are running
sums; only what is still open at the end of the batch is kept, one entry an order and one a level.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from book_service.adapters.errors import AdapterError

OPEN_ORDERS_MAX = 20_000_000  # orders open at once; a day of the whole market has a few million

Ints = NDArray[np.int64]
_OLD, _NEW = 1, 2  # a replace's two changes, in this order


@dataclass(frozen=True, slots=True)
class Starts:
    """Adds and replaces, in order: one row a message."""

    place: Ints
    ref: NDArray[np.uint64]
    locate: Ints
    side: Ints  # 0 buy, 1 sell; of a replace not read
    price: Ints
    shares: Ints
    replaces: Ints  # row of `Cuts` that ends the replaced order; -1 for an add


@dataclass(frozen=True, slots=True)
class Cuts:
    """Executions, cancels, deletes and the old side of replaces, in order: one row a message."""

    place: Ints
    ref: NDArray[np.uint64]
    shares: Ints  # -1: all that is left


@dataclass(frozen=True, slots=True)
class Changes:
    """Level changes in order, and for each row of `Cuts` the order that it is about."""

    moment: Ints  # the message's place times 4, plus the place within the message
    locate: Ints
    side: Ints
    price: Ints
    quantity: Ints  # now at that price
    cut_locate: Ints  # -1: no open order has that reference
    cut_side: Ints
    cut_price: Ints
    cut_shares: Ints  # really taken off
    unknown: int  # rows of `Cuts` and replaces without an open order


@dataclass(slots=True)
class OrderLevels:
    """Open orders and levels; a batch is applied wholly, or refused and nothing changes."""

    open_orders_max: int = OPEN_ORDERS_MAX
    _orders: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)  # locate, side, price, shares
    _levels: dict[int, int] = field(default_factory=dict)

    @property
    def open_orders(self) -> int:
        """How many orders are open."""
        return len(self._orders)

    def levels(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Every level that is not empty: locate, side, price, quantity; by locate, side and price."""
        keys = np.array(sorted(self._levels), np.int64)
        quantity = np.array([self._levels[key] for key in keys.tolist()], np.int64)
        return keys >> 33, (keys >> 32) & 1, keys & 0xFFFFFFFF, quantity

    def apply(self, starts: Starts, cuts: Cuts) -> Changes:
        """What a batch does to the levels."""
        life, known = self._lives(starts, cuts)
        locate, side, price, shares = (np.concatenate(pair) for pair in zip(_own(starts), known, strict=True))
        before, after = _left(life, cuts, shares)
        valid, side = _inherit(starts, life, before, side)
        found = life >= 0
        found[found] &= valid[life[found]]
        found &= before > 0
        at = np.where(found, life, 0) if len(valid) else np.zeros(len(life), np.int64)
        taken = np.where(found, before - after, 0)
        changes = self._changes(starts, cuts, (locate, side, price), at, found, taken, valid)
        self._keep(starts, cuts, (locate, side, price, shares), life, after, valid)
        cut_locate, cut_side, cut_price = (
            np.where(found, column[at], -1) if len(column) else life for column in (locate, side, price)
        )
        unknown = int(np.count_nonzero(~found))
        return Changes(*changes, cut_locate, cut_side, cut_price, taken, unknown)

    def _lives(self, starts: Starts, cuts: Cuts) -> tuple[Ints, tuple[Ints, Ints, Ints, Ints]]:
        """For each cut its life: a row of `starts`, or past them of the open orders returned; or -1."""
        by_ref = np.argsort(starts.ref, kind="stable")
        sorted_refs = starts.ref[by_ref]
        twice = np.flatnonzero(sorted_refs[1:] == sorted_refs[:-1])
        if twice.size:
            raise AdapterError(f"order {int(sorted_refs[twice[0]])} is added twice")
        again = next((ref for ref in starts.ref.tolist() if ref in self._orders), None)
        if again is not None:
            raise AdapterError(f"order {again} is added while it is open")
        if len(self._orders) + len(starts.ref) > self.open_orders_max:
            raise AdapterError(f"more than {self.open_orders_max} orders are open")
        life = np.full(len(cuts.ref), -1, np.int64)
        if len(by_ref):
            at = np.minimum(np.searchsorted(sorted_refs, cuts.ref), len(by_ref) - 1)
            row = by_ref[at]
            here = (sorted_refs[at] == cuts.ref) & (starts.place[row] < cuts.place)
            life[here] = row[here]
        else:
            here = np.zeros(len(cuts.ref), bool)
        elsewhere = np.flatnonzero(~here)
        refs = cuts.ref[elsewhere].tolist()
        open_refs = list({ref: None for ref in refs if ref in self._orders})
        slot = {ref: len(starts.ref) + place for place, ref in enumerate(open_refs)}
        life[elsewhere] = [slot.get(ref, -1) for ref in refs]
        rows = np.array([self._orders[ref] for ref in open_refs], np.int64).reshape(-1, 4)
        return life, (rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3])

    def _changes(
        self,
        starts: Starts,
        cuts: Cuts,
        levels: tuple[Ints, Ints, Ints],
        at: Ints,
        found: NDArray[np.bool_],
        taken: Ints,
        valid: NDArray[np.bool_],
    ) -> tuple[Ints, Ints, Ints, Ints, Ints]:
        """Cuts and starts as changes of levels, in order, each with the quantity after it."""
        locate, side, price = levels
        new = np.flatnonzero(valid[: len(starts.ref)] & (starts.shares > 0))
        cut = np.flatnonzero(found & (taken > 0))
        rows = np.concatenate((at[cut], new))
        key = (locate[rows] << 33) | (side[rows] << 32) | price[rows]
        change = np.concatenate((-taken[cut], starts.shares[new]))
        moment = np.concatenate((cuts.place[cut] * 4 + _OLD, starts.place[new] * 4 + _NEW))
        order = np.argsort(moment, kind="stable")
        key, change, rows, moment = key[order], change[order], rows[order], moment[order]
        quantity = self._running(key, change)
        return moment, locate[rows], side[rows], price[rows], quantity

    def _running(self, key: Ints, change: Ints) -> Ints:
        """The quantity of each change's level after it."""
        if key.size == 0:
            return change
        order = np.argsort(key, kind="stable")
        keys, total = key[order], np.cumsum(change[order])
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        ends = np.append(starts[1:], len(keys))
        names = keys[starts].tolist()
        held = np.array([self._levels.get(name, 0) for name in names], np.int64)
        offset = held - np.concatenate(([0], total[ends[:-1] - 1]))
        quantity = np.empty_like(total)
        total += np.repeat(offset, ends - starts)
        quantity[order] = total
        for name, now in zip(names, total[ends - 1].tolist(), strict=True):
            if now:
                self._levels[name] = now
            else:
                self._levels.pop(name, None)
        return quantity

    def _keep(
        self,
        starts: Starts,
        cuts: Cuts,
        columns: tuple[Ints, Ints, Ints, Ints],
        life: Ints,
        after: Ints,
        valid: NDArray[np.bool_],
    ) -> None:
        """What is open after the batch: new orders that live, old ones with what is left of them."""
        locate, side, price, shares = columns
        left = shares.copy()
        left[life[life >= 0]] = after[life >= 0]  # the last cut of a life is the last to be written
        new = np.flatnonzero(valid[: len(starts.ref)] & (left[: len(starts.ref)] > 0))
        rows: Iterable[Any] = zip(
            *(column[new].tolist() for column in (locate, side, price, left)), strict=True
        )
        self._orders.update(zip(starts.ref[new].tolist(), rows, strict=True))
        older = life >= len(starts.ref)
        for ref, now in zip(cuts.ref[older].tolist(), left[life[older]].tolist(), strict=True):
            if now > 0:
                self._orders[ref] = (*self._orders[ref][:3], now)
            else:
                self._orders.pop(ref, None)


def _own(starts: Starts) -> tuple[Ints, Ints, Ints, Ints]:
    return starts.locate, starts.side, starts.price, starts.shares


def _left(life: Ints, cuts: Cuts, shares: Ints) -> tuple[Ints, Ints]:
    """What was left of its life before and after each cut; more than there is takes what there is."""
    before, after = np.zeros(len(life), np.int64), np.zeros(len(life), np.int64)
    about = np.flatnonzero(life >= 0)
    order = about[np.argsort(life[about], kind="stable")]
    if order.size == 0:
        return before, after
    lives = life[order]
    whole = shares[lives]
    amount = np.where(cuts.shares[order] < 0, whole, cuts.shares[order])
    total = np.cumsum(amount)
    starts = np.flatnonzero(np.diff(lives, prepend=-1))
    counts = np.diff(starts, append=len(lives))
    total -= np.repeat(total[starts] - amount[starts], counts)
    after[order] = np.maximum(whole - total, 0)
    before[order] = np.maximum(whole - (total - amount), 0)
    return before, after


def _inherit(starts: Starts, life: Ints, before: Ints, side: Ints) -> tuple[NDArray[np.bool_], Ints]:
    """Which lives are real, and their sides: a replace has its order's, through chains of replaces."""
    parent = np.arange(len(side))
    valid = np.ones(len(side), bool)
    replacing = np.flatnonzero(starts.replaces >= 0)
    cut = starts.replaces[replacing]
    orphan = (life[cut] < 0) | (before[cut] <= 0)
    parent[replacing] = np.where(orphan, replacing, life[cut])
    valid[replacing] = ~orphan
    while True:
        above = parent[parent]
        valid &= valid[parent]
        if np.array_equal(above, parent):
            return valid, side[parent]
        parent = above
