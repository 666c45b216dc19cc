"""Do the outcomes bear the forecasts out? Tests of VaR and ES forecasts against what then happened.

VaR and ES are positive losses; ``pnl`` is what happened, losses negative. An exception is a loss beyond VaR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from gpu_kernels.errors import InvalidInput

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Zones of the traffic light by the probability of as many exceptions or fewer under a right model.
YELLOW_FROM = 0.95
RED_FROM = 0.9999


@dataclass(frozen=True)
class LikelihoodRatio:
    """A likelihood ratio test: asymptotically χ² with ``degrees`` of freedom under a right model."""

    statistic: float
    p_value: float
    degrees: int


@dataclass(frozen=True)
class Coverage:
    """Christoffersen's tests, with the counts of (yesterday, today) pairs; 1 is an exception."""

    unconditional: LikelihoodRatio
    independence: LikelihoodRatio
    conditional: LikelihoodRatio
    transitions: tuple[int, int, int, int]  # 00, 01, 10, 11


@dataclass(frozen=True)
class TrafficLight:
    """Basel's traffic light for a number of exceptions."""

    zone: Literal["green", "yellow", "red"]
    exceptions: int
    observations: int
    probability: float  # of as many or fewer exceptions under a right model
    type_one_error: float  # probability of as many or more: the right model would be rejected here


@dataclass(frozen=True)
class ShortfallTest:
    """An Acerbi-Székely test: 0 is expected under a right model, below 0 the ES was too small."""

    statistic: float
    p_value: float
    critical_value: float
    exceptions: int
    observations: int


def exceptions(pnl: ArrayLike, var: ArrayLike) -> Flags:
    """Days (T,) on which the loss went beyond the VaR forecast (T,) or a constant one."""
    outcomes = _series(pnl, "pnl")
    forecast = _forecast(var, "var", len(outcomes))
    return outcomes < -forecast


def kupiec(exception: ArrayLike, level: float) -> LikelihoodRatio:
    """Kupiec's proportion-of-failures test: is the share of exceptions 1 − level?"""
    hits = _flags(exception)
    rate = _rate(level)
    count, days = int(hits.sum()), len(hits)
    statistic = -2.0 * (_log_likelihood(count, days, rate) - _log_likelihood(count, days, count / days))
    return _likelihood_ratio(statistic, 1)


def christoffersen(exception: ArrayLike, level: float) -> Coverage:
    """Christoffersen's tests: are exceptions independent of yesterday's, and of the right number?"""
    hits = _flags(exception)
    if len(hits) < 2:
        raise InvalidInput("exception", "has fewer than 2 days, so no transition")
    pairs = 2 * hits[:-1].astype(int) + hits[1:]
    n00, n01, n10, n11 = (int(n) for n in np.bincount(pairs, minlength=4))
    together = _log_likelihood(n01 + n11, len(hits) - 1, (n01 + n11) / (len(hits) - 1))
    apart = _log_likelihood_of(n01, n00 + n01) + _log_likelihood_of(n11, n10 + n11)
    independence = _likelihood_ratio(-2.0 * (together - apart), 1)
    unconditional = kupiec(hits, level)
    conditional = _likelihood_ratio(unconditional.statistic + independence.statistic, 2)
    return Coverage(unconditional, independence, conditional, (n00, n01, n10, n11))


def traffic_light(exception: ArrayLike, level: float = 0.99) -> TrafficLight:
    """Basel's traffic light: yellow from 95 %, red from 99.99 % probability of as many or fewer."""
    hits = _flags(exception)
    rate = _rate(level)
    count, days = int(hits.sum()), len(hits)
    probability = float(special.bdtr(count, days, rate))
    zone: Literal["green", "yellow", "red"] = "green"
    if probability >= RED_FROM:
        zone = "red"
    elif probability >= YELLOW_FROM:
        zone = "yellow"
    at_least = 1.0 if count == 0 else float(special.bdtrc(count - 1, days, rate))
    return TrafficLight(zone, count, days, probability, at_least)


