"""Monte Carlo as a request describes it: the law of the returns, and what is drawn from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.simulated_scenarios import Distribution, Sampler, simulate_scenarios
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_service.api.book_requests import within
from risk_service.price_history import BUSINESS_DAYS_PER_YEAR, NoHistory, PriceHistory
from service_kit.errors import InvalidRequest, PreconditionFailed

Floats = NDArray[np.float64]
Made = TypeVar("Made")

SCENARIOS_DEFAULT = 4_096
DEGREES_OF_FREEDOM_DEFAULT = 5.0
JUMPS_PER_YEAR_DEFAULT, JUMP_SHARE_DEFAULT = 4.0, 0.5
ONE_DAY = 1.0 / BUSINESS_DAYS_PER_YEAR
# To draw one number, that of one underlying in one scenario, takes about as long as this many revaluations.
DRAWN_COST = 40

_DISTRIBUTIONS = ("normal", "student_t", "jump")
_SAMPLERS = ("sobol", "philox")
# The kernels' names of what the request calls otherwise.
_NAMES = {
    "n": "monte_carlo.scenarios",
    "dof": "monte_carlo.degrees_of_freedom",
    "cov": "monte_carlo.covariance",
}


class Covariance(NamedTuple):
    """Per year, and where it comes from in words."""

    matrix: Floats
    words: str


def draw(
    asked: wire.MonteCarloScenarios,
    underlyings: tuple[str, ...],
    history: PriceHistory | None,
    days: int,
    exposure: Callable[[], Floats],
    did: Callable[[int], object],
) -> tuple[gk.Scenarios, str]:
    """The scenarios, and what they are in words; `exposure` is what the book gains per unit of return.

    `did` is told, as they are drawn, how many revaluations would have taken as long; what it raises ends it.
    """
    names = "monte_carlo.distribution", "monte_carlo.sampler"
    distribution = cast(Distribution, named(asked.distribution, _DISTRIBUTIONS, names[0]))
    sampler = cast(Sampler, named(asked.sampler, _SAMPLERS, names[1]))
    count, rows = asked.scenarios or SCENARIOS_DEFAULT, len(underlyings)
    covariance = _covariance(asked, underlyings, history, days)
    intensity = asked.jump_intensity if asked.HasField("jump_intensity") else JUMPS_PER_YEAR_DEFAULT
    with within("monte_carlo", _NAMES):
        scenarios = simulate_scenarios(
            count,
            mean=per_underlying(asked, "mean", rows),
            cov=covariance.matrix,
            seed=asked.seed,
            horizon=asked.horizon or ONE_DAY,
            distribution=distribution,
            dof=asked.degrees_of_freedom or DEGREES_OF_FREEDOM_DEFAULT,
            vol_beta=per_underlying(asked, "vol_beta", rows),
            sampler=sampler,
            exposure=exposure() if asked.along_book else None,
            jump_intensity=intensity,
            jump_mean=per_underlying(asked, "jump_mean", rows),
            jump_share=asked.jump_share if asked.HasField("jump_share") else JUMP_SHARE_DEFAULT,
            drawn=lambda scenarios: did(scenarios * rows * DRAWN_COST),
        )
    along = " along the book" if asked.along_book else ""
    words = f"{count} Monte Carlo scenarios{along}, {distribution}, {sampler}, seed {asked.seed}, "
    return scenarios, "; ".join((words + covariance.words, *scenarios.notes))


def _covariance(
    asked: wire.MonteCarloScenarios, underlyings: tuple[str, ...], history: PriceHistory | None, days: int
) -> Covariance:
    if asked.HasField("covariance"):
        for field in ("window_days", "shrinkage"):
            if field in {one.name for one, _ in asked.ListFields()}:
                raise InvalidRequest(f"monte_carlo.{field}", "is of the history's covariance; one is given")
    shrinkage = asked.shrinkage if asked.HasField("shrinkage") else None
    window = asked.window_days or days
    return covariance_of(asked, underlyings, history, window, "monte_carlo", shrinkage)


def covariance_of(
    asked: wire.MonteCarloScenarios | wire.ReverseStress | wire.KellySizing,
    underlyings: tuple[str, ...],
    history: PriceHistory | None,
    days: int,
    prefix: str,
    shrinkage: float | None = None,
) -> Covariance:
    """The one that the request gives, or that of so many days of history."""
    if asked.HasField("covariance"):
        given = matrix_of(asked.covariance, f"{prefix}.covariance")
        if given.shape != (len(underlyings),) * 2:
            raise InvalidRequest(
                f"{prefix}.covariance",
                f"is {given.shape[0]} × {given.shape[1]}, the book has {len(underlyings)} underlyings",
            )
        return Covariance(given, "covariance as given")
    past = loaded(history)
    with within(prefix):
        estimate = from_history(lambda: past.covariance(underlyings, days, shrinkage))
    return Covariance(
        estimate.cov, f"covariance of {min(days, past.days)} d shrunk by {estimate.shrinkage:.3g}"
    )


def per_underlying(message: Message, field: str, underlyings: int) -> Floats:
    """A column with one entry per underlying, one for all, or none for 0."""
    try:
        column: Floats = packing.column(message, field, underlyings, 0.0)
    except packing.PackingError as fault:
        given = len(getattr(message, field))
        raise InvalidRequest(field, f"has {given} entries; the book has {underlyings} underlyings") from fault
    return column


def matrix_of(message: wire.Matrix, field: str) -> Floats:
    """A matrix as an array of its shape."""
    values: Floats = packing.read(message, "values")
    if message.rows * message.columns != len(values):
        raise InvalidRequest(
            f"{field}.values", f"has {len(values)} entries, not {message.rows} × {message.columns}"
        )
    return values.reshape(message.rows, message.columns)


def named(number: int, names: tuple[str, ...], field: str) -> str:
    """The word for an enum's number."""
    if not 0 <= number < len(names):
        raise InvalidRequest(field, f"{number} is none of {', '.join(names)}")
    return names[number]


def loaded(history: PriceHistory | None) -> PriceHistory:
    """The history; refused where the service has none."""
    if history is None:
        raise PreconditionFailed("no price history is loaded: the setting risk.history names its file")
    return history


def from_history(make: Callable[[], Made]) -> Made:
    """What `make` makes of the history; an underlying without one is refused."""
    try:
        return make()
    except NoHistory as fault:
        raise PreconditionFailed(str(fault)) from fault
