"""What to trade against a book's risk: the request's instruments at the snapshot, sized by gpu_kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.hedging import (
    Exposures,
    Hedge,
    delta_hedge,
    exposures,
    whalley_wilmott_band,
)
from gpu_kernels.optimise.greek_hedge import greek_hedge
from gpu_kernels.optimise.min_es_hedge import min_es_hedge
from risk_service.on_demand.blocks import Revaluer
from risk_service.on_demand.books import ValuedBook
from risk_service.on_demand.patient_engine import PatientEngine
from service_kit.errors import InvalidRequest

Floats = NDArray[np.float64]

# What makes Greeks comparable: what each loses in a move of this size.
SPOT_MOVE = 0.01  # of the spot
VOL_MOVE = 0.01  # absolute

# Beyond these, numbers of lots and their costs are none that a float64 counts exactly.
LOT_MIN, LOT_MAX = 1e-6, 1e12  # units
COST_MAX = 1e12  # currency per lot


@dataclass(frozen=True, slots=True)
class Instruments:
    """What may be traded; one entry per instrument, in the order of the request."""

    book: ValuedBook  # quantities are the largest positions either way
    lot_size: Floats
    cost_per_lot: Floats
    cost_rate: Floats  # of the traded value; for a delta hedge
    budget: float  # currency; infinite where there is none

    def check(self) -> None:
        """Refuses what no hedge can be made of, by row."""
        quantity, lot, cost = self.book.held.quantity, self.lot_size, self.cost_per_lot
        _refuse("instruments.quantity", quantity <= 0.0, "must be above 0: it is the largest position")
        _refuse("lot_size", ~((lot >= LOT_MIN) & (lot <= LOT_MAX)), f"must be {LOT_MIN:g} to {LOT_MAX:g}")
        _refuse("cost_per_lot", ~((cost >= 0.0) & (cost <= COST_MAX)), f"must be 0 to {COST_MAX:g}")
        rate = self.cost_rate
        _refuse("cost_rate", ~((rate >= 0.0) & (rate <= 1.0)), "must be 0 to 1")

    def one_linear_each(self) -> bool:
        """Whether they are spots and futures alone, no two in one underlying."""
        held = self.book.held
        return not held.is_option.any() and len(set(held.underlying_index.tolist())) == len(held)

    @property
    def limit(self) -> Floats:
        """Largest position, in units of the instrument."""
        return self.book.held.quantity

    @property
    def unit_deltas(self) -> Floats:
        """Delta of one unit of each spot or future, in the order of the request."""
        linear = self.book.portfolio.linear
        deltas = np.concatenate(
            (np.zeros(self.book.portfolio.options), linear.multiplier * self.book.portfolio.carry)
        )
        return self.book.by_position(deltas)

    @property
    def units(self) -> gk.Portfolio:
        """One unit of each instrument, in the order of the valuation: options, then linear."""
        valuation = self.book.valuation
        portfolio = valuation.portfolio
        return gk.Portfolio(
            options=valuation.options,
            quantity=np.ones(portfolio.options),
            multiplier=portfolio.multiplier,
            underlying=portfolio.underlying,
            linear=replace(portfolio.linear, quantity=np.ones(len(portfolio.linear)), group=None),
        )

    def greeks(self, engine: gk.Engine) -> Floats:
        """Delta, gamma and vega (3, N) of one unit of each instrument, in the order of the request."""
        valuation, portfolio = self.book.valuation, self.book.portfolio
        result = engine.greeks(valuation.options)
        valued = np.zeros((3, len(portfolio)))
        for row, column in enumerate((result.delta, result.gamma, result.vega)):
            valued[row, : portfolio.options] = column * portfolio.multiplier
        valued[0, portfolio.options :] = portfolio.linear.multiplier * portfolio.carry
        return np.asarray(self.book.by_position(valued.T).T)


def _refuse(field: str, bad: NDArray[np.bool_], why: str) -> None:
    rows = np.flatnonzero(bad)
    if rows.size:
        raise InvalidRequest(field, why, int(rows[0]))


def hedge_delta(
    engine: PatientEngine, book: ValuedBook, instruments: Instruments, risk_aversion: float
) -> tuple[Hedge, Floats]:
    """Trades that bring the delta of each underlying as near to nought as lots, limits and the band allow.

    The band is per instrument and in its units; a `risk_aversion` of 0 asks for none.
    """
    held = instruments.book.held
    simple = instruments.one_linear_each()
    if not simple or math.isfinite(instruments.budget):
        if risk_aversion or instruments.cost_rate.any():
            field = "risk_aversion" if risk_aversion else "cost_rate"
            raise InvalidRequest(field, "needs one spot or future per underlying, and no budget")
        return _hedge_greeks(engine, book, instruments, ("delta",)), np.zeros(len(held))
    count = len(book.held.underlyings)
    at, unit = book_exposures(engine, book), instruments.unit_deltas
    lot, cost, rate, limit = np.ones(count), np.zeros(count), np.zeros(count), np.zeros(count)
    # Of an underlying: lots and limits in its own units, as a future's multiplier and carry make them.
    lot[held.underlying_index] = instruments.lot_size * unit
    cost[held.underlying_index] = instruments.cost_per_lot
    rate[held.underlying_index] = instruments.cost_rate
    limit[held.underlying_index] = instruments.limit * unit
    spots = np.nan_to_num(book.valuation.spots)
    band = np.zeros(count)
    if risk_aversion:
        band = whalley_wilmott_band(at.gamma, spot=spots, cost_rate=rate, risk_aversion=risk_aversion)
    whole = delta_hedge(
        at.delta,
        spot=spots,
        lot_size=lot,
        cost_per_lot=cost,
        cost_rate=rate,
        band=band,
        limit=limit,
    )
    hedge = Hedge(
        trades=whole.trades[held.underlying_index] / unit,
        lots=whole.lots[held.underlying_index],
        costs=whole.costs[held.underlying_index],
        risk_before=whole.risk_before,
        risk_after=whole.risk_after,
        measure=whole.measure,
    )
    return hedge, band[held.underlying_index] / unit


def gain_per_return(engine: gk.Engine, book: ValuedBook) -> Floats:
    """What the book gains per unit of each underlying's return: delta times spot."""
    return np.asarray(book_exposures(engine, book).delta * np.nan_to_num(book.valuation.spots))


