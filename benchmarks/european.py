"""European prices and Greeks beside SciPy, JAX, QuantLib and fast-vollib (the last where it is installed:
its table says so when it is not).

python -m benchmarks.european
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

import gpu_kernels as gk
from benchmarks import ceiling, measure

ROWS = 1_000_000
QUANTLIB_ROWS = 20_000
# Six columns and a flag in, a price and a status out; eight more numbers out.
PRICE_BYTES = 6 * 8 + 1 + 8 + 1
GREEKS_BYTES = PRICE_BYTES + 8 * 8
SIX = ("price", "delta", "gamma", "vega", "theta", "rho")


class Market(NamedTuple):
    """Columns of options."""

    spot: NDArray[np.float64]
    strike: NDArray[np.float64]
    expiry: NDArray[np.float64]
    vol: NDArray[np.float64]
    rate: NDArray[np.float64]
    dividend_yield: NDArray[np.float64]
    is_call: NDArray[np.bool_]


def market(rows: int, seed: int = 1) -> Market:
    """A book as a desk has it: spot and strike 50–150, a week to three years, vol 5–80 %."""
    rng = np.random.default_rng(seed)
    spot, strike = rng.uniform(50, 150, (2, rows))
    rate, dividend_yield = rng.uniform(0, 0.06, (2, rows))
    return Market(
        spot, strike, rng.uniform(0.02, 3, rows), rng.uniform(0.05, 0.8, rows), rate, dividend_yield,
        rng.random(rows) < 0.5,
    )  # fmt: skip


def six_values(m: Any, np: Any, ndtr: Any) -> tuple[Any, ...]:
    """Price, delta, gamma, vega, theta, rho as the textbook has them, on NumPy or JAX arrays."""
    spot, strike, expiry, vol, rate, dividend_yield, is_call = m
    root = np.sqrt(expiry)
    d1 = (np.log(spot / strike) + (rate - dividend_yield + 0.5 * vol * vol) * expiry) / (vol * root)
    d2 = d1 - vol * root
    sign = np.where(is_call, 1.0, -1.0)
    spot_discount, strike_leg = np.exp(-dividend_yield * expiry), strike * np.exp(-rate * expiry)
    n1, n2 = ndtr(sign * d1), ndtr(sign * d2)
    density = spot_discount * np.exp(-0.5 * d1 * d1) * 0.3989422804014327
    delta = sign * spot_discount * n1
    held = sign * strike_leg * n2
    return (
        spot * delta - held,
        delta,
        density / (spot * vol * root),
        spot * density * root,
        -0.5 * spot * density * vol / root - rate * held + dividend_yield * spot * delta,
        expiry * held,
    )


def _jax_case(m: Market) -> tuple[measure.Case, Any]:
    import jax
    import jax.numpy as jnp
    from jax.scipy.special import ndtr as jax_ndtr

    with jax.enable_x64(True):
        columns = tuple(jnp.asarray(column) for column in m)
        compiled = jax.jit(lambda *c: six_values(c, jnp, jax_ndtr))

    def run() -> Any:
        with jax.enable_x64(True):
            return jax.block_until_ready(compiled(*columns))

    return measure.Case("JAX jit on the CPU, price + 5 Greeks", ROWS, run), run


def _quantlib_case(m: Market) -> tuple[measure.Case, Any]:
    import QuantLib as ql

    part = [column[:QUANTLIB_ROWS].tolist() for column in m]
    total = (m.vol * np.sqrt(m.expiry))[:QUANTLIB_ROWS].tolist()
    forward = (m.spot * np.exp((m.rate - m.dividend_yield) * m.expiry))[:QUANTLIB_ROWS].tolist()
    discount = np.exp(-m.rate * m.expiry)[:QUANTLIB_ROWS].tolist()

    def run() -> list[tuple[float, ...]]:
        values = []
        for spot, strike, expiry, call, s, f, d in zip(
            part[0], part[1], part[2], part[6], total, forward, discount, strict=True
        ):
            kind = ql.Option.Call if call else ql.Option.Put
            c = ql.BlackCalculator(ql.PlainVanillaPayoff(kind, strike), f, s, d)
            values.append(
                (
                    c.value(),
                    c.delta(spot),
                    c.gamma(spot),
                    c.vega(expiry),
                    c.theta(spot, expiry),
                    c.rho(expiry),
                )
            )
        return values

    return measure.Case("QuantLib-Python BlackCalculator, price + 5 Greeks", QUANTLIB_ROWS, run), run


def _vollib_cases(m: Market) -> list[measure.Case]:
    """fast-vollib with the fastest of its backends for each task on this machine; none if it is absent."""
    try:
        import fast_vollib
    except ImportError:
        return []
    flag = np.where(m.is_call, "c", "p")
    columns = (flag, m.spot, m.strike, m.expiry, m.rate, m.vol, m.dividend_yield)

    def price() -> Any:
        return fast_vollib.fast_black_scholes_merton(*columns, return_as="numpy", backend="jax")

    def greeks() -> Any:
        return fast_vollib.get_all_greeks(
            *columns, model="black_scholes_merton", return_as="dict", backend="numba"
        )

    assert np.abs(np.asarray(price()) - gk.engine("cpu").price(gk.Options(**m._asdict())).price).max() < 1e-9
    return [
        measure.Case("fast-vollib (JAX), price", ROWS, price),
        measure.Case("fast-vollib (numba), 5 Greeks without the price", ROWS, greeks),
    ]


def _check(ours: gk.GreeksResult, theirs: Any, rows: int) -> None:
    for name, values in zip(SIX, theirs, strict=True):
        mine = getattr(ours, name)[:rows]
        assert np.abs(mine - np.asarray(values)).max() < 1e-8 * (1.0 + np.abs(mine).max()), name


def main() -> None:
    """Measure and write benchmarks/results/european.json."""
    where = measure.machine()
    m = market(ROWS)
    options = gk.Options(**m._asdict())
    cpu = gk.engine("cpu")
    prices, greeks = cpu.price(options), cpu.greeks(options)
    jax_case, jax_run = _jax_case(m)
    quantlib_case, quantlib_run = _quantlib_case(m)
    _check(greeks, six_values(m, np, ndtr), ROWS)
    _check(greeks, jax_run(), ROWS)
    _check(greeks, zip(*quantlib_run(), strict=True), QUANTLIB_ROWS)
    copy = ceiling.case(int(where["cores"]))
    cases = [
        measure.Case(
            "cpu engine, price + 8 Greeks", ROWS, lambda: cpu.greeks(options, out=greeks), GREEKS_BYTES
        ),
        measure.Case("cpu engine, price", ROWS, lambda: cpu.price(options, out=prices), PRICE_BYTES),
        measure.Case("SciPy, price + 5 Greeks", ROWS, lambda: six_values(m, np, ndtr)),
        jax_case,
        quantlib_case,
        *_vollib_cases(m),
    ]
    timings = measure.interleaved([*cases, copy])
    bandwidth = ceiling.bandwidth(timings.pop(copy.name))
    ordered = list(timings.values())
    notes = [
        f"copy bandwidth of the same run: {bandwidth / 1e9:.1f} GB/s on {where['cores']} threads;"
        f" {GREEKS_BYTES} and {PRICE_BYTES} bytes per option",
        f"load of the machine before the run: {where['load_average_before']}",
    ]
    notes += filter(None, [measure.absent("fast-vollib")])
    text = measure.table("European options, two threads", ordered, notes, bandwidth).replace(
        "two threads", f"{where['cores']} threads"
    )
    result = {
        "machine": where,
        "copy_bytes_per_second": bandwidth,
        "timings": [timing.as_dict() for timing in ordered],
        "part_of_memory_bound": {
            timing.case.name: measure.bound_part(timing, bandwidth)
            for timing in ordered
            if timing.case.bytes_per_row
        },
    }
    measure.write("european", result, text)


if __name__ == "__main__":
    main()
