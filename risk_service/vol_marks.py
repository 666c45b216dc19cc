"""The vol of every option position, implied from the market's own quotes.

A strike's call and put have one vol, and the one out of the money tells it best: it has no intrinsic value
to hide a rounded tick in. So a position is marked at the vol of whichever quote at its strike is out of the
money; where that tells no vol, at the other's. Each vol is implied from numbers of one moment: the
quote and the underlying as it was then. Between quotes the vol stays with the strike.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.dividend_schedules import CashDividends, due
from risk_service.held_dividends import NS_PER_YEAR, HeldDividends
from risk_service.market_state import MISSING, MarketState

_OSI_LENGTH = 21
_OSI_RIGHT = 12  # place of C or P


@dataclass(frozen=True, slots=True)
class Contracts:
    """Terms of option positions, and the market slots of their underlying and their strike's call and put."""

    underlying: NDArray[np.int64]  # slots
    call: NDArray[np.int64]
    put: NDArray[np.int64]
    expiry_time_ns: NDArray[np.int64]
    strike: NDArray[np.float64]
    american: NDArray[np.bool_]
    last_ex_ns: NDArray[np.int64]  # the last ex-date before expiry; 0: no dividends
    dividends: HeldDividends | None = None  # None: nobody states any
    place: NDArray[np.int64] | None = None  # of each option's underlying among those of the dividends

    def dividend_keys(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """What is stated of the dividends of these options, as a number; 0 for none before expiry."""
        if self.dividends is None or self.place is None:
            return np.zeros(len(rows), np.int64)
        return np.where(self.last_ex_ns[rows] != 0, self.dividends.keys(self.place[rows]), 0)

    def paid(self, rows: NDArray[np.intp] | slice, now_ns: NDArray[np.int64] | int) -> CashDividends | None:
        """The dividends of these options, seen at these moments."""
        if self.dividends is None or self.place is None:
            return None
        return self.dividends.of(self.place[rows], now_ns)

    def __len__(self) -> int:
        return len(self.strike)


def is_osi(symbol: str) -> bool:
    """Whether a symbol is an option's in the OSI format."""
    return len(symbol) == _OSI_LENGTH and symbol[_OSI_RIGHT] in "CP"


def pair(symbol: str, is_call: bool) -> tuple[str, str]:
    """Symbols of the call and the put at an option's strike; in a format we do not know, only its own."""
    if is_osi(symbol):
        head, tail = symbol[:_OSI_RIGHT], symbol[_OSI_RIGHT + 1 :]
        return f"{head}C{tail}", f"{head}P{tail}"
    return (symbol, "") if is_call else ("", symbol)


def years_between(start_ns: NDArray[np.int64] | int, end_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Time from start to end, in years, never negative."""
    years: NDArray[np.float64] = np.maximum(end_ns - start_ns, 0) / NS_PER_YEAR
    return years


_MARK = np.dtype(
    [
        ("vol", np.float64),
        ("quotes", np.int64),  # how many quotes there had been when it was implied
        # The terms it was implied for: portfolios may disagree on what a symbol is.
        ("strike", np.float64),
        ("expiry_time_ns", np.int64),
        ("american", np.bool_),
        ("dividends", np.int64),
    ]
)


@dataclass(slots=True)
class VolMarks:
    """Vols by slot of the quote they come from, implied anew only where the quote or the terms differ."""

    _marks: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, _MARK))

    def marks(self, engine: gk.Engine, market: MarketState, contracts: Contracts) -> NDArray[np.float64]:
        """Vol of each contract, NaN where no quote tells one."""
        return self.marked(engine, market, contracts)[0]

    def marked(
        self, engine: gk.Engine, market: MarketState, contracts: Contracts
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Vol of each contract, and the slot of the quote that tells it."""
        first, second = _sides(market, contracts)
        vols = self._implied(engine, market, contracts, first)
        unmarked = np.isnan(vols)
        if unmarked.any():
            others = self._implied(engine, market, contracts, np.where(unmarked, second, MISSING))
            vols = np.where(unmarked, others, vols)
            return vols, np.where(unmarked, second, first)
        return vols, first

    def copy(self) -> VolMarks:
        """The same marks; what is implied later does not reach them."""
        return VolMarks(self._marks.copy())

    def _implied(
        self, engine: gk.Engine, market: MarketState, contracts: Contracts, chosen: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Vols of the chosen quotes, one per contract; NaN for MISSING and for a quote that tells none."""
        self._grow(int(chosen.max(initial=MISSING)) + 1)
        vols = np.full(len(contracts), np.nan)
        rows = np.flatnonzero((chosen != MISSING) & np.isfinite(market.column("mid", chosen)))
        wanted = np.zeros(rows.size, _MARK)
        wanted["quotes"] = market.column("quotes", chosen[rows])
        for name in ("strike", "expiry_time_ns", "american"):
            wanted[name] = getattr(contracts, name)[rows]
        wanted["dividends"] = contracts.dividend_keys(rows)
        held = self._marks[chosen[rows]]
        same = np.ones(rows.size, np.bool_)
        for name in ("quotes", "strike", "expiry_time_ns", "american", "dividends"):
            same &= held[name] == wanted[name]
        vols[rows[same]] = held["vol"][same]
        fresh = rows[~same]
        if fresh.size:
            vols[fresh] = _solve(engine, market, contracts, chosen[fresh], fresh)
            wanted["vol"][~same] = vols[fresh]
            self._marks[chosen[fresh]] = wanted[~same]
        return vols

    def _grow(self, size: int) -> None:
        if size > len(self._marks):
            more = max(size, 2 * len(self._marks)) - len(self._marks)
            self._marks = np.concatenate((self._marks, np.zeros(more, _MARK)))


def _solve(
    engine: gk.Engine,
    market: MarketState,
    contracts: Contracts,
    slots: NDArray[np.int64],
    rows: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Vols of the contracts `rows` from the quotes in `slots`; NaN where a price tells none."""
    options = gk.Options(
        spot=market.column("underlying_spot", slots),
        strike=contracts.strike[rows],
        expiry=years_between(market.quote_times_ns(slots), contracts.expiry_time_ns[rows]),
        rate=market.column("underlying_rate", slots),
        dividend_yield=market.column("underlying_yield", slots),
        vol=np.nan,
        is_call=slots == contracts.call[rows],
        american=contracts.american[rows],
        dividends=contracts.paid(rows, market.quote_times_ns(slots)),
    )
    implied = engine.implied_vol(options, market.column("mid", slots))
    return np.where(implied.status == gk.Status.OK, implied.vol, np.nan)


def _sides(market: MarketState, contracts: Contracts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Slots of the quote out of the money and of the one in the money, at each contract's strike."""
    underlying = contracts.underlying
    years = years_between(market.valuation_time_ns, contracts.expiry_time_ns)
    carry = market.column("rate", underlying) - market.column("dividend_yield", underlying)
    spots = market.spots(underlying)
    paid = contracts.paid(slice(None), market.valuation_time_ns)
    if paid is not None:
        spots = spots - due(paid.within(years), carry)
    puts_first = contracts.strike < spots * np.exp(carry * years)
    return (
        np.where(puts_first, contracts.put, contracts.call),
        np.where(puts_first, contracts.call, contracts.put),
    )
