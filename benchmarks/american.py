"""American options beside QuantLib's three fixed-point schemes: the whole curve of error and speed.

python -m benchmarks.american
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import QuantLib as ql

import gpu_kernels as gk
from benchmarks import measure
from gpu_kernels.cash_dividends import CashDividends
from gpu_kernels.cash_dividends import price as price_with_dividends
from gpu_kernels.engines.cpu import american as backend
from gpu_kernels.engines.cpu.american_rows import STATE, boundary_kernel, price_rows
from gpu_kernels.engines.cpu.american_solver import LANES, compiled
from gpu_kernels.engines.cpu.threads import workers
from gpu_kernels.engines.engine import Columns
from gpu_kernels.formulas.american_tables import SCHEMES, Scheme, angles
from gpu_kernels.results import PriceResult
from tests.gpu_kernels.american_cases import options_of, table
from tests.reference_tables.american.generate import DAYS, TODAY

TILES = 32  # copies of the table of 600 in one call of ours
CALLS = 500  # of one row each
CURVE = {
    "6 nodes": Scheme(nodes=6, angles=5, steps=2, premium=10),
    "fast": SCHEMES["fast"],
    "12 nodes": Scheme(nodes=12, angles=10, steps=3, premium=24),
    "accurate": SCHEMES["accurate"],
    "24 nodes": Scheme(nodes=24, angles=16, steps=4, premium=48),
}
QUANTLIB = {
    "fast": (ql.QdFpAmericanEngine.fastScheme, 600),
    "accurate": (ql.QdFpAmericanEngine.accurateScheme, 200),
    "high precision": (ql.QdFpAmericanEngine.highPrecisionScheme, 12),
}


def ours(scheme: Scheme, columns: Columns, out: PriceResult) -> Callable[[], None]:
    """A call that prices all rows with any scheme, as the engine does with its own two."""
    solve = compiled(boundary_kernel(scheme, few_rows=0))
    premium = (scheme.premium, 1)
    rule = angles(*premium)
    tables = backend.tables(scheme, premium)

    def work(start: int, stop: int) -> None:
        part = tuple(columns.slice(start, stop))
        state = np.empty(((stop - start + LANES - 1) // LANES, STATE + scheme.premium, LANES))
        solve(part, tables, scheme.steps, state)
        legs = (rule.cosine, rule.inv_cosine, rule.weight)
        price_rows(part, state, legs, out.price[start:stop], out.status[start:stop])

    return lambda: workers().run(out.status.size, work, backend.BLOCK_ROWS)


def theirs(name: str, rows: dict[str, Any]) -> tuple[Callable[[], list[float]], int]:
    """A call that prices the first rows of the table with QuantLib, all its objects made beforehand."""
    make, count = QUANTLIB[name]
    ql.Settings.instance().evaluationDate = TODAY
    options = []
    for i in range(count):
        spot, vol, rate, paid = (float(rows[f][i]) for f in ("spot", "vol", "rate", "dividend_yield"))
        process = ql.BlackScholesMertonProcess(
            ql.QuoteHandle(ql.SimpleQuote(spot)),
            ql.YieldTermStructureHandle(ql.FlatForward(TODAY, paid, DAYS)),
            ql.YieldTermStructureHandle(ql.FlatForward(TODAY, rate, DAYS)),
            ql.BlackVolTermStructureHandle(ql.BlackConstantVol(TODAY, ql.NullCalendar(), vol, DAYS)),
        )
        kind = ql.Option.Call if rows["is_call"][i] > 0.5 else ql.Option.Put
        exercise = ql.AmericanExercise(TODAY, TODAY + int(rows["days"][i]))
        option = ql.VanillaOption(ql.PlainVanillaPayoff(kind, 100.0), exercise)
        option.setPricingEngine(ql.QdFpAmericanEngine(process, make()))
        options.append(option)

    def run() -> list[float]:
        found = []
        for option in options:
            option.recalculate()
            found.append(option.NPV())
        return found

    return run, count


def errors(price: Any, truth: Any) -> dict[str, float]:
    """Largest and root-mean-square error."""
    miss = np.asarray(price) - truth
    return {"max": float(np.abs(miss).max()), "rms": float(np.sqrt((miss**2).mean()))}


def main() -> None:
    """Measure and write benchmarks/results/american.json."""
    where = measure.machine()
    rows = table("box.csv")
    truth, size = rows["price"], rows["price"].size
    options = options_of(rows)
    tiled = options_of({name: np.tile(values, TILES) for name, values in rows.items()})
    names = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield", "is_call")
    columns = Columns(*(np.ascontiguousarray(tiled.column(name)) for name in names))
    found: dict[str, dict[str, float]] = {}
    cases = []
    for name, scheme in CURVE.items():
        out = PriceResult(np.empty(tiled.size), np.empty(tiled.size, dtype=np.uint8))
        run = ours(scheme, columns, out)
        run()
        found[f"cpu engine, {name}"] = errors(out.price[:size], truth)
        cases.append(measure.Case(f"cpu engine, {name}", tiled.size, run))
    for name in QUANTLIB:
        price, count = theirs(name, rows)
        whole = size if name != "high precision" else 100
        QUANTLIB[name] = (QUANTLIB[name][0], whole)
        found[f"QuantLib, {name}"] = errors(theirs(name, rows)[0](), truth[:whole])
        cases.append(measure.Case(f"QuantLib, {name}", count, price))
    cases += more_cases(options, tiled, columns)
    timings = measure.interleaved(cases, rounds=5)
    ratios = {name: ratio(f"QuantLib, {name}", found, timings) for name in QUANTLIB}
    for name, (peer, times) in ratios.items():
        print(f"at the error of QuantLib {name}: {peer} is {times:.0f} times as fast")
    lines = ["### American options: error on the box of 600 and speed", ""]
    lines += ["| what | max error | rms error | options/s | spread |", "|---|---|---|---|---|"]
    for name, timing in timings.items():
        wrong = found.get(name)
        cells = f"{wrong['max']:.1e} | {wrong['rms']:.1e}" if wrong else " | "
        low, high = timing.case.rows / max(timing.seconds), timing.case.rows / min(timing.seconds)
        lines.append(f"| {name} | {cells} | {timing.rate:,.0f} | {low:,.0f}–{high:,.0f} |")
    lines += ["", "| QuantLib's scheme | ours at no larger error | times as fast |", "|---|---|---|"]
    lines += [f"| {name} | {peer} | {times:.0f} |" for name, (peer, times) in ratios.items()]
    lines += ["", f"- {where['cores']} threads of ours against one of QuantLib's, objects made beforehand"]
    lines += [f"- load of the machine before the run: {where['load_average_before']}", ""]
    result = {
        "machine": where,
        "errors": found,
        "timings": [timing.as_dict() for timing in timings.values()],
        "ratios": {name: {"ours": peer, "times": times} for name, (peer, times) in ratios.items()},
    }
    measure.write("american", result, "\n".join(lines))


def more_cases(options: gk.Options, tiled: gk.Options, columns: Columns) -> list[measure.Case]:
    """Greeks, implied vol, boundaries used again, one row, cash dividends."""
    cpu = gk.engine("cpu")
    greeks = cpu.greeks(tiled)
    price = cpu.price(options).price
    kept = backend.solve_boundaries(columns, "accurate", tiled.size)
    again = PriceResult(np.empty(tiled.size), np.empty(tiled.size, dtype=np.uint8))
    one = options.rows(slice(0, 1))
    paid = CashDividends.same([(0.05, 1.0), (0.3, 1.0), (0.55, 1.0), (0.8, 1.0)], 64)
    few = options.rows(slice(0, 64))

    def one_by_one(method: Any) -> None:
        for _ in range(CALLS):
            cpu.price(one, american_method=method)

    return [
        measure.Case("cpu engine, eight Greeks", tiled.size, lambda: cpu.greeks(tiled, out=greeks)),
        measure.Case("cpu engine, implied vol", options.size, lambda: cpu.implied_vol(options, price)),
        measure.Case(
            "cpu engine, other spots on kept boundaries",
            tiled.size,
            lambda: backend.price_from_boundaries(kept, 1.01 * columns.spot, columns.strike, again),
        ),
        measure.Case("cpu engine, one row a call, fast", CALLS, lambda: one_by_one("fast")),
        measure.Case("cpu engine, one row a call, accurate", CALLS, lambda: one_by_one("accurate")),
        measure.Case("cpu engine, four cash dividends", 64, lambda: price_with_dividends(few, paid)),
    ]


def ratio(
    peer: str, found: dict[str, dict[str, float]], timings: dict[str, measure.Timing]
) -> tuple[str, float]:
    """The fastest of our schemes whose errors are no larger than the peer's, and how much faster it is."""
    limit = found[peer]
    good = [
        name
        for name in found
        if name.startswith("cpu") and all(found[name][kind] <= 1.05 * limit[kind] for kind in ("max", "rms"))
    ]
    best = max(good, key=lambda name: timings[name].rate) if good else ""
    return best or "none", timings[best].rate / timings[peer].rate if best else 0.0


if __name__ == "__main__":
    main()
