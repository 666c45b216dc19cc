"""Options on stocks that pay cash dividends: any number of them per option, European or American.

    import gpu_kernels as gk
    from gpu_kernels import cash_dividends

    paid = cash_dividends.CashDividends.per_option([[(0.2, 1.5), (0.7, 1.5)], []])
    result = cash_dividends.price(options, paid)      # result.price, result.error, result.status
    result = cash_dividends.greeks(options, paid)     # the eight Greeks besides

The stock pays its dividends out of the spot (the spot model): log-normal in between, it drops by the amount
at each ex-date. A dividend larger than the spot at that moment is paid as far as the spot goes, and the stock
stays at 0 ("liquidator"), or is not paid at all ("survivor"). A continuous yield may come on top. Values come
from a finite-difference grid (`formulas.cash_dividends`), extrapolated from two resolutions; `error` is the
distance of the extrapolated price from the finer grid: an estimate, mostly too large, and no bound. Ex-dates
at or after expiry, or not after today, are ignored.

Options that carry their dividends, `gk.Options(dividends=...)`, and books of them are valued in another
model, the escrowed one (`engines.escrowed`), which has a closed form for European options. The vol is another
there: that of the spot less its dividends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.dividend_schedules import CashDividends
from gpu_kernels.engines.choose import engine as named_engine
from gpu_kernels.engines.engine import Columns, Engine
from gpu_kernels.errors import InvalidInput
from gpu_kernels.formulas.cash_dividends import (
    LIQUIDATOR,
    SURVIVOR,
    Grid,
    Schedule,
    extrapolated,
    grid_spacing,
    nine_values,
)
from gpu_kernels.formulas.certain_dividends import certain_values
from gpu_kernels.options import Options
from gpu_kernels.results import GreeksResult
from gpu_kernels.status import Status

Floats = NDArray[np.float64]

__all__ = ["CashDividendResult", "CashDividends", "greeks", "price"]

POLICIES = {"liquidator": LIQUIDATOR, "survivor": SURVIVOR}
POINTS = 400
STEPS = 200
LEAST_POINTS, MOST_POINTS = 40, 20_000
# Below this total volatility, relative to the grid's own resolution, the grid shows nothing.
LEAST_TOTAL_VOL = 1e-4


@dataclass(frozen=True, slots=True)
class CashDividendResult:
    """Price of each option, an estimate of its error (no bound), and its status.

    Greeks where they were asked for.
    """

    price: Floats
    error: Floats
    status: NDArray[np.uint8]
    greeks: GreeksResult | None = None
    COLUMNS: ClassVar[tuple[str, ...]] = ("price", "error", "status")


def price(
    options: Options,
    dividends: CashDividends,
    *,
    engine: Engine | str = "cpu",
    policy: Literal["liquidator", "survivor"] = "liquidator",
    points: int = POINTS,
    steps: int = STEPS,
) -> CashDividendResult:
    """Value of each option, in the currency of its spot.

    `points` in log spot, `steps` in time on the finer grid. Where there is no volatility to speak of, the
    value is that of a certain path, and the error what the volatility left out may add.
    """
    grid, columns, american, good, status = _prepared(options, dividends, engine, policy, points, steps)
    value, error = np.full(status.size, np.nan), np.full(status.size, np.nan)
    if good.size:
        here, wrong = extrapolated(grid, columns, american, grid_spacing(columns, grid.schedule, points))
        value[good], error[good] = here.price, wrong
    still = np.flatnonzero(status == Status.NOT_CONVERGED)
    if still.size:
        value[still], error[still] = _certain(options, dividends, POLICIES[policy], still)
        status[still] = Status.OK
    _finish(options, value, error, status)
    shape = options.shape
    return CashDividendResult(value.reshape(shape), error.reshape(shape), status.reshape(shape))


def greeks(
    options: Options,
    dividends: CashDividends,
    *,
    engine: Engine | str = "cpu",
    policy: Literal["liquidator", "survivor"] = "liquidator",
    points: int = POINTS,
    steps: int = STEPS,
) -> CashDividendResult:
    """Value and eight derivatives of each option; ex-dates come nearer as time passes, in theta and charm.

    A row without volatility, or without a spot, is NOT_CONVERGED: its derivatives jump from row to row.
    """
    grid, columns, american, good, status = _prepared(options, dividends, engine, policy, points, steps)
    error = np.full(status.size, np.nan)
    nine = np.full((9, status.size), np.nan)
    if good.size:
        values, error[good] = nine_values(grid, columns, american)
        nine[:, good] = values
    _finish(options, nine[0], error, status)
    shaped = [row.reshape(options.shape) for row in nine]
    status = status.reshape(options.shape)
    return CashDividendResult(shaped[0], error.reshape(options.shape), status, GreeksResult(*shaped, status))  # type: ignore[call-arg]


def _prepared(
    options: Options, dividends: CashDividends, engine: Engine | str, policy: str, points: int, steps: int
) -> tuple[Grid, Columns, Any, Any, Any]:
    if policy not in POLICIES:
        raise InvalidInput("policy", f'expected "liquidator" or "survivor", got {policy!r}')
    if not LEAST_POINTS <= points <= MOST_POINTS or points % 4:
        raise InvalidInput(
            "points", f"expected a multiple of 4 from {LEAST_POINTS} to {MOST_POINTS}, got {points}"
        )
    if not 4 <= steps <= MOST_POINTS:
        raise InvalidInput("steps", f"expected 4 to {MOST_POINTS}, got {steps}")
    if options.dividends is not None:
        raise InvalidInput("options.dividends", "are given; here dividends are an argument of their own")
    if len(dividends) != options.size:
        raise InvalidInput("dividends", f"for {len(dividends)} options, but there are {options.size}")
    backend = named_engine(engine) if isinstance(engine, str) else engine
    solve = backend.module("cash_dividends").solve
    names = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield", "is_call")
    columns = Columns(*(np.ascontiguousarray(options.column(name)) for name in names))
    numbers = np.stack(columns[:6])
    valid = np.isfinite(numbers).all(axis=0) & (numbers[:4] >= 0.0).all(axis=0)
    status = np.where(valid, np.where(columns.expiry > 0.0, Status.OK, Status.EXPIRED), Status.INVALID_INPUT)
    with np.errstate(invalid="ignore"):
        spread = columns.vol * np.sqrt(columns.expiry)
    good = np.flatnonzero(
        (status == Status.OK) & (spread > LEAST_TOTAL_VOL) & (numbers[:2] > 0.0).all(axis=0)
    )
    status[(status == Status.OK) & ~np.isin(np.arange(status.size), good)] = Status.NOT_CONVERGED
    part = Columns(*(column[good] for column in columns))
    grid = Grid(solve, _chosen(dividends, columns.expiry, good), POLICIES[policy], points, steps)
    return grid, part, options.column("american")[good], good, status.astype(np.uint8)


def _certain(
    options: Options, dividends: CashDividends, policy: int, rows: NDArray[np.intp]
) -> tuple[Floats, Floats]:
    """Values of rows whose path is certain, and what a little volatility may add: 0.4·σ√T at the money."""
    names = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield", "is_call")
    part = Columns(*(np.ascontiguousarray(options.column(name)[rows]) for name in names))
    schedule = _chosen(dividends, options.column("expiry"), rows)
    values = certain_values(part, options.column("american")[rows], schedule, policy)
    spread = part.vol * np.sqrt(part.expiry)
    return values, 0.5 * np.minimum(spread, 1.0) * part.spot * np.exp(np.abs(part.rate) * part.expiry)


def _chosen(dividends: CashDividends, expiry: Floats, rows: NDArray[np.intp]) -> Schedule:
    """The dividends of these rows that are paid between today and expiry."""
    return dividends.rows(rows, expiry.size).within(expiry[rows])


def _finish(options: Options, value: Any, error: Any, status: Any) -> None:
    """Expired rows are worth their payoff."""
    done = status == Status.EXPIRED
    if done.any():
        sign = np.where(options.column("is_call")[done], 1.0, -1.0)
        payoff = sign * (options.column("spot")[done] - options.column("strike")[done])
        value[done], error[done] = np.maximum(payoff, 0.0), 0.0
