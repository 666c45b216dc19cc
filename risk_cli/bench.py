"""`risk bench`: what an engine does in a second on this machine, its answers checked; some seconds long."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from risk_cli.answers import Form, plain_table, show
from risk_cli.engine_choice import chosen_engine
from risk_cli.progress_bar import progress_bar
from risk_cli.refusals import DONE, BadInput, CannotDo

Floats = NDArray[np.float64]

ROUNDS_MIN, ROUNDS_MAX = 3, 50
SECONDS_OF_A_CASE = 0.6
CHECKED = 64  # rows of each answer that the reference engine works out as well
# The reference is as exact; this only tells a broken engine from a sound one.
TOLERANCE = 1e-6
SEED = 1


@dataclass(frozen=True, slots=True)
class Case:
    """Something to time: `run` answers `count` times what the unit says."""

    name: str
    unit: str
    count: int
    run: Callable[[], Any]
    check: Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Result:
    """Seconds of each round."""

    case: Case
    seconds: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Units per second, by the median round."""
        return self.case.count / statistics.median(self.seconds)


def run_bench(engine_name: str, options: int, form: Callable[[], Form]) -> int:
    """Times each case; the exit status."""
    shape = form()
    if not 1 <= options <= 10_000_000:
        raise BadInput(f"--options: must be from 1 to 10,000,000, not {options:,}")
    engine = chosen_engine(engine_name)
    cases = _cases(engine, options)
    results: list[Result] = []
    with progress_bar("timing") as progress:
        advance = progress(len(cases))
        for case in cases:
            results.append(_timed(case))
            advance(1)
    rows = [_row(engine, one) for one in results]
    cells = [
        [one.case.name, f"{one.case.count:,}", _rate(one.rate), one.case.unit, _spread(one)]
        for one in results
    ]
    title = f"engine {engine.name}, {engine.device}"
    table = plain_table(title, ("what", "at once", "per second", "of", "least to most"), cells)
    show(shape, "bench", [table], {"engine": engine.name, "device": engine.device, "results": rows}, rows)
    return DONE


def _cases(engine: gk.Engine, count: int) -> list[Case]:
    rng = np.random.default_rng(SEED)
    chain = _chain(rng, count, american=False)
    few = _chain(rng, max(1, count // 100), american=True)
    true = gk.engine("reference")
    priced = engine.price(chain).price
    book, scenarios = _desk(rng, max(1, count // 100))
    small_book, small = _desk(np.random.default_rng(SEED), CHECKED)[0], scenarios.select(range(16))
    return [
        Case("price, European", "options", count, lambda: engine.price(chain).price,
             lambda found: _same("price", found[:CHECKED], true.price(_part(chain)).price)),
        Case("price and eight Greeks", "options", count, lambda: engine.greeks(chain).gamma,
             lambda found: _same("gamma", found[:CHECKED], true.greeks(_part(chain)).gamma)),
        Case("implied vol", "options", count, lambda: engine.implied_vol(chain, priced).vol,
             lambda found: _same("vol", engine.price(_with_vol(chain, found)).price, np.asarray(priced))),
        Case("price, American, accurate", "options", len(np.asarray(few.spot)),
             lambda: engine.price(few).price, lambda found: _not_below_intrinsic(few, found)),
        Case(f"full revaluation, {len(scenarios):,} scenarios", "revaluations", len(book) * len(scenarios),
             lambda: engine.revalue(book, scenarios),
             lambda _: _same("P&L", engine.revalue(small_book, small), true.revalue(small_book, small))),
    ]  # fmt: skip


def _chain(rng: np.random.Generator, count: int, *, american: bool) -> gk.Options:
    return gk.Options(
        spot=rng.uniform(80.0, 120.0, count),
        strike=np.full(count, 100.0),
        expiry=rng.uniform(0.1, 2.0, count),
        vol=rng.uniform(0.15, 0.6, count),
        rate=np.full(count, 0.03),
        dividend_yield=np.full(count, 0.01),
        is_call=rng.random(count) < 0.5,
        american=np.full(count, american),
    )


def _desk(rng: np.random.Generator, count: int) -> tuple[gk.Portfolio, gk.Scenarios]:
    """A book in four underlyings, and 500 moves of them."""
    book = gk.Portfolio(
        options=_chain(rng, count, american=False),
        quantity=rng.integers(-50, 50, count).astype(float),
        multiplier=100.0,
        underlying=rng.integers(0, 4, count),
    )
    moves = np.random.default_rng(SEED + 1).normal(0.0, 0.02, (500, 4))
    return book, gk.Scenarios(spot_return=moves, vol_change=-0.5 * moves)


def _part(options: gk.Options) -> gk.Options:
    return _changed(options, lambda column: column[:CHECKED])


def _with_vol(options: gk.Options, vol: Floats) -> gk.Options:
    return gk.Options(**{**_columns(options), "vol": np.asarray(vol)})


def _changed(options: gk.Options, change: Callable[[Any], Any]) -> gk.Options:
    return gk.Options(**{name: change(column) for name, column in _columns(options).items()})


def _columns(options: gk.Options) -> dict[str, Any]:
    names = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield", "is_call", "american")
    return {name: np.asarray(getattr(options, name)) for name in names}


def _same(what: str, found: Any, wanted: Any) -> None:
    """An engine that answers wrongly has no speed."""
    one, other = np.asarray(found), np.asarray(wanted)
    scale = max(1.0, float(np.abs(other).max(initial=0.0)))
    worst = float(np.abs(one - other).max(initial=0.0)) / scale
    if not worst <= TOLERANCE:
        raise CannotDo(f"the engine's {what} is wrong: off by {worst:.3g} of {scale:.3g}")


def _not_below_intrinsic(options: gk.Options, found: Any) -> None:
    columns = _columns(options)
    sign = np.where(columns["is_call"], 1.0, -1.0)
    intrinsic = np.maximum(0.0, sign * (columns["spot"] - columns["strike"]))
    if not (np.asarray(found) >= intrinsic - TOLERANCE).all():
        raise CannotDo("the engine's American price is below what exercise gives")


def _timed(case: Case) -> Result:
    case.check(case.run())  # compiles or loads what must be, too
    seconds: list[float] = []
    while len(seconds) < ROUNDS_MIN or (sum(seconds) < SECONDS_OF_A_CASE and len(seconds) < ROUNDS_MAX):
        start = time.perf_counter()
        case.run()
        seconds.append(time.perf_counter() - start)
    return Result(case, tuple(seconds))


def _row(engine: gk.Engine, result: Result) -> dict[str, Any]:
    return {
        "what": result.case.name,
        "engine": engine.name,
        "device": engine.device,
        "unit": result.case.unit,
        "count": result.case.count,
        "per_second": result.rate,
        "median_seconds": statistics.median(result.seconds),
        "least_seconds": min(result.seconds),
        "most_seconds": max(result.seconds),
        "rounds": len(result.seconds),
    }


def _rate(rate: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rate >= size:
            return f"{rate / size:.3g} {letter}"
    return f"{rate:.3g}"


def _spread(result: Result) -> str:
    rates: Sequence[float] = [result.case.count / one for one in result.seconds]
    return f"{_rate(min(rates))} to {_rate(max(rates))}"
