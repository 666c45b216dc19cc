"""The CUDA engine beside the device's copy bandwidth: kernels, device-resident calls and end to end apart.

    python3 -m benchmarks.cuda    # into benchmarks/results/cuda.json; needs NumPy, SciPy, CuPy and a device

Every figure is the median of at least seven timings after a warm-up, and the answers are checked against the
reference engine. "Of the bound" is the share of the measured copy bandwidth that a kernel's least possible
traffic (each column read or written once) amounts to.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import gpu_kernels as gk

RESULTS = Path(__file__).parent / "results" / "cuda.json"
ROUNDS = 9
LAUNCHES = 5  # in one timing of a kernel
KERNEL_ROWS = 20_000_000  # 2.4 GB for Greeks: far beyond any cache
CALL_ROWS = (1, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
CHECKED_ROWS = 50_000
BOOKS = ((1_000, 500), (10_000, 500), (100_000, 1_000))
UNDERLYINGS = 100


def random_columns(size: int, seed: int = 1) -> dict[str, Any]:
    """Listed-option-like rows, every field different in every row."""
    rng = np.random.default_rng(seed)
    spot = rng.uniform(20.0, 200.0, size)
    return {
        "spot": spot,
        "strike": spot * np.exp(rng.normal(0.0, 0.25, size)),
        "expiry": rng.uniform(0.01, 2.0, size),
        "vol": rng.uniform(0.1, 0.8, size),
        "rate": rng.uniform(0.0, 0.06, size),
        "dividend_yield": rng.uniform(0.0, 0.04, size),
        "is_call": rng.random(size) < 0.5,
    }


def device_seconds(work: Callable[[], Any]) -> list[float]:
    """Time of one call on the device, by events around several."""
    import cupy

    work()
    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    times = []
    for _ in range(ROUNDS):
        start.record()
        for _ in range(LAUNCHES):
            work()
        end.record()
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(start, end) / 1e3 / LAUNCHES)
    return times


def wall_seconds(work: Callable[[], Any]) -> list[float]:
    """Time of one call as its caller sees it, the device's work included."""
    import cupy

    def done() -> None:
        work()
        cupy.cuda.get_current_stream().synchronize()

    done()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        done()
        times.append(time.perf_counter() - start)
    return times


def summary(times: list[float], amount: float, unit: str) -> dict[str, Any]:
    """Median time, rate, and how far the timings spread."""
    median = statistics.median(times)
    return {
        "seconds": median,
        "spread": (max(times) - min(times)) / median,
        f"{unit}_per_second": amount / median,
    }


def bandwidths() -> dict[str, float]:
    """Bytes per second: a copy within the device (read and write counted), and to and from pinned memory."""
    import cupy

    size = 1 << 31
    source, target = cupy.ones(size, cupy.uint8), cupy.empty(size, cupy.uint8)
    copy = statistics.median(device_seconds(lambda: cupy.copyto(target, source)))
    part = 1 << 28
    pinned = cupy.cuda.alloc_pinned_memory(part)
    block = cupy.cuda.alloc(part)
    stream = cupy.cuda.get_current_stream()
    into = statistics.median(device_seconds(lambda: block.copy_from_host_async(pinned.ptr, part, stream)))
    back = statistics.median(device_seconds(lambda: block.copy_to_host_async(pinned.ptr, part, stream)))
    return {"device_copy": 2 * size / copy, "host_to_device": part / into, "device_to_host": part / back}


def kernels(engine: gk.Engine, copy_bandwidth: float) -> dict[str, Any]:
    """Each kernel over rows, with columns and results on the device and nothing else timed."""
    import cupy

    from gpu_kernels.engines.cuda import european, implied_vol
    from gpu_kernels.engines.cuda.compile import bytes_per_row

    options = on_device(random_columns(KERNEL_ROWS))
    greeks = greeks_buffers(cupy, KERNEL_ROWS)
    price = gk.PriceResult(greeks.price, greeks.status)
    quoted = engine.price(options, out=gk.PriceResult(cupy.empty(KERNEL_ROWS), greeks.status)).price
    vol = gk.ImpliedVolResult(greeks.delta, greeks.status)
    cases = {
        "price": (lambda: engine.price(options, out=price), european.price_rows),
        "greeks": (lambda: engine.greeks(options, out=greeks), european.greeks_rows),
        "implied_vol": (lambda: engine.implied_vol(options, quoted, out=vol), implied_vol.implied_vol_rows),
    }
    found = {}
    for name, (work, kernel) in cases.items():
        traffic = sum(bytes_per_row(kernel))
        one = summary(device_seconds(work), KERNEL_ROWS, "rows")
        one["bytes_per_row"] = traffic
        one["of_the_bound"] = one["rows_per_second"] * traffic / copy_bandwidth
        found[name] = one
    return found


def greeks_buffers(array: Any, size: int) -> gk.GreeksResult:
    """Columns for results, from NumPy or CuPy."""
    columns = {name: array.empty(size) for name in gk.GreeksResult.COLUMNS[:-1]}
    return gk.GreeksResult(**columns, status=array.empty(size, array.uint8))


