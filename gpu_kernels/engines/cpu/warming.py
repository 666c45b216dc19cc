"""Compiles every kernel, or loads it from the disk cache.

numba compiles one function at a time and holds the interpreter while it does. So with a cold cache each part
is compiled by a process of its own, side by side, into the disk cache, from which this process loads it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpu_kernels.american_book import AmericanBook
from gpu_kernels.analytics import series_figures
from gpu_kernels.dividend_schedules import CashDividends
from gpu_kernels.engines.choose import engine
from gpu_kernels.engines.cpu import american, american_rows
from gpu_kernels.engines.cpu.american_solver import LANES
from gpu_kernels.engines.cpu.compile import is_cached
from gpu_kernels.engines.engine import Columns
from gpu_kernels.formulas.american_tables import GREEK_RULE, SCHEMES
from gpu_kernels.options import Options
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.premium_sums import Holdings, PremiumSums
from gpu_kernels.premium_tables import PremiumTable, build_premium_table
from gpu_kernels.revaluation import position_pnl
from gpu_kernels.scenarios import Scenarios
from gpu_kernels.shared_book import (
    ScenarioTable,
    SharedInputs,
    SharedPoints,
    SharedRows,
    cell_pnl,
    cell_points,
)

_PACKAGE_ROOT = Path(__file__).parents[3]


def _option(american: bool) -> Options:
    return Options(spot=100.0, strike=100.0, expiry=1.0, vol=0.2, rate=0.03, is_call=False, american=american)


def _book(american: bool) -> Portfolio:
    return Portfolio(options=_option(american), quantity=[1.0], underlying=[0])


def _european() -> None:
    cpu = engine("cpu")
    cpu.price(_option(False))
    cpu.greeks(_option(False))
    cpu.implied_vol(_option(False), 10.0)


def _revaluation() -> None:
    cpu = engine("cpu")
    moves = np.array([[-0.01], [0.01]])
    cpu.revalue(_book(False), Scenarios(spot_return=moves))
    cpu.revalue(_book(False), Scenarios(spot_return=moves, vol_change=moves, rate_change=0.01))
    position_pnl(cpu, _book(False), Scenarios(spot_return=moves))


def _shared_books() -> None:
    cpu, one = engine("cpu"), np.ones(1)
    edges, first = np.array([0, 1]), np.zeros(1, np.int64)
    holder = np.zeros(1, np.int32)
    rows = SharedRows(edges, edges, first, 100.0 * one, one, edges, holder, one, one)
    moves = np.array([[-0.01], [0.01]])
    now = SharedInputs(first, 100.0 * one, 0.03 * one, 0.01 * one, one, 0.2 * one, one)
    cell_pnl(cpu)(rows, ScenarioTable.of(Scenarios(spot_return=moves)), now, np.empty((1, 2)))
    points = SharedPoints(first, 100.0 * one, edges, edges, holder, one, one, one, one, one)
    cell_points(cpu)(rows, points, np.ones((1, 9)), np.empty((1, 10)))


def _premium_sums() -> None:
    one, first = np.ones(1), np.array([0, 1])
    nothing = np.zeros((1, 1, 1), np.float32)
    table = PremiumTable(
        spot=100.0,
        vol=0.2 * one,
        rate=0.0,
        dividend_yield=0.0,
        spot_range=0.01,
        vol_range=0.02 * one,
        nodes=np.zeros(1),
        in_scenarios=nothing,
        by_vol=np.repeat(nothing, 3, axis=0),
        today=np.zeros((1, 3, 1, 9)),
        error=0.0,
    )
    sums = PremiumSums(engine("cpu"), table, Holdings(first, np.zeros(1, np.int32), one, one), 1)
    sums.take(0.2 * one)
    sums.add(100.0, np.zeros(1, np.int64), np.zeros((1, 10)), np.zeros((1, 1)))


def _american_values() -> None:
    """The kernels that read solved boundaries, given ones of zeros: compiled beside the solver's own."""
    size, rows = 1, Columns(*(np.full(1, value) for value in (100.0, 100.0, 1.0, 0.2, 0.03, 0.0, False)))
    premium = SCHEMES["accurate"].premium
    state = np.zeros((1, american_rows.STATE + premium, LANES))
    status = np.zeros(size, np.uint8)
    rule = american._premium((premium, 1))
    american_rows.move_spots(tuple(rows), state.copy())
    american_rows.price_rows(tuple(rows), state, rule, np.zeros(size), status)
    rule = american._premium(GREEK_RULE)
    state = np.zeros((1, american_rows.STATE + GREEK_RULE[0], LANES))
    american_rows.slopes_rows(tuple(rows), state, rule, np.zeros((9, size)))


def _american_boundaries() -> None:
    cpu = engine("cpu")
    moves = np.array([[-0.01], [0.01]])
    cpu.revalue(_book(True), Scenarios(spot_return=moves))
    cpu.price(_option(True))
    cpu.greeks(_option(True))
    cpu.revalue(_book(True), Scenarios(spot_return=moves, vol_change=moves, elapsed=0.01))


