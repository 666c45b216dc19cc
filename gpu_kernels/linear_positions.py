"""Spot and futures positions: what moves with its underlying one to one, but for the carry of a future."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_kernels.columns import common_length, index_column, real_column
from gpu_kernels.dividend_schedules import CashDividends, due, owners
from gpu_kernels.errors import InvalidInput
from gpu_kernels.scenarios import Scenarios

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def futures_price(
    spot: Floats, rate: Floats, dividend_yield: Floats, expiry: Floats, dividends: CashDividends | None = None
) -> Floats:
    """The spot less the dividends before expiry (years), carried there at the rate less the yield."""
    carry = rate - dividend_yield
    if dividends is not None:
        spot = np.maximum(spot - due(dividends.within(expiry), carry), 0.0)
    return np.asarray(spot * np.exp(carry * expiry))


class CarryGreeks(NamedTuple):
    """Derivatives of the price of one unit (N,) beside its delta; 0 of spot positions."""

    theta: Floats  # per year, as the calendar goes on
    rho: Floats  # per 1.00
    charm: Floats


@dataclass(frozen=True)
class LinearPositions:
    """Spot and futures positions (N,). ``spot`` is the price: the spot, or the futures price of a future.

    A position without ``expiry`` (0) moves with its underlying's return: it gains quantity·multiplier·price
    times that. A future with one (years) is settled every day: it gains quantity·multiplier times what its
    price gains, which is the cost of carry's, (S − D)·e^((r − q)T), with D what the ``dividends`` before its
    expiry are worth today. So it moves with the rate and with time, too, and has no value.
    """

    underlying: Integers
    quantity: Floats
    multiplier: Floats
    spot: Floats
    group: Integers | None
    expiry: Floats
    rate: Floats
    dividend_yield: Floats
    dividends: CashDividends | None = None

    @classmethod
    def of(
        cls,
        *,
        underlying: ArrayLike,
        quantity: ArrayLike,
        spot: ArrayLike,
        multiplier: ArrayLike = 1.0,
        group: ArrayLike | None = None,
        expiry: ArrayLike = 0.0,
        rate: ArrayLike = 0.0,
        dividend_yield: ArrayLike = 0.0,
        dividends: CashDividends | None = None,
    ) -> LinearPositions:
        """Validated positions; scalars hold for every row."""
        columns = {"underlying": underlying, "quantity": quantity, "multiplier": multiplier, "spot": spot}
        terms = {"expiry": expiry, "rate": rate, "dividend_yield": dividend_yield}
        count = common_length(**columns, **terms, group=group)
        if any(np.shape(column) == (0,) for column in columns.values()):
            count = 0
        if dividends is not None and len(dividends) not in (1, count):
            raise InvalidInput("linear.dividends", f"has {len(dividends)} rows, other columns have {count}")
        return cls(
            underlying=index_column(underlying, "linear.underlying", count),
            quantity=real_column(quantity, "linear.quantity", count),
            multiplier=real_column(multiplier, "linear.multiplier", count),
            spot=_not_negative(spot, "linear.spot", count),
            group=None if group is None else index_column(group, "linear.group", count),
            expiry=_not_negative(expiry, "linear.expiry", count),
            rate=real_column(rate, "linear.rate", count),
            dividend_yield=real_column(dividend_yield, "linear.dividend_yield", count),
            dividends=dividends,
        )

    def __len__(self) -> int:
        return len(self.quantity)

    @property
    def size(self) -> Floats:
        """Quantity times multiplier."""
        return np.asarray(self.quantity * self.multiplier)

    @property
    def growth(self) -> Floats:
        """What the price of a future gains per unit that its spot gains, e^((r − q)T); 1 of the others."""
        alive = (self.spot > 0.0) | (self._owed() == 0.0)
        return np.where(alive, np.exp(self._carry * self.expiry), 0.0)

    @property
    def underlying_spot(self) -> Floats:
        """The spot behind each price; a position without expiry has its own."""
        return np.asarray((self.spot + self._owed()) * np.exp(-self._carry * self.expiry))

    def greeks(self) -> CarryGreeks:
        """Theta, rho and charm of one unit."""
        alive, carry, years = self.growth > 0.0, self._carry, self.expiry
        grown = np.where(alive, self.spot + self._owed(), 0.0)
        rho = years * grown
        if self.dividends is not None:
            schedule = self.dividends.within(years)
            owner = owners(schedule)
            left = years[owner] - schedule.times
            np.subtract.at(rho, owner, alive[owner] * schedule.amounts * left * np.exp(carry[owner] * left))
        return CarryGreeks(
            theta=np.where(years > 0.0, -carry * grown, 0.0),
            rho=rho,
            charm=np.where(years > 0.0, -carry, 0.0) * self.growth,
        )

    def at_spots(self, spots: Floats, carry: Floats) -> LinearPositions:
        """The same at other ``spots`` (N,); ``carry`` is price over spot where there is no expiry."""
        future = np.maximum(spots * np.exp(self._carry * self.expiry) - self._owed(), 0.0)
        return replace(self, spot=np.where(self.expiry > 0.0, future, spots * carry))

    def rows(self, chosen: Integers) -> LinearPositions:
        """The positions in ``chosen``, in its order."""
        names = ("underlying", "quantity", "multiplier", "spot", "expiry", "rate", "dividend_yield")
        columns = {name: getattr(self, name)[chosen] for name in names}
        group = None if self.group is None else self.group[chosen]
        paid = None if self.dividends is None else self.dividends.rows(chosen, len(self))
        return LinearPositions(**columns, group=group, dividends=paid)

    def pnl(self, scenarios: Scenarios) -> Floats:
        """What each position gains, (N, S), in currency."""
        moves = scenarios.spot_return.T[self.underlying]
        if not self.expiry.any():
            return np.asarray((self.size * self.spot)[:, None] * np.expm1(moves))
        gained = np.empty(moves.shape)
        for elapsed in np.unique(scenarios.elapsed):
            columns = np.flatnonzero(scenarios.elapsed == elapsed)
            gained[:, columns] = self._gained(
                moves[:, columns], float(elapsed), scenarios.rate_change[columns]
            )
        return np.asarray(self.size[:, None] * gained)

    def _gained(self, moves: Floats, elapsed: float, rate_change: Floats) -> Floats:
        """Of one unit, after so many years."""
        left = np.maximum(self.expiry - elapsed, 0.0)
        changes = rate_change[None, :] if rate_change.any() else np.zeros((1, 1))
        carried = (self._carry[:, None] + changes) * left[:, None] - (self._carry * self.expiry)[:, None]
        now = self._owed()
        then = self._owed_then(elapsed, left, changes)
        gained = (self.spot + now)[:, None] * np.expm1(moves + carried) + (now[:, None] - then)
        return np.maximum(gained, -self.spot[:, None])

    @property
    def _carry(self) -> Floats:
        return np.asarray(self.rate - self.dividend_yield)

    def _owed(self) -> Floats:
        """What the dividends before expiry take off the price today."""
        return self._owed_then(0.0, self.expiry, np.zeros((1, 1)))[:, 0]

    def _owed_then(self, elapsed: float, left: Floats, changes: Floats) -> Floats:
        """The same after so many years, (N, S): those paid by then are gone."""
        owed = np.zeros((len(self), changes.shape[1]))
        if self.dividends is not None:
            schedule = self.dividends.after(elapsed).within(left)
            owner = owners(schedule)
            until = (left[owner] - schedule.times)[:, None]
            grown = np.exp((self._carry[owner][:, None] + changes) * until)
            np.add.at(owed, owner, schedule.amounts[:, None] * grown)
        return owed


def _not_negative(value: ArrayLike, field: str, count: int) -> Floats:
    column = real_column(value, field, count)
    bad = np.flatnonzero(column < 0.0)
    if bad.size:
        raise InvalidInput(field, f"must not be negative, got {column[bad[0]]}", int(bad[0]))
    return column
