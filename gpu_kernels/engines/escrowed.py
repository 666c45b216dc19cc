"""Options that carry their cash dividends, on any engine: the escrowed model.

The spot is worth its dividends until expiry, discounted at rate less yield, and what is left; what is left is
log-normal. So a European option is one on what is left, by the engine's own formula, and its Greeks follow by
the chain rule: as time passes dividends come nearer, and a higher rate makes them worth less. An American
option is exercised at the whole spot; it is solved on the grid of `formulas.cash_dividends`. Where dividends
are worth more than the spot, they are paid in order as far as it goes: nothing is left, the path is certain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.dividend_schedules import chosen_rows, due, due_slope
from gpu_kernels.engines.columns import Columns
from gpu_kernels.engines.escrowed_search import searched
from gpu_kernels.errors import InvalidInput
from gpu_kernels.formulas import american_implied_vol
from gpu_kernels.formulas.cash_dividends import (
    ESCROWED,
    LIQUIDATOR,
    Grid,
    Schedule,
    extrapolated,
    grid_spacing,
    nine_values,
    no_dividends,
)
from gpu_kernels.formulas.certain_dividends import certain_values
from gpu_kernels.options import FLAG_FIELDS, NUMERIC_FIELDS, Options
from gpu_kernels.results import GreeksResult, ImpliedVolResult, PriceResult
from gpu_kernels.status import Status

if TYPE_CHECKING:
    from gpu_kernels.engines.engine import AmericanMethod, Engine

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

POINTS = 400
STEPS = 200
# Below this total volatility, or with less than this part of the spot or strike left, the path is certain;
# above the second the grid is too wide to say anything.
LEAST_TOTAL_VOL = 1e-4
LEAST_LEFT = 1e-6
MOST_TOTAL_VOL = 8.0

# Numbers too large for a float are no reason for a warning: their row gets its status.
beyond_floats = np.errstate(over="ignore", invalid="ignore")


class Terms(NamedTuple):
    """American rows, their columns full length; `place` is their row in `schedule`."""

    spot: Floats  # the whole spot
    strike: Floats
    expiry: Floats
    vol: Floats
    rate: Floats
    dividend_yield: Floats
    is_call: NDArray[np.bool_]
    place: Rows

    def rows(self, chosen: Rows) -> Terms:
        """Some of the rows."""
        columns: Any = (column[chosen] for column in self)
        return Terms(*columns)


class Left(NamedTuple):
    """Options on what is left of their spots, and the dividends that were taken out."""

    options: Options  # without dividends; rows with some are European here
    schedule: Schedule
    live: Rows  # rows with dividends that count
    nothing_left: NDArray[np.bool_]  # of the live rows
    american: Rows  # the American ones among them

    def terms(self, options: Options) -> Terms:
        """The American rows with dividends."""
        columns = {name: np.asarray(options.column(name))[self.american] for name in Terms._fields[:-1]}
        return Terms(**columns, place=self.american)


def left_of(options: Options) -> Left:
    """Takes the dividends out of the spots."""
    if options.dividends is None:
        raise InvalidInput("dividends", "are missing")
    for name in (*NUMERIC_FIELDS, *FLAG_FIELDS):
        if not isinstance(getattr(options, name), np.ndarray):
            raise InvalidInput(name, "is on a CUDA device; options with dividends are taken from the host")
    expiry, spot = options.column("expiry"), options.column("spot")
    schedule = options.dividends.within(expiry)
    live = np.flatnonzero(np.diff(schedule.offsets))
    plain = options.replace(dividends=None)
    if not live.size:
        return Left(plain, schedule, live, np.zeros(0, np.bool_), live)
    carry = options.column("rate") - options.column("dividend_yield")
    whole = spot[live]
    # A spot that is no number, or negative, stays what it is, and the row gets its status.
    rest = whole - due(schedule, carry)[live]
    nothing = (rest <= 0.0) & (whole >= 0.0)
    moved = np.array(spot)
    moved[live] = np.where(nothing, 0.0, rest)
    flags = np.array(options.column("american"))
    american = live[flags[live]]
    flags[live] = False
    plain = plain.replace(
        spot=moved.reshape(options.shape),
        american=flags.reshape(options.shape) if flags.any() else False,
    )
    return Left(plain, schedule, live, nothing, american)


@beyond_floats
def price(engine: Engine, options: Options, method: AmericanMethod, out: PriceResult) -> PriceResult:
    """Value of each option, in the currency of its spot."""
    left = left_of(options)
    engine.price(left.options, american_method=method, out=out)
    if left.american.size:
        _price_american(engine, left, left.terms(options), out.price.reshape(-1), out.status.reshape(-1))
    return out


@beyond_floats
def greeks(engine: Engine, options: Options, method: AmericanMethod, out: GreeksResult) -> GreeksResult:
    """Value and eight derivatives; ex-dates come nearer as time passes, in theta and charm."""
    left = left_of(options)
    engine.greeks(left.options, american_method=method, out=out)
    if not left.live.size:
        return out
    flat = GreeksResult(*(column.reshape(-1) for column in out.columns()))
    stopped = _greeks_american(engine, left, options, flat)
    _chain(left, options, flat, stopped)
    return out


@beyond_floats
def implied_vol(
    engine: Engine, options: Options, prices: Any, method: AmericanMethod, out: ImpliedVolResult
) -> ImpliedVolResult:
    """Vol of what is left of each spot at which the option is worth its price."""
    left = left_of(options)
    given = prices if prices.size == 1 else prices.reshape(options.shape)
    engine.implied_vol(left.options, given, american_method=method, out=out)
    if not left.american.size:
        return out
    rows = left.american
    found = ImpliedVolResult(np.empty(rows.size), np.empty(rows.size, np.uint8))
    wanted = np.broadcast_to(prices.reshape(-1), (options.size,))[rows]

    def priced(part: Any, _: str, got: PriceResult) -> None:
        few = part._replace(place=np.arange(part.place.size))
        lines = chosen_rows(left.schedule, part.place)
        american_prices(engine, few, lines, got.price, got.status)

    terms = left.terms(options)
    # The European vol is above the American one, and close to it out of the money.
    guess = np.asarray(out.vol).reshape(-1)[rows]
    hints = _searched(engine, left, terms, wanted, guess)
    american_implied_vol.implied_vol(terms, wanted, method, found, priced, hints)
    out.vol.reshape(-1)[rows], out.status.reshape(-1)[rows] = found.vol, found.status
    return out


def _searched(engine: Engine, left: Left, terms: Terms, wanted: Floats, guess: Floats) -> Floats:
    lines = chosen_rows(left.schedule, left.american)
    rest = np.asarray(left.options.column("spot"))[left.american]

    def value(rows: Rows, vol: Floats) -> Floats:
        got, status = np.empty(rows.size), np.empty(rows.size, np.uint8)
        american_prices(engine, terms.rows(rows)._replace(vol=vol), chosen_rows(lines, rows), got, status)
        return got

    return searched(Columns(rest, *terms[1:-1]), wanted, guess, value)


def american_prices(
    engine: Engine, terms: Terms, schedule: Schedule, value: Floats, status: NDArray[np.uint8]
) -> None:
    """Writes value and status of American options, row by row of the schedule."""
    carry = terms.rate - terms.dividend_yield
    rest = terms.spot - due(schedule, carry)
    european = engine.price(
        Options(
            spot=np.where((rest <= 0.0) & (terms.spot >= 0.0), 0.0, rest),
            **{name: getattr(terms, name) for name in Terms._fields[1:-1]},
        )
    )
    value[:], status[:] = european.price, european.status
    _early(engine, terms, schedule, rest, value, status)


def _price_american(
    engine: Engine, left: Left, terms: Terms, value: Floats, status: NDArray[np.uint8]
) -> None:
    rows = left.american
    schedule = chosen_rows(left.schedule, rows)
    rest = np.asarray(left.options.column("spot"))[rows]
    own, marks = value[rows], status[rows]
    _early(engine, terms, schedule, rest, own, marks)
    value[rows], status[rows] = own, marks


def _early(
    engine: Engine,
    terms: Terms,
    schedule: Schedule,
    rest: Floats,
    value: Floats,
    status: NDArray[np.uint8],
) -> None:
    """European values become American ones, in the rows that have a value."""
    good = status == Status.OK
    certain, wild = _kinds(terms, rest)
    sure = np.flatnonzero(good & certain)
    if sure.size:
        part = terms.rows(sure)
        value[sure] = np.maximum(value[sure], _certain(part, chosen_rows(schedule, sure)))
    lost = good & wild & ~certain
    value[lost], status[lost] = np.nan, Status.NOT_CONVERGED
    rows = np.flatnonzero(good & ~wild & ~certain)
    if rows.size:
        grid, columns = _grid(engine, terms, schedule, rest, rows)
        here, _ = extrapolated(grid, columns, _all(rows), _spacing(columns))
        value[rows] = np.maximum(value[rows], here.price)


def _greeks_american(engine: Engine, left: Left, options: Options, out: GreeksResult) -> NDArray[np.bool_]:
    """Overwrites the American rows by derivatives in what is left; whether each row is exercised at once."""
    stopped = np.zeros(out.status.size, np.bool_)
    if not left.american.size:
        return stopped
    terms, schedule = left.terms(options), chosen_rows(left.schedule, left.american)
    rest = np.asarray(left.options.column("spot"))[left.american]
    good = out.status[left.american] == Status.OK
    certain, wild = _kinds(terms, rest)
    # Derivatives of a certain path jump from row to row.
    lost = left.american[good & (certain | wild)]
    for column in out.columns()[:-1]:
        column[lost] = np.nan
    out.status[lost] = Status.NOT_CONVERGED
    rows = np.flatnonzero(good & ~certain & ~wild)
    if rows.size:
        grid, columns = _grid(engine, terms, schedule, rest, rows)
        nine, _ = nine_values(grid, columns, _all(rows))
        at = left.american[rows]
        nine = (np.maximum(nine[0], out.price[at]), *nine[1:])
        for target, source in zip(out.columns()[:-1], nine, strict=True):
            target[at] = source
        payoff = np.where(terms.is_call, 1.0, -1.0)[rows] * (terms.spot - terms.strike)[rows]
        stopped[at] = (nine[0] <= payoff + 1e-9 * terms.spot[rows]) & (payoff > 0.0)
    return stopped


def _chain(left: Left, options: Options, out: GreeksResult, stopped: NDArray[np.bool_]) -> None:
    """From derivatives in what is left to derivatives in the spot, the rate and the time."""
    rows = left.live
    carry = np.asarray(options.column("rate") - options.column("dividend_yield"))
    worth, slope = due(left.schedule, carry)[rows], due_slope(left.schedule, carry)[rows]
    flat = rows[left.nothing_left & (out.status[rows] == Status.OK)]
    for column in (out.delta, out.gamma, out.vanna, out.charm):
        column[flat] = 0.0
    # Dividends come nearer: what is left falls by their carry, whatever the spot does.
    falls = np.where(stopped[rows], 0.0, carry[rows] * worth)
    out.theta[rows] -= out.delta[rows] * falls
    out.charm[rows] -= out.gamma[rows] * falls
    out.rho[rows] += out.delta[rows] * slope


def _kinds(terms: Terms, rest: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows whose path is as good as certain, and rows that are beyond the grid."""
    with np.errstate(invalid="ignore"):
        spread = terms.vol * np.sqrt(terms.expiry)
        certain = (spread <= LEAST_TOTAL_VOL) | (rest <= LEAST_LEFT * terms.spot)
        certain |= terms.strike <= LEAST_LEFT * rest
        return certain, spread > MOST_TOTAL_VOL


def _grid(engine: Engine, terms: Terms, schedule: Schedule, rest: Floats, rows: Rows) -> tuple[Grid, Any]:
    columns = Columns(rest[rows], *(column[rows] for column in terms[1:-1]))
    solve = engine.module("cash_dividends").solve
    return Grid(solve, chosen_rows(schedule, rows), ESCROWED, POINTS, STEPS), columns


def _spacing(columns: Any) -> Floats:
    return grid_spacing(columns, no_dividends(columns.spot.size), POINTS)


def _all(rows: Rows) -> NDArray[np.bool_]:
    return np.ones(rows.size, np.bool_)


def _certain(terms: Terms, schedule: Schedule) -> Floats:
    """Along the certain path the escrowed model and the spot model are the same."""
    return certain_values(terms, _all(terms.place), schedule, LIQUIDATOR)  # type: ignore[arg-type]