def acerbi_szekely(
    pnl: ArrayLike,
    var: ArrayLike,
    es: ArrayLike,
    level: float = 0.975,
    *,
    test: Literal["unconditional", "conditional"] = "unconditional",
    dof: float | None = None,
    significance: float = 0.05,
    simulations: int = 20_000,
    seed: int = 0,
) -> ShortfallTest:
    """Acerbi and Székely (2014): their unconditional test Z2 or the conditional one, Z1, of ES forecasts.

    The p-value comes from ``simulations`` histories in which the forecasts are right and outcomes normal, or
    Student's t with ``dof`` degrees of freedom.
    """
    outcomes = _series(pnl, "pnl")
    hits = exceptions(outcomes, var)
    shortfall = _forecast(es, "es", len(outcomes))
    rate = _rate(level)
    if test not in ("unconditional", "conditional"):
        raise InvalidInput("test", f'must be "unconditional" or "conditional", got {test!r}')
    if not 0.0 < significance < 1.0:
        raise InvalidInput("significance", f"must lie strictly between 0 and 1, got {significance}")
    count, days = int(hits.sum()), len(outcomes)
    ratios = float((outcomes[hits] / shortfall[hits]).sum())
    expected = days * rate if test == "unconditional" else float(count)
    if expected == 0.0:
        raise InvalidInput("pnl", "has no exception, so the conditional test has no value")
    statistic = ratios / expected + 1.0
    simulated = _simulated_statistics(days, rate, test, dof, simulations, seed)
    return ShortfallTest(
        statistic=statistic,
        p_value=float(np.mean(simulated <= statistic)),
        critical_value=float(np.quantile(simulated, significance)),
        exceptions=count,
        observations=days,
    )


def _simulated_statistics(
    days: int, rate: float, test: str, dof: float | None, simulations: int, seed: int
) -> Floats:
    """The statistic under right forecasts; only the exceptions of each history are drawn."""
    law = stats.norm() if dof is None else stats.t(dof)
    quantile = float(law.ppf(rate))
    if dof is None:
        shortfall = float(law.pdf(quantile)) / rate
    elif dof > 1.0:
        shortfall = float(law.pdf(quantile)) / rate * (dof + quantile * quantile) / (dof - 1.0)
    else:
        raise InvalidInput("dof", f"must be above 1 for an expected shortfall to exist, got {dof}")
    generator = np.random.Generator(np.random.Philox(seed))
    counts = generator.binomial(days, rate, simulations)
    if test == "conditional":
        # A history without exceptions has no conditional statistic.
        counts = counts[counts > 0]
    losses = law.ppf(generator.uniform(0.0, rate, int(counts.sum())))
    edges = np.concatenate([[0], np.cumsum(losses)])[np.concatenate([[0], np.cumsum(counts)])]
    sums = np.diff(edges)
    expected = days * rate if test == "unconditional" else counts
    return np.asarray(sums / shortfall / expected + 1.0)


def _log_likelihood(count: int, days: int, rate: float) -> float:
    """ln of rate^count · (1 − rate)^(days − count), where 0 times ln 0 is 0."""
    return float(special.xlogy(count, rate) + special.xlog1py(days - count, -rate))


def _log_likelihood_of(count: int, days: int) -> float:
    return _log_likelihood(count, days, count / days) if days else 0.0


def _likelihood_ratio(statistic: float, degrees: int) -> LikelihoodRatio:
    # Rounding may leave a ratio of equal likelihoods a hair below 0.
    value = max(statistic, 0.0)
    return LikelihoodRatio(value, float(special.chdtrc(degrees, value)), degrees)


def _rate(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise InvalidInput("level", f"must lie strictly between 0 and 1, got {level!r}")
    return 1.0 - level


def _flags(exception: ArrayLike) -> Flags:
    hits = np.asarray(exception)
    if hits.dtype != np.bool_ or hits.ndim != 1 or not len(hits):
        raise InvalidInput(
            "exception", f"must be booleans, one per day, got {hits.dtype} of shape {hits.shape}"
        )
    return hits


def _series(value: ArrayLike, field: str) -> Floats:
    series = np.asarray(value, dtype=np.float64)
    if series.ndim != 1 or not len(series):
        raise InvalidInput(field, f"must have one entry per day, got shape {series.shape}")
    bad = np.flatnonzero(~np.isfinite(series))
    if bad.size:
        raise InvalidInput(field, f"is {series[bad[0]]}", int(bad[0]))
    return series


def _forecast(value: ArrayLike, field: str, days: int) -> Floats:
    forecast = np.asarray(value, dtype=np.float64)
    if forecast.shape not in ((), (days,)):
        raise InvalidInput(field, f"must be a number or have shape ({days},), got {forecast.shape}")
    forecast = np.broadcast_to(forecast, (days,))
    bad = np.flatnonzero(~(np.isfinite(forecast) & (forecast > 0.0)))
    if bad.size:
        raise InvalidInput(field, f"must be a positive loss, got {forecast[bad[0]]}", int(bad[0]))
    return forecast
