"""Implied volatility beside SciPy, QuantLib and fast-vollib (where it is installed, else the table says so).

python -m benchmarks.implied_vol
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtr

import gpu_kernels as gk
from benchmarks import ceiling, measure
from benchmarks.european import Market, market

ROWS = 1_000_000
VOLLIB_ROWS = 100_000
NEWTON_ROWS = 100_000
QUANTLIB_ROWS = 10_000
NEWTON_STEPS = 12
# Five columns, a price and a flag in, a vol and a status out.
BYTES = 6 * 8 + 1 + 8 + 1


def out_of_the_money(rows: int) -> Market:
    """Options out of the money within four standard deviations of the forward, as desks quote them."""
    m = market(rows, seed=2)
    rng = np.random.default_rng(3)
    forward = m.spot * np.exp((m.rate - m.dividend_yield) * m.expiry)
    strike = forward * np.exp(rng.uniform(-4, 4, rows) * m.vol * np.sqrt(m.expiry))
    return m._replace(strike=strike, is_call=strike >= forward)


def newton(m: Any, price: Any, np: Any = np, ndtr: Any = ndtr) -> Any:
    """What one writes in NumPy or JAX: Newton's method from the inflection, a fixed number of steps."""
    root = np.sqrt(m.expiry)
    forward = m.spot * np.exp((m.rate - m.dividend_yield) * m.expiry)
    discount = np.exp(-m.rate * m.expiry)
    x = np.log(forward / m.strike)
    sign = np.where(m.is_call, 1.0, -1.0)
    total = np.sqrt(2.0 * np.abs(x)) + 1e-3
    for _ in range(NEWTON_STEPS):
        d1 = x / total + 0.5 * total
        value = discount * sign * (forward * ndtr(sign * d1) - m.strike * ndtr(sign * (d1 - total)))
        slope = discount * forward * np.exp(-0.5 * d1 * d1) * 0.3989422804014327
        total = np.maximum(total - (value - price) / slope, 1e-6)
    return total / root


def _jax_case(m: Market, price: Any) -> measure.Case:
    import jax
    import jax.numpy as jnp
    from jax.scipy.special import ndtr as jax_ndtr

    with jax.enable_x64(True):
        columns = tuple(jnp.asarray(column[:NEWTON_ROWS]) for column in (*m, price))
        compiled = jax.jit(lambda *c: newton(Market(*c[:-1]), c[-1], jnp, jax_ndtr))

    def run() -> Any:
        with jax.enable_x64(True):
            return jax.block_until_ready(compiled(*columns))

    return measure.Case(f"JAX jit on the CPU, {NEWTON_STEPS} Newton steps", NEWTON_ROWS, run)


def _quantlib_case(m: Market, price: Any) -> tuple[measure.Case, Any]:
    import QuantLib as ql

    forward = (m.spot * np.exp((m.rate - m.dividend_yield) * m.expiry))[:QUANTLIB_ROWS].tolist()
    discount = np.exp(-m.rate * m.expiry)[:QUANTLIB_ROWS].tolist()
    strike, call = m.strike[:QUANTLIB_ROWS].tolist(), m.is_call[:QUANTLIB_ROWS].tolist()
    quotes = price[:QUANTLIB_ROWS].tolist()
    nan = float("nan")

    def run() -> list[float]:
        found = []
        for k, f, p, d, c in zip(strike, forward, quotes, discount, call, strict=True):
            kind = ql.Option.Call if c else ql.Option.Put
            try:
                found.append(ql.blackFormulaImpliedStdDev(kind, k, f, p, d, 0.0, 0.3, 1e-12, 200))
            except RuntimeError:
                found.append(nan)
        return found

    return measure.Case("QuantLib-Python blackFormulaImpliedStdDev", QUANTLIB_ROWS, run), run


def _vollib_cases(m: Market, price: Any) -> list[measure.Case]:
    """fast-vollib as it comes, and with the faster of its backends each at the size that suits it best."""
    try:
        import fast_vollib
    except ImportError:
        return []

    def case(backend: str, rows: int) -> measure.Case:
        part = [column[:rows] for column in m]
        flag = np.where(part[6], "c", "p")

        def run() -> Any:
            return fast_vollib.fast_implied_volatility(
                price[:rows], part[0], part[1], part[2], part[4], flag, part[5],
                model="black_scholes_merton", return_as="numpy", on_error="ignore", backend=backend,
            )  # fmt: skip

        return measure.Case(f"fast-vollib ({backend}), batches of {rows:,}", rows, run)

    return [case("auto", ROWS), case("numba", ROWS), case("jax", VOLLIB_ROWS)]


def _error(vol: Any, exact: Any) -> dict[str, float]:
    relative = np.abs(np.asarray(vol) / exact - 1.0)
    relative = np.where(np.isnan(relative), np.inf, relative)
    return {
        "median": float(np.median(relative)),
        "worst": float(relative.max()),
        "rows off by more than 1e-6": float((relative > 1e-6).mean()),
    }


def main() -> None:
    """Measure and write benchmarks/results/implied_vol.json."""
    where = measure.machine()
    m = out_of_the_money(ROWS)
    options = gk.Options(**m._asdict())
    cpu = gk.engine("cpu")
    price = cpu.price(options).price
    result = cpu.implied_vol(options, price)
    assert (result.status == gk.Status.OK).all()
    short = Market(*(column[:NEWTON_ROWS] for column in m))
    quantlib_case, quantlib_run = _quantlib_case(m, price)
    peers = [_jax_case(m, price), *_vollib_cases(m, price)]
    root = np.sqrt(m.expiry)
    errors = {
        "cpu engine": _error(result.vol, m.vol),
        "SciPy": _error(newton(short, price[:NEWTON_ROWS]), m.vol[:NEWTON_ROWS]),
        quantlib_case.name: _error(np.array(quantlib_run()) / root[:QUANTLIB_ROWS], m.vol[:QUANTLIB_ROWS]),
    } | {case.name: _error(case.run(), m.vol[: case.rows]) for case in peers}
    assert errors["cpu engine"]["worst"] < 1e-12
    copy = ceiling.case(int(where["cores"]))
    cases = [
        measure.Case("cpu engine", ROWS, lambda: cpu.implied_vol(options, price, out=result), BYTES),
        measure.Case(
            f"SciPy, {NEWTON_STEPS} Newton steps", NEWTON_ROWS, lambda: newton(short, price[:NEWTON_ROWS])
        ),
        quantlib_case,
        *peers,
    ]
    timings = measure.interleaved([*cases, copy])
    bandwidth = ceiling.bandwidth(timings.pop(copy.name))
    ordered = list(timings.values())
    notes = [
        f"error of {name}: worst {one['worst']:.1e}; above 1e-6 in {one['rows off by more than 1e-6']:.2%}"
        for name, one in errors.items()
    ]
    notes.append(f"load of the machine before the run: {where['load_average_before']}")
    notes += filter(None, [measure.absent("fast-vollib")])
    text = measure.table(f"Implied volatility, {where['cores']} threads", ordered, notes, bandwidth)
    measure.write(
        "implied_vol",
        {
            "machine": where,
            "copy_bytes_per_second": bandwidth,
            "errors": errors,
            "timings": [timing.as_dict() for timing in ordered],
        },
        text,
    )


if __name__ == "__main__":
    main()
