"""Backtests against worked examples and independent recomputation.

The numbers marked MathWorks were read on the documentation pages of Risk Management Toolbox for
`varbacktest.pof`, `varbacktest.cci`, `varbacktest.cc`, `varbacktest.tl` and `esbacktest.unconditionalNormal`
(and `unconditionalT`), mathworks.com/help/risk.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import gpu_kernels as gk
from gpu_kernels import backtests


def history_with(n00: int, n01: int, n10: int, n11: int) -> np.ndarray:
    """Some sequence of exceptions with these transitions; starts and ends with a quiet day, so n01 == n10."""
    assert n01 == n10
    runs = [1] * n10
    runs[0] += n11
    days: list[bool] = [False]
    for run in runs:
        days += [True] * run + [False]
    return np.array(days + [False] * (n00 - (len(days) - 1 - n01 - n10 - n11)))


# MathWorks: 1043 days, 57 exceptions of a 95 % VaR, transitions 932, 53, 53, 4.
MATHWORKS = history_with(932, 53, 53, 4)


def test_the_history_is_the_worked_one() -> None:
    assert len(MATHWORKS) == 1043
    assert MATHWORKS.sum() == 57
    assert backtests.christoffersen(MATHWORKS, 0.95).transitions == (932, 53, 53, 4)


def test_kupiec_mathworks() -> None:
    test = backtests.kupiec(MATHWORKS, 0.95)
    assert test.statistic == pytest.approx(0.46147, abs=5e-6)
    assert test.p_value == pytest.approx(0.49694, abs=5e-6)


def test_christoffersen_mathworks() -> None:
    test = backtests.christoffersen(MATHWORKS, 0.95)
    assert test.independence.statistic == pytest.approx(0.25866, abs=5e-6)
    assert test.independence.p_value == pytest.approx(0.61104, abs=5e-6)
    assert test.conditional.statistic == pytest.approx(0.72013, abs=5e-6)
    assert test.conditional.p_value == pytest.approx(0.69763, abs=5e-6)


def test_traffic_light_mathworks() -> None:
    light = backtests.traffic_light(MATHWORKS, 0.95)
    assert light.zone == "green"
    assert light.probability == pytest.approx(0.77913, abs=5e-6)
    assert light.type_one_error == pytest.approx(0.26396, abs=5e-6)


def test_traffic_light_has_the_zones_of_basel() -> None:
    """250 days at 99 %: green to 4 exceptions, yellow from 5 to 9, red from 10."""
    zones = [backtests.traffic_light(np.arange(250) < count).zone for count in range(12)]
    assert zones == ["green"] * 5 + ["yellow"] * 5 + ["red"] * 2


@pytest.mark.parametrize("count", [0, 1, 3, 10, 100])
def test_kupiec_is_the_ratio_of_binomial_likelihoods(count: int) -> None:
    hits = np.arange(100) < count
    null = stats.binom.logpmf(count, 100, 0.05)
    best = stats.binom.logpmf(count, 100, count / 100)
    assert backtests.kupiec(hits, 0.95).statistic == pytest.approx(2.0 * (best - null), abs=1e-10)


def test_clustered_exceptions_are_seen() -> None:
    clustered = np.zeros(1000, dtype=bool)
    clustered[100:120] = True
    spread = np.zeros(1000, dtype=bool)
    spread[::50] = True
    assert backtests.christoffersen(clustered, 0.98).independence.p_value < 1e-10
    assert backtests.christoffersen(spread, 0.98).independence.p_value > 0.1
    assert backtests.kupiec(clustered, 0.98) == backtests.kupiec(spread, 0.98)


@pytest.mark.parametrize(
    ("dof", "critical", "p_value"), [(None, -0.34639, 0.0054099), (3, -0.42986, 0.018566)]
)
def test_acerbi_szekely_mathworks_critical_values(dof: float | None, critical: float, p_value: float) -> None:
    """MathWorks: 1966 days at 97.5 %, test level 99 %, statistic -0.38265."""
    pnl = np.zeros(1966)
    pnl[:49] = -(1.38265 * 1966 * 0.025) / 49
    test = backtests.acerbi_szekely(pnl, 1e-3, 1.0, dof=dof, significance=0.01, simulations=100_000, seed=3)
    assert test.statistic == pytest.approx(-0.38265, abs=1e-12)
    assert test.critical_value == pytest.approx(critical, abs=0.01)
    assert test.p_value == pytest.approx(p_value, rel=0.15)


def test_acerbi_szekely_from_its_definition() -> None:
    rng = np.random.default_rng(5)
    pnl, var, es = rng.normal(size=500), rng.uniform(1.0, 2.0, 500), rng.uniform(2.0, 3.0, 500)
    hit = [x < -v for x, v in zip(pnl, var, strict=True)]
    total = sum(x / e for x, e, h in zip(pnl, es, hit, strict=True) if h)
    second = backtests.acerbi_szekely(pnl, var, es, 0.9)
    first = backtests.acerbi_szekely(pnl, var, es, 0.9, test="conditional")
    assert second.statistic == pytest.approx(total / (500 * 0.1) + 1.0, rel=1e-12)
    assert first.statistic == pytest.approx(total / sum(hit) + 1.0, rel=1e-12)


def test_right_forecasts_pass_and_small_ones_fail() -> None:
    pnl = np.random.default_rng(11).normal(size=2500)
    var, es = stats.norm.ppf(0.975), stats.norm.pdf(stats.norm.ppf(0.975)) / 0.025
    for test in ("unconditional", "conditional"):
        assert backtests.acerbi_szekely(pnl, var, es, test=test).p_value > 0.01
        assert backtests.acerbi_szekely(pnl, 0.6 * var, 0.6 * es, test=test).p_value < 0.05


def test_simulated_p_values_are_uniform_under_a_right_model() -> None:
    rng = np.random.default_rng(2)
    var, es = stats.norm.ppf(0.975), stats.norm.pdf(stats.norm.ppf(0.975)) / 0.025
    found = [
        backtests.acerbi_szekely(rng.normal(size=500), var, es, simulations=2000).p_value for _ in range(300)
    ]
    assert stats.kstest(found, "uniform").pvalue > 1e-4


def test_bad_input_is_named() -> None:
    for call, field in (
        (lambda: backtests.kupiec(np.zeros(5), 0.95), "exception"),
        (lambda: backtests.kupiec(np.zeros(5, bool), 1.0), "level"),
        (lambda: backtests.exceptions([1.0, np.nan], 1.0), "pnl"),
        (lambda: backtests.exceptions([1.0, 2.0], -1.0), "var"),
        (lambda: backtests.acerbi_szekely([1.0], 1.0, [1.0, 2.0]), "es"),
        (lambda: backtests.acerbi_szekely([1.0], 1.0, 1.0, test="conditional"), "pnl"),
        (lambda: backtests.acerbi_szekely([-2.0], 1.0, 1.0, dof=1.0), "dof"),
    ):
        with pytest.raises(gk.InvalidInput) as caught:
            call()
        assert caught.value.field == field
