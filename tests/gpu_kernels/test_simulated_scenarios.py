"""Monte-Carlo scenarios: moments, closed-form ES, the gain of Sobol, covariances and their repair."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import gpu_kernels as gk
from gpu_kernels.covariance import covariance_from_returns, covariance_root


def random_covariance(rng: np.random.Generator, size: int) -> np.ndarray:
    loadings = rng.normal(size=(size, size + 2))
    vols = rng.uniform(0.1, 0.5, size)
    cov = loadings @ loadings.T
    scale = vols / np.sqrt(np.diag(cov))
    return cov * np.outer(scale, scale)


def simulated(rng: np.random.Generator, count: int, **changes: object) -> gk.Scenarios:
    given = {"mean": 0.0, "cov": [[0.04]], "seed": int(rng.integers(1 << 60)), "horizon": 10 / 252}
    return gk.simulate_scenarios(count, **(given | changes))


@pytest.mark.parametrize("sampler", ["sobol", "philox"])
@pytest.mark.parametrize(
    ("distribution", "kurtosis"), [("normal", False), ("student_t", True), ("jump", True)]
)
def test_mean_and_covariance(
    rng: np.random.Generator, sampler: str, distribution: str, kurtosis: bool
) -> None:
    cov = random_covariance(rng, 3)
    mean = rng.normal(0.0, 0.1, 3)
    sc = simulated(
        rng, 1 << 16, mean=mean, cov=cov, sampler=sampler, distribution=distribution, dof=8, jump_mean=-0.02
    )
    assert sc.elapsed[0] == 10 / 252
    returns = sc.spot_return
    deviation = np.sqrt(np.diag(cov) * 10 / 252)
    assert np.abs(returns.mean(axis=0) - mean * 10 / 252).max() < 0.02 * deviation.max()
    assert np.cov(returns.T) == pytest.approx(cov * 10 / 252, abs=0.05 * deviation.max() ** 2)
    assert (stats.kurtosis(returns[:, 0]) > 0.5) == kurtosis


def linear_es(rng: np.random.Generator, count: int, seed: int) -> tuple[float, float]:
    """ES of a random linear book less its closed form, and the standard error that it is answered with."""
    cov = random_covariance(rng, 5)
    weights = rng.normal(size=5)
    sc = simulated(rng, count, cov=cov, sampler="philox", seed=seed)
    t = gk.tail_risk(sc.spot_return @ weights)
    deviation = np.sqrt(weights @ cov @ weights * 10 / 252)
    return t.es - deviation * stats.norm.pdf(stats.norm.ppf(0.975)) / 0.025, t.es_std_error


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1000, 4000, 16_000, 64_000, 256_000])
def test_es_of_a_linear_book_is_the_closed_form(count: int, seed: int) -> None:
    """Within three standard errors: recorded seeds, so that it says the same on every run."""
    error, deviation = linear_es(np.random.default_rng(seed), count, seed)
    assert abs(error) < 3.0 * deviation


def test_standard_errors_are_those_of_fresh_draws(rng: np.random.Generator) -> None:
    """Errors over standard errors of 120 fresh runs: their squares add up as χ², few are beyond three.

    False alarms: one in 10,000 runs for the sum, and for more than six beyond three (0.3 are expected, the
    estimated errors of a tail of 100 outcomes make it somewhat more).
    """
    runs = [linear_es(rng, 4000, int(rng.integers(1 << 60))) for _ in range(120)]
    scores = np.array([error / deviation for error, deviation in runs])
    print(np.sort(scores))
    assert (np.abs(scores) > 3.0).sum() <= 6
    assert stats.chi2.ppf(5e-5, 120) < np.square(scores).sum() < 1.25 * stats.chi2.ppf(1.0 - 5e-5, 120)


def test_es_of_a_student_t_book_is_the_closed_form(rng: np.random.Generator) -> None:
    sc = simulated(rng, 1 << 15, distribution="student_t", dof=5.0, sampler="sobol")
    t = gk.tail_risk(sc.spot_return[:, 0])
    quantile = stats.t.ppf(0.025, 5)
    exact = stats.t.pdf(quantile, 5) / 0.025 * (5 + quantile**2) / 4
    exact *= np.sqrt(0.04 * 10 / 252 * 3 / 5)
    assert abs(t.es - exact) < 3.0 * t.es_std_error


@pytest.mark.parametrize("book", ["one factor", "any covariance", "equal weights"])
def test_sobol_has_a_fifth_of_the_error_of_philox(rng: np.random.Generator, book: str) -> None:
    """2^14 scenarios of 10 assets, books that are long the market, nothing told about them."""
    vols = rng.uniform(0.15, 0.4, 10)
    cov = np.outer(vols, vols) * (0.4 * np.eye(10) + 0.6)
    if book == "any covariance":
        cov = random_covariance(rng, 10)
    weights = np.ones(10) if book == "equal weights" else rng.uniform(0.2, 1.0, 10)
    rmse = both_errors(rng, cov, weights)
    assert rmse["philox"] >= 5.0 * rmse["sobol"]


def test_sobol_is_better_for_any_long_short_book(rng: np.random.Generator) -> None:
    """Where nothing is told about a book of both signs, the gain is 2 to 7 times: no order fits all books."""
    rmse = both_errors(rng, random_covariance(rng, 10), rng.normal(size=10))
    assert rmse["philox"] >= 1.3 * rmse["sobol"]


def both_errors(
    rng: np.random.Generator, cov: np.ndarray, weights: np.ndarray, **changes: object
) -> dict[str, float]:
    """RMSE of the ES of a linear book under either sampler, over 24 seeds."""
    exact = np.sqrt(weights @ cov @ weights * 10 / 252) * stats.norm.pdf(stats.norm.ppf(0.975)) / 0.025
    rmse = {}
    for sampler in ("sobol", "philox"):
        runs = [simulated(rng, 1 << 14, cov=cov, sampler=sampler, **changes) for _ in range(24)]
        errors = np.array([gk.tail_risk(sc.spot_return @ weights).es for sc in runs]) - exact
        rmse[sampler] = float(np.sqrt(np.mean(np.square(errors))))
    print(rmse)
    return rmse


def test_sobol_along_a_long_short_book_has_a_fifth_of_the_error(rng: np.random.Generator) -> None:
    weights = rng.normal(size=10)
    rmse = both_errors(rng, random_covariance(rng, 10), weights, exposure=weights)
    assert rmse["philox"] >= 5.0 * rmse["sobol"]


@pytest.mark.parametrize("distribution", ["normal", "student_t", "jump"])
def test_an_exposure_leaves_the_distribution_as_it_is(rng: np.random.Generator, distribution: str) -> None:
    cov = random_covariance(rng, 4)
    exposure = rng.normal(size=4)
    sc = simulated(rng, 1 << 15, cov=cov, exposure=exposure, distribution=distribution, dof=9)
    deviation = np.sqrt(np.diag(cov) * 10 / 252)
    assert np.cov(sc.spot_return.T) == pytest.approx(cov * 10 / 252, abs=0.06 * deviation.max() ** 2)
    for bad, match in (([1.0, 2.0], "shape"), ([1.0, np.nan, 0.0, 0.0], r"exposure\[1\]")):
        with pytest.raises(gk.InvalidInput, match=match):
            simulated(rng, 64, cov=cov, exposure=bad)
    same = simulated(np.random.default_rng(1), 64, cov=cov)
    nothing = simulated(np.random.default_rng(1), 64, cov=cov, exposure=np.zeros(4))
    assert np.array_equal(same.spot_return, nothing.spot_return)


def test_blocks_make_up_the_whole(rng: np.random.Generator) -> None:
    seed = int(rng.integers(1 << 60))
    for sampler in ("sobol", "philox"):
        for distribution in ("normal", "student_t", "jump"):
            changes = {"seed": seed, "sampler": sampler, "distribution": distribution, "vol_beta": -0.5}
            whole = simulated(rng, 300, **changes)
            part = simulated(rng, 100, start=150, **changes)
            assert np.allclose(part.spot_return, whole.spot_return[150:250], rtol=1e-13, atol=0.0)
            assert np.array_equal(whole.vol_change, -0.5 * whole.spot_return)


def test_a_singular_covariance_is_used_as_it_is(rng: np.random.Generator) -> None:
    sc = simulated(rng, 4096, cov=[[0.04, 0.04], [0.04, 0.04]])
    assert sc.notes == ()
    assert sc.spot_return[:, 0] == pytest.approx(sc.spot_return[:, 1], abs=1e-12)


def test_a_broken_covariance_is_repaired_and_that_is_said(rng: np.random.Generator) -> None:
    correlation = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    sc = simulated(rng, 256, cov=0.04 * correlation)
    (note,) = sc.notes
    assert "not positive semi-definite" in note
    assert "repaired" in note
    repaired = covariance_root(0.04 * correlation)
    assert np.diag(repaired.cov) == pytest.approx([0.04] * 3, rel=1e-12)
    assert np.linalg.eigvalsh(repaired.cov)[0] > -1e-15
    assert repaired.root @ repaired.root.T == pytest.approx(repaired.cov, abs=1e-15)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cov": [[0.04, 0.0]]}, "cov"),
        ({"cov": [[0.04, 0.01], [0.02, 0.04]]}, "cov"),
        ({"cov": [[np.nan]]}, "cov"),
        ({"cov": [[-0.04]]}, "cov"),
        ({"mean": [0.0, 0.0]}, "mean"),
        ({"mean": np.inf}, "mean"),
        ({"horizon": 0.0}, "horizon"),
        ({"distribution": "cauchy"}, "distribution"),
        ({"sampler": "halton"}, "sampler"),
        ({"distribution": "student_t", "dof": 2.0}, "dof"),
        ({"distribution": "jump", "jump_mean": 1.0}, "jump_mean"),
        ({"distribution": "jump", "jump_share": 2.0}, "jump_share"),
        ({"vol_beta": [1.0, 2.0]}, "vol_beta"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_input_is_named(rng: np.random.Generator, changes: dict[str, object], field: str) -> None:
    with pytest.raises(gk.InvalidInput) as caught:
        simulated(rng, 16, **changes)
    assert caught.value.field == field


def test_shrinkage_is_that_of_ledoit_and_wolf_by_loops(rng: np.random.Generator) -> None:
    returns = rng.normal(size=(30, 4)) @ rng.normal(size=(4, 4)) * 0.01
    days, size = returns.shape
    centred = returns - returns.mean(axis=0)
    sample = sum(np.outer(x, x) for x in centred) / days
    level = np.trace(sample) / size
    distance = np.sum((sample - level * np.eye(size)) ** 2) / size
    error = min(sum(np.sum((np.outer(x, x) - sample) ** 2) for x in centred) / days**2 / size, distance)
    found = covariance_from_returns(returns, periods_per_year=1.0)
    assert found.shrinkage == pytest.approx(error / distance, rel=1e-12)
    expected = (1 - found.shrinkage) * sample + found.shrinkage * level * np.eye(size)
    assert found.cov == pytest.approx(expected, rel=1e-12)


def test_shrinking_beats_the_sample_on_short_history(rng: np.random.Generator) -> None:
    cov = np.eye(20) * 0.04 + 0.01
    root = np.linalg.cholesky(cov)
    gain = []
    for _ in range(20):
        returns = rng.normal(size=(25, 20)) @ root.T
        shrunk = covariance_from_returns(returns, periods_per_year=1.0).cov
        plain = covariance_from_returns(returns, periods_per_year=1.0, shrinkage=0.0).cov
        gain.append(np.linalg.norm(shrunk - cov) / np.linalg.norm(plain - cov))
    assert np.mean(gain) < 0.9
    with pytest.raises(gk.InvalidInput, match=r"returns\[1\]"):
        covariance_from_returns([[0.0], [np.nan]])
