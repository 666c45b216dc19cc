"""Value-at-risk and expected shortfall of a vector of scenario outcomes; losses come out positive.

Two conventions, both over n outcomes with k = n(1 − level):

- ``exact_tail``: the expected shortfall is the mean of the worst k outcomes, the last one weighted by the
  fraction of k; the value-at-risk is the (⌊k⌋+1)-th worst, or the k-th when k is an integer.
- ``discrete``: the value-at-risk is the ⌈k⌉-th worst, the expected shortfall the mean of what is no better.

With ``weights`` (age-weighted history) the tail holds a probability of 1 − level instead of k outcomes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_kernels.errors import InvalidInput

Floats = NDArray[np.float64]
Convention = Literal["exact_tail", "discrete"]
CONVENTIONS: tuple[str, ...] = ("exact_tail", "discrete")

# k within this of an integer is that integer: 1000·(1 − 0.975) is 25.00000000000002 in float64.
INTEGER_TOLERANCE = 1e-9
# A tail of fewer outcomes than this is answered with a warning: its mean rests on a handful of numbers.
THIN_TAIL = 10


@dataclass(frozen=True)
class TailRisk:
    """VaR and ES at one level, in the outcomes' currency, losses positive."""

    level: float
    convention: str
    scenarios: int
    var: float
    es: float
    es_std_error: float
    es_interval: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tail:
    """The scenarios that make up an expected shortfall: ``es == -(weight * pnl[index]).sum()``."""

    level: float
    index: NDArray[np.intp]
    weight: Floats
    var: float
    es: float
    warnings: tuple[str, ...] = field(default=())


def tail_risk(
    pnl: ArrayLike,
    level: float = 0.975,
    convention: Convention = "exact_tail",
    *,
    weights: ArrayLike | None = None,
    bootstrap: int = 0,
    confidence: float = 0.95,
    seed: int = 0,
) -> TailRisk:
    """VaR and ES of scenario outcomes ``pnl`` (S,) at one level; ``bootstrap`` > 0 adds an interval for ES.

    ``es_std_error`` is the influence-function estimate for independent outcomes (Manistre and Hancock 2005).
    It overstates the error of quasi-random scenarios.
    """
    return tail_risks(
        pnl, (level,), convention, weights=weights, bootstrap=bootstrap, confidence=confidence, seed=seed
    )[0]


