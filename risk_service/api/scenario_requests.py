"""Scenarios as a request describes them: history, Monte Carlo, given columns, named events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.simulated_scenarios import Distribution, Sampler, simulate_scenarios
from gpu_kernels.stress_library import EVENTS, stress_scenarios
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_service.api.book_requests import within
from risk_service.price_history import BUSINESS_DAYS_PER_YEAR, NoHistory, PriceHistory, Weighting
from service_kit.errors import InvalidRequest, PreconditionFailed, TooLarge

SCENARIOS_DEFAULT = 4_096
DEGREES_OF_FREEDOM_DEFAULT = 5.0
EVENTS_NAMED_MAX = 1_000

Made = TypeVar("Made")

_WEIGHTINGS = ("plain", "age", "filtered_ewma", "filtered_garch")
_DISTRIBUTIONS = ("normal", "student_t", "jump")
_SAMPLERS = ("sobol", "philox")


@dataclass(frozen=True, slots=True)
class ScenarioReader:
    """Reads what requests say of scenarios, over the history that the service has loaded."""

    history: PriceHistory | None
    days: int  # of history that covariances and the live numbers are taken from
    values_max: int  # scenarios × underlyings

    def of(
        self, request: wire.ExpectedShortfallRequest, underlyings: tuple[str, ...]
    ) -> tuple[gk.Scenarios, str]:
        """The scenarios of a request for tail risk, and what they are in words."""
        which = request.WhichOneof("scenarios")
        if which is None:
            raise InvalidRequest("scenarios", "is missing: one of historical, monte_carlo and custom")
        _expect_underlyings(underlyings)
        if which == "historical":
            return self.historical(request.historical, underlyings)
        if which == "monte_carlo":
            return self.monte_carlo(request.monte_carlo, underlyings)
        scenarios = self.given(request.custom, underlyings, "custom")
        return scenarios, f"{len(scenarios)} given scenarios"

    def historical(
        self, asked: wire.HistoricalScenarios, underlyings: tuple[str, ...]
    ) -> tuple[gk.Scenarios, str]:
        """Past days over again."""
        history = self._loaded()
        weighting = cast(Weighting, _named(asked.weighting, _WEIGHTINGS, "historical.weighting"))
        days = min(asked.window_days or history.days, history.days)
        horizon = asked.horizon_days or 1
        if horizon > days:
            raise InvalidRequest("historical.horizon_days", f"{horizon} days do not fit into {days} days")
        self._expect_room("historical.window_days", days, underlyings)
        with within("historical"):
            scenarios = _from_history(
                lambda: history.scenarios(
                    underlyings,
                    days,
                    horizon_days=horizon,
                    weighting=weighting,
                    decay=asked.decay or None,
                )
            )
        return scenarios, f"{len(scenarios)} historical scenarios of {horizon} d, {weighting}"

    def live(self, underlyings: tuple[str, ...]) -> tuple[gk.Scenarios, str]:
        """The historical scenarios that the live numbers are made with."""
        _expect_underlyings(underlyings)
        return self.historical(wire.HistoricalScenarios(window_days=self.days), underlyings)

    def is_live(self, request: wire.ExpectedShortfallRequest) -> bool:
        """Whether a request asks for the very scenarios that the live numbers are made with."""
        asked = request.historical
        return (
            self.history is not None
            and request.WhichOneof("scenarios") == "historical"
            and asked.weighting == wire.HistoricalScenarios.WEIGHTING_PLAIN
            and (asked.horizon_days or 1) == 1
            and min(asked.window_days or self.history.days, self.history.days)
            == min(self.days, self.history.days)
        )

    def monte_carlo(
        self, asked: wire.MonteCarloScenarios, underlyings: tuple[str, ...]
    ) -> tuple[gk.Scenarios, str]:
        """Draws with the covariance of the loaded history and no drift, which no history tells well."""
        history = self._loaded()
        names = "monte_carlo.distribution", "monte_carlo.sampler"
        distribution = cast(Distribution, _named(asked.distribution, _DISTRIBUTIONS, names[0]))
        sampler = cast(Sampler, _named(asked.sampler, _SAMPLERS, names[1]))
        count = asked.scenarios or SCENARIOS_DEFAULT
        self._expect_room("monte_carlo.scenarios", count, underlyings)
        estimate = _from_history(lambda: history.covariance(underlyings, self.days))
        with within("monte_carlo", {"n": "monte_carlo.scenarios", "dof": "monte_carlo.degrees_of_freedom"}):
            scenarios = simulate_scenarios(
                count,
                mean=0.0,
                cov=estimate.cov,
                seed=asked.seed,
                horizon=asked.horizon or 1.0 / BUSINESS_DAYS_PER_YEAR,
                distribution=distribution,
                dof=asked.degrees_of_freedom or DEGREES_OF_FREEDOM_DEFAULT,
                vol_beta=asked.vol_beta,
                sampler=sampler,
            )
        words = f"{count} Monte Carlo scenarios, {distribution}, {sampler}, seed {asked.seed}, covariance of "
        words += f"{min(self.days, history.days)} d shrunk by {estimate.shrinkage:.3g}"
        return scenarios, "; ".join((words, *scenarios.notes))

    def stresses(
        self, request: wire.StressTestRequest, underlyings: tuple[str, ...]
    ) -> tuple[gk.Scenarios, str]:
        """Given scenarios, then named events."""
        _expect_underlyings(underlyings)
        parts = []
        if request.HasField("scenarios"):
            parts.append(self.given(request.scenarios, underlyings, "scenarios"))
        if request.named:
            parts.append(_events(request.named, len(underlyings)))
        if not parts:
            raise InvalidRequest("scenarios", "is missing, and so is named")
        scenarios = gk.Scenarios.stacked(parts)
        return scenarios, "; ".join((f"{len(scenarios)} scenarios", *scenarios.notes))

    def given(self, columns: wire.ScenarioColumns, underlyings: tuple[str, ...], field: str) -> gk.Scenarios:
        """Scenarios that the request spells out."""
        count = len(underlyings)
        returns = _matrix(columns.spot_return, f"{field}.spot_return")
        if returns.shape[1] != count:
            raise InvalidRequest(
                f"{field}.spot_return.columns", f"is {returns.shape[1]}, the book has {count} underlyings"
            )
        if not len(returns):
            raise InvalidRequest(f"{field}.spot_return", "has no scenarios")
        self._expect_room(f"{field}.spot_return.rows", len(returns), underlyings)
        if columns.name and len(columns.name) != len(returns):
            raise InvalidRequest(
                f"{field}.name", f"has {len(columns.name)} entries for {len(returns)} scenarios"
            )
        change = columns.HasField("vol_change")
        vols = _matrix(columns.vol_change, f"{field}.vol_change") if change else np.zeros((len(returns), 1))
        rates = _rates(columns, len(returns), field)
        with within(field):
            return gk.Scenarios(
                spot_return=returns,
                vol_change=vols,
                rate_change=rates,
                elapsed=columns.elapsed,
                names=tuple(columns.name) or [f"scenario {row}" for row in range(len(returns))],
            )

    def _loaded(self) -> PriceHistory:
        if self.history is None:
            raise PreconditionFailed("no price history is loaded: the setting risk.history names its file")
        return self.history

    def _expect_room(self, field: str, scenarios: int, underlyings: tuple[str, ...]) -> None:
        if scenarios * len(underlyings) > self.values_max:
            raise TooLarge(
                f"{field}: {scenarios} scenarios of {len(underlyings)} underlyings are more than the "
                f"{self.values_max} numbers of one request"
            )


def _events(names: Sequence[str], underlyings: int) -> gk.Scenarios:
    known = {event.name for event in EVENTS}
    for row, name in enumerate(names):
        if name not in known:
            raise InvalidRequest("named", f"{name!r} is unknown; there are {', '.join(sorted(known))}", row)
    if len(names) > EVENTS_NAMED_MAX:
        raise InvalidRequest("named", f"{len(names)} events are more than {EVENTS_NAMED_MAX}")
    return stress_scenarios(list(names), underlyings)


def _from_history(make: Callable[[], Made]) -> Made:
    try:
        return make()
    except NoHistory as fault:
        raise PreconditionFailed(str(fault)) from fault


def _expect_underlyings(underlyings: tuple[str, ...]) -> None:
    if not underlyings:
        raise InvalidRequest("portfolio", "has no underlyings, so there are no scenarios of it")


def _matrix(message: wire.Matrix, field: str) -> NDArray[np.float64]:
    values = packing.read(message, "values")
    if message.rows * message.columns != len(values):
        raise InvalidRequest(
            f"{field}.values", f"has {len(values)} entries, not {message.rows} × {message.columns}"
        )
    matrix: NDArray[np.float64] = values.reshape(message.rows, message.columns)
    return matrix


def _rates(columns: wire.ScenarioColumns, rows: int, field: str) -> NDArray[np.float64]:
    try:
        rates: NDArray[np.float64] = packing.column(columns, "rate_change", rows)
    except packing.PackingError as fault:
        raise InvalidRequest(f"{field}.rate_change", f"has {len(columns.rate_change)} entries") from fault
    return rates


def _named(number: int, names: tuple[str, ...], field: str) -> str:
    if not 0 <= number < len(names):
        raise InvalidRequest(field, f"{number} is none of {', '.join(names)}")
    return names[number]
