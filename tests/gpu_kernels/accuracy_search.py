"""The largest errors over hundreds of thousands of random and adversarial options, on every engine.

python tests/gpu_kernels/accuracy_search.py [ROWS] [SEED] [ENGINE,ENGINE...]

The truth is the textbook formula in 113-bit arithmetic (quad_truth.c, needs gcc with libquadmath): fast
enough for a search that goes deeper than the 60-digit tests. Writes benchmarks/results/accuracy_search.json;
ends with 1 if an error is larger than allowed.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accuracy
import grids
import numpy as np
import pytest

import gpu_kernels as gk

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parents[1] / "benchmarks" / "results" / "accuracy_search.json"
ALLOWED = {
    "price, of max(S, K)": accuracy.PRICE_ABSOLUTE,
    "price, relative": accuracy.PRICE_RELATIVE,
    "fused price, of max(S, K)": accuracy.PRICE_ABSOLUTE,
    "fused price, relative": accuracy.PRICE_RELATIVE_FUSED,
    **dict.fromkeys(accuracy.GREEKS, accuracy.GREEK_RELATIVE),
    "implied vol, where the price determines it": 1.0,
    "implied vol, repricing elsewhere": 1.0,
}


def library() -> Any:
    """The exact formula, compiled."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "quad_truth.so")
        flags = ["-O2", "-shared", "-fPIC", "-o", str(path), str(HERE / "quad_truth.c"), "-lquadmath"]
        subprocess.run(["gcc", *flags], check=True)
        return ctypes.CDLL(str(path))


def called(function: Any, size: int, *arrays: Any) -> None:
    """Call a C function of `size` rows; arrays are contiguous."""
    assert all(array.flags.c_contiguous for array in arrays)
    function(ctypes.c_long(size), *(ctypes.c_void_p(array.ctypes.data) for array in arrays))


def drawn(seed: int, rows: int) -> grids.Grid:
    """Half of the tests' usual options, half at the switches of formulas and where a carry cancels."""
    rng = np.random.default_rng(seed)
    kinds = (grids.at_the_switch, grids.deep_with_a_carry, grids.near_money, grids.carried_to_the_money)
    return grids.joined(grids.everything(rng, rows // 2), *(kind(rng, rows // 8) for kind in kinds))


def engines(names: list[str]) -> dict[str, gk.Engine]:
    """Those present; `cuda-on-host` is the CUDA kernels' source run by the processor."""
    found = {}
    for name in names:
        if name == "cuda-on-host":
            import cuda_stand_in

            found[name] = cuda_stand_in.install(pytest.MonkeyPatch())[0]
        else:
            found[name] = gk.engine(name)
    return found


def value_errors(exact: Any, engine: gk.Engine, grid: grids.Grid) -> dict[str, Any]:
    """Errors of every row, by the names of ALLOWED."""
    options = accuracy.options(grid)
    fused = engine.greeks(options)
    nine = np.stack([accuracy.host(column) for column in fused.columns()[:-1]])
    alone = nine.copy()
    alone[0] = accuracy.host(engine.price(options).price)
    size = grid.spot.size
    errors = {}
    for label, values in (("price", alone), ("fused price", nine)):
        error = np.empty((10, size))
        called(exact.value_errors, size, *grid, values, error)
        errors |= {f"{label}, of max(S, K)": error[0], f"{label}, relative": error[1]}
        greeks = error[2:]
    return errors | dict(zip(accuracy.GREEKS, greeks, strict=True))


def vol_errors(exact: Any, engine: gk.Engine, grid: grids.Grid) -> dict[str, Any]:
    """Errors of the vols that there are, in units of what is allowed."""
    prices = np.empty(grid.spot.size)
    called(exact.exact_prices, prices.size, *grid, prices)
    result = engine.implied_vol(accuracy.options(grid), prices)
    solved = accuracy.host(result.status) == gk.Status.OK
    part = [column[solved] for column in grid]
    vol, error = accuracy.host(result.vol)[solved], np.empty(int(solved.sum()))
    strong = np.empty(error.size, np.uint8)
    columns = (*part[:3], *part[4:], prices[solved], vol)
    called(exact.vol_errors, error.size, *columns, error, strong)
    names = [name for name in ALLOWED if name.startswith("implied vol")]
    return {names[0]: error[strong == 1], names[1]: error[strong == 0]}


def main() -> int:
    """Search, print, write."""
    arguments = sys.argv[1:]
    rows = int(arguments[0]) if arguments else 200_000
    seed = int(arguments[1]) if len(arguments) > 1 else int(np.random.SeedSequence().generate_state(1)[0])
    names = arguments[2].split(",") if len(arguments) > 2 else ["reference", "cpu", "xla", "cuda-on-host"]
    exact, grid = library(), drawn(seed, rows)
    found: dict[str, dict[str, float]] = {}
    for name, engine in engines(names).items():
        measures: tuple[Callable[..., dict[str, Any]], ...] = (value_errors, vol_errors)
        errors = {key: one for measure in measures for key, one in measure(exact, engine, grid).items()}
        found[name] = {key: float(f"{one.max():.2e}") for key, one in errors.items()}
        vols = {key: int(one.size) for key, one in errors.items() if key.startswith("implied vol")}
    print(json.dumps(found, indent=1))
    record = {"seed": seed, "options": grid.spot.size, "vols": vols, "allowed": ALLOWED, "largest": found}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    return int(any(one[key] > most for one in found.values() for key, most in ALLOWED.items()))


if __name__ == "__main__":
    raise SystemExit(main())
