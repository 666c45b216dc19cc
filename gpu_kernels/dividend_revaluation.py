"""Options with cash dividends, and American ones, under scenarios.

The shocks hit the spot as it stands: dividends paid within the horizon are gone from it, those to come keep
their amounts, and what they are worth follows the shocked rate. European options are priced in full, cell by
cell; American ones through `dividend_tables`, where their dividends are still to come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.dividend_cells import Cells, due_then
from gpu_kernels.dividend_tables import american_values
from gpu_kernels.errors import EngineUnavailable
from gpu_kernels.formulas.cash_dividends import Schedule
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.shocked_options import options_of

if TYPE_CHECKING:
    from gpu_kernels.engines.engine import Engine
    from gpu_kernels.revaluation import PositionKernel, Shocks

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Numbers of dividends × scenarios held at once: 32 MiB.
NUMBERS_AT_ONCE = 1 << 22
# P&L of European rows in each scenario (P, S), from today's values and what dividends are worth at the
# horizon: (P, S), or (P, 1) where rates do not move.
EuropeanPnl = Callable[["Engine", Portfolio, "Shocks", Floats, Floats, Floats], None]


def apart_pnl(
    engine: Engine, american: PositionKernel, portfolio: Portfolio, shocks: Shocks, out: Floats
) -> None:
    """P&L per scenario (P, S) of rows that are American or have dividends."""
    if portfolio.dividends is None:
        american(portfolio, shocks, out)
        return
    plain = np.flatnonzero(~portfolio.paying)
    if plain.size:
        piece = np.empty((plain.size, shocks.scenarios))
        american(portfolio.rows(plain), shocks.of_rows(plain), piece)
        out[plain] = piece
    for rows in _turns(portfolio, np.flatnonzero(portfolio.paying & ~portfolio.american), shocks):
        out[rows] = _european(engine, portfolio.rows(rows), shocks.of_rows(rows))
    for rows in _turns(portfolio, np.flatnonzero(portfolio.paying & portfolio.american), shocks):
        out[rows] = _american(engine, american, portfolio.rows(rows), shocks.of_rows(rows))


def _turns(portfolio: Portfolio, rows: Integers, shocks: Shocks) -> list[Integers]:
    """The rows in parts whose numbers fit in memory."""
    if not rows.size or portfolio.dividends is None:
        return []
    most = int(np.diff(portfolio.dividends.offsets).max(initial=1)) + 4
    step = max(1, NUMBERS_AT_ONCE // (most * max(1, shocks.scenarios)))
    return [rows[start : start + step] for start in range(0, rows.size, step)]


def _european(engine: Engine, book: Portfolio, shocks: Shocks) -> Floats:
    today = engine.price(options_of(book)).price
    time = np.maximum(book.expiry - shocks.elapsed, 0.0)
    due = due_then(_later(book, shocks, time), book, shocks)
    out = np.empty((book.options, shocks.scenarios))
    european_pnl(engine)(engine, book, shocks, today, due, out)
    return out


def european_pnl(engine: Engine) -> EuropeanPnl:
    """The engine's own kernel, or its prices cell by cell where it has none."""
    try:
        own: EuropeanPnl = engine.module("dividend_revaluation").european_pnl
    except EngineUnavailable:
        return _by_prices
    return own


def _by_prices(
    engine: Engine, book: Portfolio, shocks: Shocks, today: Floats, due: Floats, out: Floats
) -> None:
    cells = Cells.of(book, shocks, due)
    value = cells.european(engine, book)
    out[:] = (book.quantity * book.multiplier)[:, None] * (value - today[:, None])


def _american(engine: Engine, american: PositionKernel, book: Portfolio, shocks: Shocks) -> Floats:
    time = np.maximum(book.expiry - shocks.elapsed, 0.0)
    schedule = _later(book, shocks, time)
    still = np.diff(schedule.offsets) > 0
    out = np.empty((book.options, shocks.scenarios))
    size = book.quantity * book.multiplier
    paid = np.flatnonzero(~still)
    if paid.size:
        # All is paid at the horizon: the P&L without dividends, but from today's value with them.
        part = book.rows(paid)
        own = np.empty((paid.size, shocks.scenarios))
        american(part.without_dividends(), shocks.of_rows(paid), own)
        lost = engine.price(options_of(part.without_dividends())).price - engine.price(options_of(part)).price
        out[paid] = own + (size[paid] * lost)[:, None]
    rows = np.flatnonzero(still)
    if rows.size:
        part = book.rows(rows)
        value, today = _table_values(engine, part, shocks.of_rows(rows))
        out[rows] = size[rows, None] * (value - today[:, None])
    return out


def _table_values(engine: Engine, book: Portfolio, shocks: Shocks) -> tuple[Floats, Floats]:
    """American values in each scenario and today, read from the same tables: no move makes no P&L."""
    time = np.maximum(book.expiry - shocks.elapsed, 0.0)
    schedule = _later(book, shocks, time)
    then = Cells.of(book, shocks, due_then(schedule, book, shocks))
    if shocks.elapsed == 0.0:
        both = then.beside(Cells.today(book, schedule))
        value = american_values(engine, book, both, time, schedule)
        return value[:, :-1], value[:, -1]
    now = book.dividends.within(book.expiry) if book.dividends is not None else schedule
    before = american_values(engine, book, Cells.today(book, now), book.expiry, now)
    return american_values(engine, book, then, time, schedule), before[:, 0]


def _later(book: Portfolio, shocks: Shocks, time: Floats) -> Schedule:
    if book.dividends is None:
        raise ValueError("a book without dividends")
    return book.dividends.after(shocks.elapsed).within(time)