def _american_implied_vol() -> None:
    engine("cpu").implied_vol(_option(True), 8.0)


def _american_interpolants() -> None:
    scenarios = _many_moves()
    book = AmericanBook(engine("cpu"), _book(True), scenarios)
    book.revalue(scenarios)
    book.premium_pnl(scenarios)


def _american() -> None:
    # One after the other: the interpolants are made with the kernels before them.
    _american_boundaries()
    _american_interpolants()


def _american_moves() -> None:
    engine("cpu").revalue(_book(True), _many_moves())


def _many_moves() -> Scenarios:
    # Fewer are not worth interpolating between.
    moves = np.linspace(-0.02, 0.02, 64)[:, None]
    return Scenarios(spot_return=moves, vol_change=moves)


def _analytics() -> None:
    series_figures(engine("cpu"), [[1.0]], [[1.0]], bars_per_year=1.0)


def _dividends() -> None:
    cpu, paid = engine("cpu"), CashDividends.same([(0.5, 1.0)], 1)
    moves = Scenarios(spot_return=np.array([[-0.01], [0.01]]))
    for early in (False, True):
        cpu.revalue(Portfolio(options=_option(early).replace(dividends=paid), quantity=[1.0]), moves)
    build_premium_table(cpu, _option(True).replace(dividends=paid), moves)


def _american_fast() -> None:
    engine("cpu").price(_option(True), american_method="fast")
    engine("cpu").implied_vol(_option(True), 8.0, american_method="fast")


# What a service needs before it can answer; this process compiles the first, which takes longest.
FIRST: dict[str, Callable[[], None]] = {
    "american": _american,
    "european": _european,
    "revaluation": _revaluation,
    "shared_books": _shared_books,
    "premium_sums": _premium_sums,
    "american_values": _american_values,
    "american_implied_vol": _american_implied_vol,
    # A live book needs them where interpolants are not good enough.
    "american_moves": _american_moves,
}
# What is asked for now and then. Of the kernels above it needs only those that are compiled by then.
LATER: dict[str, Callable[[], None]] = {
    "american_fast": _american_fast,
    "analytics": _analytics,
    "dividends": _dividends,
}
# Who compiles beside this process makes way for it, and most of all who compiles what nobody waits for.
_NICE_FIRST, _NICE_LATER = 5, 10
# Kept, since a process ends when nobody holds its stdin any more.
_background: list[subprocess.Popen[bytes]] = []


def warm_up() -> None:
    """What a service needs; the rest is compiled in the background, as long as this process lives."""
    warm_up_first()
    for name, run in LATER.items():
        if _is_cached(name):
            run()
        else:
            _background.append(_compile_beside(name))


def warm_up_first() -> None:
    """What a service needs before it can answer."""
    longest, *others = FIRST
    helpers = [_compile_beside(name) for name in others if not _is_cached(name)]
    FIRST[longest]()
    for helper in helpers:
        helper.wait()
    for name in others:
        FIRST[name]()


def warm_up_all() -> None:
    """Every kernel of this engine."""
    warm_up_first()
    helpers = [_compile_beside(name) for name in LATER if not _is_cached(name)]
    for helper in helpers:
        helper.wait()
    for run in LATER.values():
        run()


def compile_part(name: str) -> None:
    """One part, in a process that ends when whoever started it does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(_NICE_FIRST if name in FIRST else _NICE_LATER)
    (FIRST | LATER)[name]()


def _is_cached(part: str) -> bool:
    return is_cached(_kernel_of(part))


def _kernel_of(part: str) -> Any:
    """The kernel of a part that takes longest to compile, and so is cached last."""
    from gpu_kernels.engines.cpu import (
        american_implied_vol,
        american_moves,
        analytics,
        dividend_premiums,
        implied_vol,
        premium_sums,
        revaluation,
        shared_book,
    )

    return {
        "european": implied_vol.implied_vol_rows,
        "revaluation": revaluation._write_rows,
        "shared_books": shared_book.write_points,
        "premium_sums": premium_sums.add_premiums,
        "american_values": american_rows.slopes_rows,
        "american_implied_vol": american_implied_vol.accurate_vols,
        "american_fast": american_rows.fast_boundaries,
        "american_moves": american_moves._under_moves,
        "analytics": analytics.write_figures,
        "dividends": dividend_premiums.read_rows,
    }[part]


def _compile_beside(part: str) -> subprocess.Popen[bytes]:
    order = f"from gpu_kernels.engines.cpu.warming import compile_part; compile_part({part!r})"
    path = os.pathsep.join(filter(None, (str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", ""))))
    # Its stdin stays open as long as this process lives. A part that fails is compiled when it is needed.
    return subprocess.Popen(
        [sys.executable, "-c", order],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": path},
    )


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)
