"""Committed accuracy tables of European options: exact values, error allowed, error recorded per engine.

`python tests/gpu_kernels/european_tables.py` writes the errors of the engines present into the tables; with
`--new` it first computes the exact values afresh (mpmath, 60 digits, 40 written). Reading a table and
measuring an engine against it needs neither mpmath nor any other library than NumPy.
"""

from __future__ import annotations

import json
import sys
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np

import gpu_kernels as gk

FOLDER = Path(__file__).resolve().parents[1] / "reference_tables" / "european"
FIELDS = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield", "is_call")
GREEKS = ("delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm")
ENGINES = ("reference", "cpu", "xla", "cuda")
DIGITS = 40
SEED = 20261121
ROWS = 160


def load(name: str) -> dict[str, Any]:
    """The table of that name."""
    table: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return table


def options(table: dict[str, Any], **changes: Any) -> gk.Options:
    """The table's rows as options."""
    return gk.Options(**({field: np.array(table["options"][field]) for field in FIELDS} | changes))


def price_errors(engine: gk.Engine) -> dict[str, float]:
    """Largest errors of an engine over the table `price_and_greeks`, by the names of its `allowed`."""
    table = load("price_and_greeks")
    exact = table["exact"]
    spot, strike = table["options"]["spot"], table["options"]["strike"]
    alone, fused = engine.price(options(table)), engine.greeks(options(table))
    errors: dict[str, float] = {}
    for label, values in (("price", alone.price), ("fused price", fused.price)):
        gaps = _gaps(values, exact["price"])
        errors[f"{label}, of max(spot, strike)"] = max(
            gap / max(s, k) for gap, s, k in zip(gaps, spot, strike, strict=True)
        )
        errors[f"{label}, relative"] = max(
            gap / float(Decimal(value)) if float(value) > 1e-30 * s else 0.0
            for gap, value, s in zip(gaps, exact["price"], spot, strict=True)
        )
    for name in GREEKS:
        gaps = _gaps(getattr(fused, name), exact[name])
        errors[name] = max(gap / scale for gap, scale in zip(gaps, table["scale"][name], strict=True))
    return errors


def vol_errors(engine: gk.Engine) -> dict[str, float]:
    """Largest error of an engine over the table `implied_vol`."""
    table = load("implied_vol")
    result = engine.implied_vol(options(table), np.array(table["price"]))
    gaps = _gaps(result.vol, table["exact"]["vol"])
    exact = [float(value) for value in table["exact"]["vol"]]
    return {"vol, relative": max(gap / vol for gap, vol in zip(gaps, exact, strict=True))}


def _gaps(values: Any, exact: list[str]) -> list[float]:
    host = values.get() if hasattr(values, "get") else values
    with localcontext() as context:
        context.prec = 60
        return [
            float(abs(Decimal(float(value)) - Decimal(truth)))
            for value, truth in zip(host, exact, strict=True)
        ]


def _write(name: str, table: dict[str, Any]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(table, indent=1) + "\n")


def _new_tables() -> None:
    import accuracy
    import grids
    import mpmath as mp
    import mpmath_truth

    grid = grids.everything(np.random.default_rng(SEED), 4 * ROWS)
    rows = [mpmath_truth.Option(*row) for row in zip(*grid, strict=True)]
    pairs = [mpmath_truth.values(row) for row in rows]
    # Rows of which every Greek can be told from 0 in float64.
    kept = [i for i, (_, scale) in enumerate(pairs) if min(scale.values()) > accuracy.LEAST_GREEK]
    kept = sorted(np.random.default_rng(SEED).choice(kept, ROWS, replace=False))

    def text(number: Any) -> str:
        return str(mp.nstr(number, DIGITS, min_fixed=0, max_fixed=0))

    columns = {field: [column[i].item() for i in kept] for field, column in zip(FIELDS, grid, strict=True)}
    exact = {name: [text(pairs[i][0][name]) for i in kept] for name in ("price", *GREEKS)}
    scale = {name: [float(pairs[i][1][name]) for i in kept] for name in GREEKS}
    allowed = {
        "price, of max(spot, strike)": accuracy.PRICE_ABSOLUTE,
        "price, relative": accuracy.PRICE_RELATIVE,
        "fused price, of max(spot, strike)": accuracy.PRICE_ABSOLUTE,
        "fused price, relative": accuracy.PRICE_RELATIVE_FUSED,
    } | dict.fromkeys(GREEKS, accuracy.GREEK_RELATIVE)
    origin = "textbook formula, mpmath, 60 digits; inputs are exact float64 numbers"
    _write(
        "price_and_greeks",
        {
            "origin": origin,
            "options": columns,
            "exact": exact,
            "scale": scale,
            "allowed": allowed,
            "recorded": {},
        },
    )
    _write("implied_vol", _vol_table(rows, kept, origin, text))


def _vol_table(rows: list[Any], kept: list[int], origin: str, text: Any) -> dict[str, Any]:
    import accuracy
    import mpmath as mp
    import mpmath_truth

    strong, prices, vols = [], [], []
    for i in kept:
        option = rows[i]
        value, vega = mpmath_truth.price_at_vol(option, option.vol)
        price = float(value)
        # Only where float64 prices determine the volatility to more digits than are asked for.
        if vega * option.vol < 0.01 * price:
            continue
        with mp.workdps(60):
            vol = mp.mpf(float(option.vol))
            for _ in range(4):
                value, vega = mpmath_truth.price_at_vol(option, vol)
                vol += (mp.mpf(price) - value) / vega
        strong.append(option)
        prices.append(price)
        vols.append(text(vol))
    columns = {field: [getattr(row, field).item() for row in strong] for field in FIELDS}
    return {
        "origin": f"{origin}; the volatility at which the formula gives the float64 price",
        "options": columns,
        "price": prices,
        "exact": {"vol": vols},
        "allowed": {"vol, relative": accuracy.VOL_RELATIVE},
        "recorded": {},
    }


def _record() -> None:
    for name, measure in (("price_and_greeks", price_errors), ("implied_vol", vol_errors)):
        table = load(name)
        for engine in ENGINES:
            try:
                errors = measure(gk.engine(engine))
            except gk.EngineUnavailable as error:
                print(f"{engine}: {error}", file=sys.stderr)
                continue
            table["recorded"][engine] = {key: float(f"{value:.2e}") for key, value in errors.items()}
        _write(name, table)


if __name__ == "__main__":
    if "--new" in sys.argv[1:]:
        _new_tables()
    _record()