def hedge_greeks(engine: PatientEngine, book: ValuedBook, instruments: Instruments) -> Hedge:
    """Trades that make delta, gamma and vega of every underlying small together."""
    return _hedge_greeks(engine, book, instruments, ("delta", "gamma", "vega"))


def hedge_tail(
    revaluer: Revaluer,
    book: ValuedBook,
    instruments: Instruments,
    scenarios: gk.Scenarios,
    level: float,
    pnl: Floats | None = None,
) -> Hedge:
    """Trades that make expected shortfall plus their cost least."""
    vector = revaluer.pnl(book.portfolio, scenarios) if pnl is None else pnl
    units = revaluer.pnl_by_position(instruments.units, scenarios)
    revaluer.patience.check()
    return min_es_hedge(
        vector,
        instruments.book.by_position(units),
        limit=instruments.limit,
        level=level,
        lot_size=instruments.lot_size,
        cost_per_lot=instruments.cost_per_lot,
        budget=instruments.budget,
        weights=scenarios.weights,
        check=revaluer.patience.check,
    )


def _hedge_greeks(
    engine: PatientEngine, book: ValuedBook, instruments: Instruments, names: tuple[str, ...]
) -> Hedge:
    """Least squares over the Greeks of every underlying, each scaled to what it loses in a usual move."""
    count = len(book.held.underlyings)
    at = book_exposures(engine, book)
    units = instruments.greeks(engine)
    place = instruments.book.held.underlying_index
    spots = np.nan_to_num(book.valuation.spots)
    exposure, matrix, scale = [], [], []
    for row, name in enumerate(("delta", "gamma", "vega")):
        if name not in names:
            continue
        spread = np.zeros((count, len(place)))
        spread[place, np.arange(len(place))] = units[row]
        matrix.append(spread)
        exposure.append(_exposure(at, name))
        scale.append(_scale(name, spots))
    hedge = greek_hedge(
        np.concatenate(exposure),
        np.concatenate(matrix),
        scale=np.concatenate(scale),
        lot_size=instruments.lot_size,
        limit=instruments.limit,
        cost_per_lot=instruments.cost_per_lot,
        budget=instruments.budget,
        check=engine.patience.check,
    )
    measure = f"root of the summed squares of {', '.join(names)} in a 1 % move of spot and of one vol point"
    return Hedge(hedge.trades, hedge.lots, hedge.costs, hedge.risk_before, hedge.risk_after, measure)


def _exposure(at: Exposures, name: str) -> Floats:
    greek: Floats = getattr(at, name)
    return greek


def _scale(name: str, spots: Floats) -> Floats:
    move = SPOT_MOVE * spots
    if name == "delta":
        return move
    return 0.5 * np.square(move) if name == "gamma" else np.full(len(spots), VOL_MOVE)


def book_exposures(engine: gk.Engine, book: ValuedBook) -> Exposures:
    """Exposures per underlying of the book, those that it holds nothing of included."""
    at, count = exposures(engine, book.portfolio), len(book.held.underlyings)
    none = np.zeros(count - len(at.delta))
    return Exposures(*(np.concatenate((one, none)) for one in (at.delta, at.gamma, at.vega, at.spot)))