def on_device(columns: dict[str, Any]) -> gk.Options:
    """The columns as options on the device."""
    import cupy

    return gk.Options(**{name: cupy.asarray(column) for name, column in columns.items()})


def calls(engine: gk.Engine, resident: bool) -> dict[str, Any]:
    """Whole calls for price and Greeks by batch size, columns on the device or in host memory."""
    import cupy

    array = cupy if resident else np
    found: dict[str, Any] = {}
    for size in CALL_ROWS:
        columns = random_columns(size)
        options = on_device(columns) if resident else gk.Options(**columns)
        out = greeks_buffers(array, size)
        found[str(size)] = summary(wall_seconds(partial(engine.greeks, options, out=out)), size, "rows")
    return found


def revaluations(engine: gk.Engine) -> dict[str, Any]:
    """A book that is on the device under scenarios that are not: spots and shocks in, one vector out."""
    found: dict[str, Any] = {}
    rng = np.random.default_rng(3)
    for positions, count in BOOKS:
        book = gk.Portfolio(
            gk.Options(**random_columns(positions)),
            quantity=rng.normal(0.0, 20.0, positions),
            multiplier=100.0,
            underlying=rng.integers(0, UNDERLYINGS, positions),
        )
        scenarios = gk.Scenarios(
            spot_return=rng.normal(0.0, 0.02, (count, UNDERLYINGS)),
            vol_change=rng.normal(0.0, 0.01, (count, UNDERLYINGS)),
            elapsed=1 / 252,
        )
        out = np.empty(count)
        times = wall_seconds(partial(engine.revalue, book, scenarios, out=out))
        found[f"{positions} x {count}"] = summary(times, positions * count, "revaluations")
        if positions <= 1_000:
            wanted = gk.engine("reference").revalue(book, scenarios)
            gross = float(np.abs(book.quantity * book.multiplier * book.spot).sum())
            found["error_of_gross"] = float(np.abs(out - wanted).max() / gross)
    return found


def accuracy(engine: gk.Engine) -> dict[str, float]:
    """Largest differences from the reference engine."""
    options = gk.Options(**random_columns(CHECKED_ROWS, seed=2))
    found, wanted = engine.greeks(options), gk.engine("reference").greeks(options)
    errors = {}
    for name in found.COLUMNS[:-1]:
        one, other = getattr(found, name), getattr(wanted, name)
        errors[name] = float(np.abs(one - other).max() / np.abs(other).max())
    again = engine.implied_vol(options, wanted.price)
    solved = (again.status == gk.Status.OK) & (wanted.vega * options.vol > 1e-3 * wanted.price)
    errors["implied_vol"] = float(np.abs(again.vol / options.vol - 1.0)[solved].max())
    if max(errors[name] for name in found.COLUMNS[:-1]) > 1e-12:
        raise SystemExit(f"the answers are wrong, so their speed does not matter: {errors}")
    return errors


def report(results: dict[str, Any]) -> None:
    """A short table on standard output."""
    bandwidth = results["bandwidth"]
    print(f"{results['device']}: copy {bandwidth['device_copy'] / 1e12:.2f} TB/s")
    for name, one in results["kernels"].items():
        print(
            f"  {name:12} kernel {one['rows_per_second'] / 1e9:8.2f} G rows/s,"
            f" {one['of_the_bound']:.0%} of the bound, spread {one['spread']:.0%}"
        )
    for where in ("device_resident", "end_to_end"):
        for size, one in results[where].items():
            print(f"  Greeks {where:16} {size:>9} rows: {one['seconds'] * 1e6:12.1f} us")
    for name, one in results["revaluation"].items():
        if isinstance(one, dict):
            print(
                f"  revaluation {name:>15}: {one['seconds'] * 1e3:8.3f} ms,"
                f" {one['revaluations_per_second'] / 1e9:.2f} G/s"
            )


def main() -> int:
    """Measure, check, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write the figures (JSON)")
    chosen = parser.parse_args()
    try:
        engine = gk.engine("cuda")
    except gk.EngineUnavailable as error:
        # `python -m benchmarks` runs everything, wherever it is; what cannot run is no failure there.
        print(f"SKIPPED, nothing measured: {error}", file=sys.stderr)
        return 0
    import cupy

    runtime = cupy.cuda.runtime
    bandwidth = bandwidths()
    results = {
        "command": "python3 -m benchmarks.cuda",
        "device": engine.device,
        "driver": runtime.driverGetVersion(),
        "cuda": runtime.runtimeGetVersion(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "cupy": cupy.__version__,
        "rounds": ROUNDS,
        "kernel_rows": KERNEL_ROWS,
        "accuracy": accuracy(engine),
        "bandwidth": bandwidth,
        "kernels": kernels(engine, bandwidth["device_copy"]),
        "device_resident": calls(engine, resident=True),
        "end_to_end": calls(engine, resident=False),
        "revaluation": revaluations(engine),
    }
    report(results)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
