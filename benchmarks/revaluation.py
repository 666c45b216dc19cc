"""Full revaluation beside a SciPy loop, end to end, American options, and how cost grows with the book.

python -m benchmarks.revaluation
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

import gpu_kernels as gk
from benchmarks import measure
from gpu_kernels.american_book import AmericanBook
from gpu_kernels.revaluation import position_pnl
from gpu_kernels.revaluation import shocks as moves_of
from gpu_kernels.shocked_options import repriced_pnl

POSITIONS, SCENARIOS, UNDERLYINGS = 10_000, 500, 10
SCIPY_POSITIONS = 1_000
AMERICAN_POSITIONS = 512
# Sizes of the scaling run; the other side is held at the base.
BASE = 2_000
SIZES = (1_000, 2_000, 4_000, 8_000, 16_000)

Floats = NDArray[np.float64]


def columns(rows: int, seed: int = 1) -> dict[str, Any]:
    """A desk's book: strikes 60–150 around a spot of 100, a week to two years, vols 10–60 %."""
    rng = np.random.default_rng(seed)
    return {
        "spot": np.full(rows, 100.0),
        "strike": rng.uniform(60, 150, rows),
        "expiry": rng.uniform(0.02, 2, rows),
        "vol": rng.uniform(0.1, 0.6, rows),
        "rate": np.full(rows, 0.03),
        "dividend_yield": np.full(rows, 0.01),
        "is_call": rng.random(rows) < 0.5,
        "quantity": rng.normal(0.0, 10.0, rows),
        "underlying": rng.integers(0, UNDERLYINGS, rows),
    }


def portfolio(given: dict[str, Any], american: bool = False) -> gk.Portfolio:
    """The book as the engines take it."""
    fields = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield", "is_call")
    options = gk.Options(**{name: given[name] for name in fields}, american=american)
    return gk.Portfolio(options, given["quantity"], 100.0, underlying=given["underlying"])


def shocks(count: int, moves: str, seed: int = 2) -> dict[str, Any]:
    """Returns of 3 % a day; vols and rates move too if asked for."""
    rng = np.random.default_rng(seed)
    return {
        "spot_return": rng.normal(0, 0.03, (count, UNDERLYINGS)),
        "vol_change": rng.normal(0, 0.03, (count, UNDERLYINGS)) if moves != "spot" else 0.0,
        "rate_change": rng.normal(0, 0.005, count) if moves == "rate" else 0.0,
        "elapsed": 1 / 252,
    }


def scipy_pnl(book: gk.Portfolio, scenarios: gk.Scenarios) -> Floats:
    """The same by NumPy and SciPy, a scenario at a time over all positions."""

    def value(spot: Floats, vol: Floats, expiry: Floats) -> Floats:
        deviation = vol * np.sqrt(expiry)
        plus = (
            np.log(spot / book.strike) + (book.rate - book.dividend_yield) * expiry
        ) / deviation + deviation / 2
        sign = np.where(book.is_call, 1.0, -1.0)
        forward = spot * np.exp(-book.dividend_yield * expiry)
        strike = book.strike * np.exp(-book.rate * expiry)
        return sign * (forward * ndtr(sign * plus) - strike * ndtr(sign * (plus - deviation)))

    today = value(book.spot, book.vol, book.expiry)
    size = book.quantity * book.multiplier
    pnl = np.empty(len(scenarios))
    for s in range(len(scenarios)):
        spot = book.spot * np.exp(scenarios.spot_return[s, book.underlying])
        vol = np.maximum(book.vol + scenarios.vol_change[s, book.underlying], 1e-4)
        left = np.maximum(book.expiry - scenarios.elapsed[s], 0.0)
        pnl[s] = np.dot(size, value(spot, vol, left) - today)
    return pnl


def end_to_end(given: dict[str, Any], moves: dict[str, Any], engine: gk.Engine) -> gk.TailRisk:
    """Columns in, expected shortfall out: nothing prepared."""
    return gk.tail_risk(engine.revalue(portfolio(given), gk.Scenarios(**moves)))


def european(engine: gk.Engine) -> list[measure.Timing]:
    """The engine under three kinds of scenarios, end to end, and SciPy."""
    given = columns(POSITIONS)
    book = portfolio(given)
    kinds = {moves: gk.Scenarios(**shocks(SCENARIOS, moves)) for moves in ("vol", "spot", "rate")}
    small = portfolio(columns(SCIPY_POSITIONS))
    wanted, found = scipy_pnl(small, kinds["vol"]), engine.revalue(small, kinds["vol"])
    gross = float(np.abs(small.quantity * small.multiplier * 10.0).sum())
    assert np.abs(wanted - found).max() < 1e-11 * gross
    both = POSITIONS * SCENARIOS
    raw = shocks(SCENARIOS, "vol")
    cases = [
        measure.Case("cpu engine, spot and vol move", both, lambda: engine.revalue(book, kinds["vol"])),
        measure.Case("cpu engine, spot moves", both, lambda: engine.revalue(book, kinds["spot"])),
        measure.Case(
            "cpu engine, spot, vol and rate move", both, lambda: engine.revalue(book, kinds["rate"])
        ),
        measure.Case("end to end, columns in, ES out", both, lambda: end_to_end(given, raw, engine)),
        measure.Case("SciPy", SCIPY_POSITIONS * SCENARIOS, lambda: scipy_pnl(small, kinds["vol"])),
    ]
    return list(measure.interleaved(cases, rounds=9).values())