def tail_risks(
    pnl: ArrayLike,
    levels: Sequence[float],
    convention: Convention = "exact_tail",
    *,
    weights: ArrayLike | None = None,
    bootstrap: int = 0,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[TailRisk, ...]:
    """VaR and ES at several levels from one partial sort; the answers come in the order of ``levels``."""
    outcomes = _checked_outcomes(pnl)
    probability = _checked_weights(weights, len(outcomes))
    _checked_bootstrap(bootstrap, confidence, probability is not None)
    cuts = [_cut(len(outcomes), level, probability) for level in levels]
    if not cuts:
        return ()
    order = _worst_first(outcomes, cuts, probability)
    answers = []
    for level, cut in zip(levels, cuts, strict=True):
        tail = _tail(outcomes, order, level, cut, convention, probability)
        interval = None
        if bootstrap:
            interval = _bootstrap_interval(outcomes, cut, convention, bootstrap, confidence, seed)
        answers.append(
            TailRisk(
                level=float(level),
                convention=convention,
                scenarios=len(outcomes),
                var=tail.var,
                es=tail.es,
                es_std_error=_std_error(outcomes, tail, 1.0 - level, probability),
                es_interval=interval,
                warnings=tail.warnings,
            )
        )
    return tuple(answers)


def tail_scenarios(
    pnl: ArrayLike,
    level: float = 0.975,
    convention: Convention = "exact_tail",
    *,
    weights: ArrayLike | None = None,
) -> Tail:
    """Which scenarios make up the ES of ``pnl`` (S,), and with which weights (they sum to one)."""
    outcomes = _checked_outcomes(pnl)
    probability = _checked_weights(weights, len(outcomes))
    cut = _cut(len(outcomes), level, probability)
    order = _worst_first(outcomes, [cut], probability)
    return _tail(outcomes, order, level, cut, convention, probability)


@dataclass(frozen=True)
class _Cut:
    """k outcomes, or ``mass`` of probability, lie in the tail."""

    k: float
    mass: float


def _cut(count: int, level: float, probability: Floats | None) -> _Cut:
    if not (isinstance(level, (int, float, np.floating)) and 0.0 < level < 1.0):
        raise InvalidInput("level", f"must lie strictly between 0 and 1, got {level!r}")
    mass = 1.0 - float(level)
    effective = float(count) if probability is None else 1.0 / float(np.square(probability).sum())
    k = effective * mass
    if abs(k - round(k)) <= INTEGER_TOLERANCE:
        k = float(round(k))
    if k < 1.0:
        needed = int(np.ceil(1.0 / mass - INTEGER_TOLERANCE))
        raise InvalidInput(
            "pnl",
            f"{effective:.6g} scenarios are too few: level {level} needs {needed} for one in the tail",
        )
    return _Cut(k=k, mass=mass)


def _worst_first(outcomes: Floats, cuts: list[_Cut], probability: Floats | None) -> NDArray[np.intp]:
    """Positions of the worst outcomes, worst first, as many as the deepest cut reads; ties by position."""
    count = len(outcomes)
    if probability is not None:
        return np.argsort(outcomes, kind="stable")
    wanted = min(count, int(np.floor(max(cut.k for cut in cuts))) + 1)
    # Every outcome up to the bound, so that ties at the cut are all there.
    bound = np.partition(outcomes, wanted - 1)[wanted - 1]
    candidates = np.flatnonzero(outcomes <= bound)
    return candidates[np.argsort(outcomes[candidates], kind="stable")]


def _tail(
    outcomes: Floats,
    order: NDArray[np.intp],
    level: float,
    cut: _Cut,
    convention: str,
    probability: Floats | None,
) -> Tail:
    if convention not in CONVENTIONS:
        raise InvalidInput("convention", f"must be one of {CONVENTIONS}, got {convention!r}")
    if probability is not None:
        index, weight, var = _weighted_tail(outcomes, order, cut, convention, probability)
    elif convention == "exact_tail":
        index, weight, var = _exact_tail(outcomes, order, cut.k)
    else:
        index, weight, var = _discrete_tail(outcomes, order, cut.k)
    warnings: tuple[str, ...] = ()
    if cut.k < THIN_TAIL:
        warnings = (
            f"Only {cut.k:.4g} outcomes lie in the tail at level {level}: the expected shortfall rests on "
            f"few scenarios, use at least {THIN_TAIL / cut.mass:.0f}.",
        )
    es = -float(np.dot(weight, outcomes[index]))
    return Tail(level=float(level), index=index, weight=weight, var=var, es=es, warnings=warnings)


_Cutting = tuple[NDArray[np.intp], Floats, float]


def _exact_tail(outcomes: Floats, order: NDArray[np.intp], k: float) -> _Cutting:
    whole = int(np.floor(k))
    fraction = k - whole
    if fraction == 0.0:
        return order[:whole], np.full(whole, 1.0 / k), -float(outcomes[order[whole - 1]])
    weight = np.full(whole + 1, 1.0 / k)
    weight[whole] = fraction / k
    return order[: whole + 1], weight, -float(outcomes[order[whole]])


def _discrete_tail(outcomes: Floats, order: NDArray[np.intp], k: float) -> _Cutting:
    last = outcomes[order[int(np.ceil(k)) - 1]]
    count = int(np.searchsorted(outcomes[order], last, side="right"))
    return order[:count], np.full(count, 1.0 / count), -float(last)


def _weighted_tail(
    outcomes: Floats, order: NDArray[np.intp], cut: _Cut, convention: str, probability: Floats
) -> _Cutting:
    ordered = probability[order]
    cumulative = np.cumsum(ordered)
    # The same rule as for k: a cumulative probability that equals the tail's up to rounding closes the tail.
    slack = INTEGER_TOLERANCE / len(outcomes)
    closing = int(np.searchsorted(cumulative, cut.mass - slack, side="left"))
    closing = min(closing, len(outcomes) - 1)
    if convention == "discrete":
        last = outcomes[order[closing]]
        count = int(np.searchsorted(outcomes[order], last, side="right"))
        weight = ordered[:count] / ordered[:count].sum()
        return order[:count], weight, -float(last)
    weight = ordered[: closing + 1] / cut.mass
    before = float(cumulative[closing - 1]) if closing else 0.0
    weight[closing] = (cut.mass - before) / cut.mass
    return order[: closing + 1], weight, -float(outcomes[order[closing]])


def _std_error(outcomes: Floats, tail: Tail, mass: float, probability: Floats | None) -> float:
    """Standard error of ES from its influence function (L − VaR)⁺/(1−level) + VaR − ES."""
    rest = tail.var - tail.es
    influence = np.maximum(-outcomes[tail.index] - tail.var, 0.0) / mass + rest
    # Outcomes outside the tail all have the same influence.
    if probability is None:
        others = (len(outcomes) - len(tail.index)) * rest * rest
        return float(np.sqrt(np.square(influence).sum() + others) / len(outcomes))
    inside = probability[tail.index]
    others = max(float(np.square(probability).sum() - np.square(inside).sum()), 0.0) * rest * rest
    return float(np.sqrt(np.square(inside * influence).sum() + others))


def _bootstrap_interval(
    outcomes: Floats, cut: _Cut, convention: str, resamples: int, confidence: float, seed: int
) -> tuple[float, float]:
    """Percentile interval of ES over resamples; only the counts of the worst outcomes are drawn."""
    count = len(outcomes)
    reach = min(count, int(np.ceil(cut.k + 12.0 * np.sqrt(cut.k) + 30.0)))
    worst = np.sort(np.partition(outcomes, reach - 1)[:reach])
    cells = np.full(reach + 1, 1.0 / count)
    cells[reach] = max(0.0, (count - reach) / count)
    generator = np.random.Generator(np.random.Philox(seed))
    shortfalls = np.empty(resamples)
    for row in range(resamples):
        drawn = generator.multinomial(count, cells)[:reach]
        cumulative = np.cumsum(drawn)
        if convention == "discrete":
            closing = int(np.searchsorted(cumulative, np.ceil(cut.k), side="left"))
            taken = np.where(worst <= worst[min(closing, reach - 1)], drawn, 0).astype(np.float64)
            shortfalls[row] = -np.dot(taken, worst) / taken.sum()
        else:
            taken = np.clip(cut.k - (cumulative - drawn), 0.0, drawn)
            shortfalls[row] = -np.dot(taken, worst) / taken.sum()
    low, high = np.quantile(shortfalls, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    return float(low), float(high)


def _checked_outcomes(pnl: ArrayLike) -> Floats:
    outcomes = np.asarray(pnl)
    if outcomes.dtype.kind not in "fiu":
        raise InvalidInput("pnl", f"must hold real numbers, got dtype {outcomes.dtype}")
    if outcomes.ndim != 1:
        raise InvalidInput("pnl", f"must have one dimension (scenarios), got shape {outcomes.shape}")
    outcomes = outcomes.astype(np.float64, copy=False)
    bad = np.flatnonzero(~np.isfinite(outcomes))
    if bad.size:
        raise InvalidInput("pnl", f"is {outcomes[bad[0]]}", int(bad[0]))
    return outcomes


def _checked_weights(weights: ArrayLike | None, count: int) -> Floats | None:
    if weights is None:
        return None
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (count,):
        raise InvalidInput("weights", f"must have shape ({count},), got {values.shape}")
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0.0)))
    if bad.size:
        raise InvalidInput("weights", f"must be finite and not negative, got {values[bad[0]]}", int(bad[0]))
    total = float(values.sum())
    if total <= 0.0:
        raise InvalidInput("weights", "sum to zero")
    return values / total


def _checked_bootstrap(bootstrap: int, confidence: float, weighted: bool) -> None:
    if bootstrap < 0:
        raise InvalidInput("bootstrap", f"must not be negative, got {bootstrap}")
    if not 0.0 < confidence < 1.0:
        raise InvalidInput("confidence", f"must lie strictly between 0 and 1, got {confidence}")
    if bootstrap and weighted:
        raise InvalidInput("bootstrap", "resamples equally likely outcomes: leave weights out")
