"""Options with cash dividends under scenarios, cell by cell: what is left of each spot, and its market."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.dividend_schedules import owners, sums
from gpu_kernels.formulas.cash_dividends import Schedule
from gpu_kernels.options import Options
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.scenarios import VOL_FLOOR
from gpu_kernels.shocked_options import vol_changes

if TYPE_CHECKING:
    from gpu_kernels.engines.engine import Engine
    from gpu_kernels.revaluation import Shocks

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cells:
    """Option rows P under C markets: arrays (P, C), and the change of the rate (C,)."""

    spot: Floats
    left: Floats  # of the spot, without the dividends to come; not below 0
    vol: Floats
    rate_change: Floats
    time: Floats  # (P,) years to expiry

    @classmethod
    def of(cls, book: Portfolio, shocks: Shocks, due: Floats) -> Cells:
        """The book under the shocks; `due` is what `due_then` gives."""
        spot = book.spot[:, None] * np.exp(shocks.spot_return[book.underlying])
        vol = np.maximum(book.vol[:, None] + vol_changes(book, shocks), VOL_FLOOR)
        rates = np.zeros(shocks.scenarios) if shocks.rate_change is None else shocks.rate_change
        time = np.maximum(book.expiry - shocks.elapsed, 0.0)
        return cls(spot, np.maximum(spot - due, 0.0), vol, rates, time)

    @classmethod
    def today(cls, book: Portfolio, schedule: Schedule) -> Cells:
        """The book as it is, in one column."""
        carry = (book.rate - book.dividend_yield)[owners(schedule)]
        due = sums(schedule, schedule.amounts * np.exp(-carry * schedule.times))
        spot = book.spot[:, None]
        left = np.maximum(spot - due[:, None], 0.0)
        return cls(spot, left, np.maximum(book.vol, VOL_FLOOR)[:, None], np.zeros(1), book.expiry)

    def beside(self, other: Cells) -> Cells:
        """These columns, then the other's."""
        return Cells(
            spot=np.concatenate((self.spot, other.spot), axis=1),
            left=np.concatenate((self.left, other.left), axis=1),
            vol=np.concatenate((self.vol, other.vol), axis=1),
            rate_change=np.concatenate((self.rate_change, other.rate_change)),
            time=self.time,
        )

    def european(self, engine: Engine, book: Portfolio) -> Floats:
        """European value in every cell."""
        shape = self.left.shape

        def wide(column: NDArray[Any]) -> NDArray[Any]:
            return np.ascontiguousarray(np.broadcast_to(column[:, None], shape))

        options = Options(
            spot=self.left,
            strike=wide(book.strike),
            expiry=wide(self.time),
            vol=self.vol,
            rate=book.rate[:, None] + self.rate_change,
            dividend_yield=wide(book.dividend_yield),
            is_call=wide(book.is_call),
        )
        value: Floats = engine.price(options).price
        return value


def due_then(schedule: Schedule, book: Portfolio, shocks: Shocks) -> Floats:
    """What each row's dividends are worth at the horizon: (P, S), or (P, 1) where rates do not move."""
    own = owners(schedule)
    carry = (book.rate - book.dividend_yield)[own]
    worth = schedule.amounts * np.exp(-carry * schedule.times)
    if shocks.rate_change is None:
        return sums(schedule, worth)[:, None]
    out = np.zeros((book.options, shocks.scenarios))
    full = np.flatnonzero(np.diff(schedule.offsets))
    if full.size:
        each = worth[:, None] * np.exp(-schedule.times[:, None] * shocks.rate_change)
        out[full] = np.add.reduceat(each, schedule.offsets[full], axis=0)
    return out