def american(engine: gk.Engine) -> tuple[list[measure.Timing], list[str]]:
    """American options: interpolants, boundaries reused or interpolated, every shocked option by itself."""
    book = portfolio(columns(AMERICAN_POSITIONS), american=True)
    spot = gk.Scenarios(**shocks(SCENARIOS, "spot"))
    # Vol moves of 1 %: three standard deviations leave the lowest vol of 10 % a vol.
    moves = shocks(SCENARIOS, "vol")
    vol = gk.Scenarios(**(moves | {"vol_change": moves["vol_change"] / 3.0}))
    # A tenth of a per cent a day, and five times as much.
    rates = shocks(SCENARIOS, "rate")
    rate = gk.Scenarios(**(rates | {"vol_change": vol.vol_change, "rate_change": rates["rate_change"] / 5.0}))
    wild = gk.Scenarios(**(rates | {"vol_change": vol.vol_change}))
    few = portfolio(columns(32), american=True)
    anew = np.empty((32, SCENARIOS))
    built = {}
    for name, scenarios in (("vol", vol), ("spot", spot)):
        AmericanBook(engine, book, scenarios)
        start = time.perf_counter()
        built[name] = (AmericanBook(engine, book, scenarios), time.perf_counter() - start)
        assert built[name][0].error <= 1e-5
    every = AMERICAN_POSITIONS * SCENARIOS
    cases = [
        measure.Case("interpolants, spot and vol move", every, lambda: built["vol"][0].revalue(vol)),
        measure.Case("interpolants, spot moves", every, lambda: built["spot"][0].revalue(spot)),
        measure.Case("revalue, spot moves: boundaries reused", every, lambda: engine.revalue(book, spot)),
        measure.Case(
            "revalue, spot and vol move: boundaries interpolated", every, lambda: engine.revalue(book, vol)
        ),
        measure.Case(
            "revalue, spot, vol and rate (0.1 %) move: boundaries interpolated",
            every,
            lambda: engine.revalue(book, rate),
        ),
        measure.Case(
            "revalue, spot, vol and rate (0.5 %) move: boundaries interpolated",
            every,
            lambda: engine.revalue(book, wild),
        ),
        measure.Case(
            "every shocked option priced by itself",
            32 * SCENARIOS,
            lambda: repriced_pnl(engine, few, moves_of(few, vol), anew),
        ),
    ]
    notes = [
        f"interpolants of {AMERICAN_POSITIONS} options, {name}: {seconds * 1e3:.0f} ms to build; error bound "
        f"at most {held.error:.1e} of spot, {len(held.exact)} options priced exactly"
        for name, (held, seconds) in built.items()
    ]
    moved = engine.module("american_moves")
    size = (np.abs(few.quantity * 100.0) * few.spot)[:, None]
    for label, scenarios in (("vol", vol), ("rate 0.1 %", rate), ("rate 0.5 %", wild)):
        repriced_pnl(engine, few, moves_of(few, scenarios), anew)
        wrong = np.abs(position_pnl(engine, few, scenarios) - anew) / size
        lost = moved.moved_pnl(engine, few, moves_of(few, scenarios), np.empty(anew.shape))
        notes.append(
            f"interpolated boundaries, {label}: largest error of {wrong.size} values {wrong.max():.1e} of "
            f"spot, bound {moved.TOLERANCE:.0e}; {len(lost)} of {len(few)} options priced by themselves"
        )
    return list(measure.interleaved(cases, rounds=5).values()), notes


def scaling(engine: gk.Engine) -> dict[str, Any]:
    """Processor time by positions and by scenarios, and the largest departure from a line through 0."""
    found: dict[str, Any] = {}
    for side in ("positions", "scenarios"):
        pairs = [
            (
                portfolio(columns(size if side == "positions" else BASE)),
                gk.Scenarios(**shocks(size if side == "scenarios" else BASE, "vol")),
            )
            for size in SIZES
        ]
        seconds = [np.inf] * len(SIZES)
        for _ in range(9):
            for i, (book, scenarios) in enumerate(pairs):
                # Processor time of all threads: other work on the machine does not enter it.
                start = time.process_time()
                engine.revalue(book, scenarios)
                seconds[i] = min(seconds[i], time.process_time() - start)
        per_price = [t / (size * BASE) for t, size in zip(seconds, SIZES, strict=True)]
        middle = statistics.median(per_price)
        found[side] = {
            "sizes": SIZES,
            "other_side": BASE,
            "least_processor_seconds": seconds,
            "largest_departure_from_linear": max(abs(p / middle - 1) for p in per_price),
        }
    return found


def main() -> None:
    """Measure and write the result files."""
    engine = gk.engine("cpu")
    machine = measure.machine()
    plain, grows = european(engine), scaling(engine)
    exercised, american_notes = american(engine)
    milliseconds = statistics.median(plain[3].seconds) * 1e3
    notes = [
        f"{POSITIONS} positions × {SCENARIOS} scenarios; end to end {milliseconds:.1f} ms (median), "
        f"{min(plain[3].seconds) * 1e3:.1f} ms (least)",
        "departure from linear cost: "
        + ", ".join(f"{grows[side]['largest_departure_from_linear']:.1%} in {side}" for side in grows),
        f"load of the machine before the run: {machine['load_average_before']}",
    ]
    text = measure.table(f"Revaluation, {machine['cores']} threads", plain, notes)
    text += "\n" + measure.table("American revaluation", exercised, american_notes)
    measure.write(
        "revaluation",
        {
            "machine": machine,
            "european": [timing.as_dict() for timing in plain],
            "american": [timing.as_dict() for timing in exercised],
            "scaling": grows,
        },
        text,
    )


if __name__ == "__main__":
    main()
