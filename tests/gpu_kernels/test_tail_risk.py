"""VaR and ES against order statistics written out by hand, and what is refused."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

import gpu_kernels as gk
from gpu_kernels.tail_risk import tail_risks, tail_scenarios


def by_hand(pnl: np.ndarray, level: str, convention: str) -> tuple[float, float]:
    """VaR and ES from a full sort, with k worked out in exact fractions."""
    losses = sorted((-float(x) for x in pnl), reverse=True)
    k = len(losses) * (1 - Fraction(level))
    if convention == "discrete":
        var = losses[math.ceil(k) - 1]
        tail = [loss for loss in losses if loss >= var]
        return var, math.fsum(tail) / len(tail)
    whole = math.floor(k)
    var = losses[whole - 1] if whole == k else losses[whole]
    total = math.fsum(losses[:whole]) + float(k - whole) * (losses[whole] if whole < k else 0.0)
    return var, total / float(k)


@pytest.mark.parametrize("convention", ["exact_tail", "discrete"])
@pytest.mark.parametrize("level", ["0.975", "0.99", "0.95", "0.9", "0.5", "0.683"])
@pytest.mark.parametrize("count", [100, 250, 499, 1000])
def test_agrees_with_order_statistics(
    rng: np.random.Generator, convention: str, level: str, count: int
) -> None:
    pnl = rng.standard_t(3, count) * 1e5
    if count == 250:
        pnl = np.round(pnl, -4)  # many ties
    var, es = by_hand(pnl, level, convention)
    t = gk.tail_risk(pnl, float(level), convention)
    assert t.var == var
    assert t.es == pytest.approx(es, rel=1e-13)
    assert t.es >= t.var


def test_an_integer_tail_survives_rounding() -> None:
    pnl = -np.arange(1000.0)
    assert 1000 * (1 - 0.975) != 25.0
    t = gk.tail_risk(pnl, 0.975)
    assert (t.var, t.es) == (975.0, 987.0)
    assert gk.tail_risk(pnl, 0.975, "discrete").var == 975.0


def test_several_levels_equal_single_calls(rng: np.random.Generator) -> None:
    pnl = rng.normal(size=777)
    levels = (0.99, 0.9, 0.975)
    assert tail_risks(pnl, levels) == tuple(gk.tail_risk(pnl, level) for level in levels)


def test_equal_weights_are_no_weights(rng: np.random.Generator) -> None:
    pnl = rng.normal(size=400)
    for convention in ("exact_tail", "discrete"):
        for level in (0.975, 0.99, 0.9333):
            plain = gk.tail_risk(pnl, level, convention)
            weighted = gk.tail_risk(pnl, level, convention, weights=np.full(400, 7.0))
            assert weighted.var == plain.var
            assert weighted.es == pytest.approx(plain.es, rel=1e-12)
            assert weighted.es_std_error == pytest.approx(plain.es_std_error, rel=1e-9)


def test_a_doubled_outcome_is_an_outcome_of_twice_the_weight(rng: np.random.Generator) -> None:
    pnl = rng.normal(size=300)
    times = rng.integers(1, 4, 300)
    repeated = gk.tail_risk(np.repeat(pnl, times), 0.93)
    weighted = gk.tail_risk(pnl, 0.93, weights=times)
    assert weighted.es == pytest.approx(repeated.es, rel=1e-12)


def test_tail_scenarios_make_up_the_shortfall(rng: np.random.Generator) -> None:
    pnl = rng.normal(size=333)
    for convention in ("exact_tail", "discrete"):
        tail = tail_scenarios(pnl, 0.975, convention)
        assert tail.weight.sum() == pytest.approx(1.0, rel=1e-14)
        assert -np.dot(tail.weight, pnl[tail.index]) == pytest.approx(
            gk.tail_risk(pnl, 0.975, convention).es, rel=1e-14
        )


def test_laws(rng: np.random.Generator) -> None:
    one, two = rng.standard_t(4, (2, 2000))
    es = {name: gk.tail_risk(x).es for name, x in {"one": one, "two": two, "both": one + two}.items()}
    assert es["both"] <= es["one"] + es["two"] + 1e-12
    assert gk.tail_risk(3.0 * one).es == pytest.approx(3.0 * es["one"], rel=1e-14)
    assert gk.tail_risk(one + 5.0).es == pytest.approx(es["one"] - 5.0, rel=1e-13)


def test_standard_error_is_the_spread_of_repeated_estimates(rng: np.random.Generator) -> None:
    samples = rng.normal(size=(400, 2000))
    answers = [gk.tail_risk(row, 0.95) for row in samples]
    spread = np.std([a.es for a in answers], ddof=1)
    said = np.mean([a.es_std_error for a in answers])
    # The spread of 400 estimates is itself known to 3.5 %; four of those.
    assert said == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize("convention", ["exact_tail", "discrete"])
@pytest.mark.parametrize("weighted", [False, True])
def test_standard_error_is_the_spread_of_the_influence(
    rng: np.random.Generator, convention: str, weighted: bool
) -> None:
    """Outcome by outcome: (L − VaR)⁺/(1 − level) + VaR − ES, weighed by its probability."""
    pnl = rng.standard_t(4, 600)
    weights = rng.uniform(0.5, 1.5, 600) if weighted else None
    t = gk.tail_risk(pnl, 0.95, convention, weights=weights)
    share = np.full(600, 1.0 / 600.0) if weights is None else weights / weights.sum()
    total = 0.0
    for loss, p in zip(-pnl, share, strict=True):
        total += (p * (max(loss - t.var, 0.0) / 0.05 + t.var - t.es)) ** 2
    assert t.es_std_error == pytest.approx(math.sqrt(total), rel=1e-12)


def test_bootstrap_interval_is_that_of_plain_resampling(rng: np.random.Generator) -> None:
    pnl = rng.standard_t(5, 500)
    for convention in ("exact_tail", "discrete"):
        t = gk.tail_risk(pnl, 0.95, convention, bootstrap=2000, confidence=0.9, seed=7)
        plain = [gk.tail_risk(rng.choice(pnl, 500), 0.95, convention).es for _ in range(2000)]
        low, high = np.quantile(plain, [0.05, 0.95])
        assert t.es_interval == pytest.approx((low, high), abs=0.25 * t.es_std_error)
        assert (
            t.es_interval
            == gk.tail_risk(pnl, 0.95, convention, bootstrap=2000, confidence=0.9, seed=7).es_interval
        )


def test_a_thin_tail_is_said_and_an_empty_one_refused() -> None:
    pnl = np.arange(399.0)
    assert gk.tail_risk(np.arange(400.0), 0.975).warnings == ()
    (sentence,) = gk.tail_risk(pnl, 0.975).warnings
    assert "9.975 outcomes" in sentence
    assert "400" in sentence
    assert gk.tail_risk(np.arange(40.0), 0.975).es == 0.0
    with pytest.raises(gk.InvalidInput, match="39 scenarios are too few"):
        gk.tail_risk(np.arange(39.0), 0.975)


@pytest.mark.parametrize(
    ("kwargs", "field", "row"),
    [
        ({"pnl": [1.0, math.nan]}, "pnl", 1),
        ({"pnl": [[1.0]]}, "pnl", None),
        ({"pnl": ["a"]}, "pnl", None),
        ({"level": 1.0}, "level", None),
        ({"level": 0.0}, "level", None),
        ({"level": math.nan}, "level", None),
        ({"convention": "fuzzy"}, "convention", None),
        ({"weights": [1.0]}, "weights", None),
        ({"weights": [-1.0] + 99 * [1.0]}, "weights", 0),
        ({"bootstrap": -1}, "bootstrap", None),
        ({"bootstrap": 10, "weights": np.ones(100)}, "bootstrap", None),
    ],
)
def test_bad_input_is_named(kwargs: dict[str, object], field: str, row: int | None) -> None:
    with pytest.raises(gk.InvalidInput) as caught:
        gk.tail_risk(**({"pnl": np.arange(100.0)} | kwargs))
    assert (caught.value.field, caught.value.row) == (field, row)
