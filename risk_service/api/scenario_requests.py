"""Scenarios as a request describes them: history, Monte Carlo, given columns, named events."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_service.api import monte_carlo_requests
from risk_service.api.book_requests import within
from risk_service.api.monte_carlo_requests import SCENARIOS_DEFAULT, from_history, loaded, matrix_of, named
from risk_service.on_demand.stress import ReverseQuestion
from risk_service.price_history import PriceHistory, Weighting
from service_kit.errors import InvalidRequest, TooLarge

DEVIATIONS_DEFAULT = 12.0
NAME_LENGTH_MAX = 200  # characters: each comes back in the answer

Floats = NDArray[np.float64]
TailRequest = wire.ExpectedShortfallRequest | wire.HedgeRequest | wire.WhatIfRequest

_WEIGHTINGS = ("plain", "age", "filtered_ewma", "filtered_garch")


@dataclass(frozen=True, slots=True)
class ScenarioReader:
    """Reads what requests say of scenarios, over the history that the service has loaded."""

    history: PriceHistory | None
    days: int  # of history that covariances and the live numbers are taken from
    values_max: int  # scenarios × underlyings

    def of(
        self,
        request: TailRequest,
        underlyings: tuple[str, ...],
        exposure: Callable[[], Floats],
        did: Callable[[int], object],
    ) -> tuple[gk.Scenarios, str]:
        """The scenarios of a request for tail risk, and what they are in words.

        `exposure` is what the book gains per unit of each underlying's return; `did` as `PatientEngine.did`.
        """
        which = request.WhichOneof("scenarios")
        if which is None:
            raise InvalidRequest("scenarios", "is missing: one of historical, monte_carlo and custom")
        expect_underlyings(underlyings)
        if which == "historical":
            return self.historical(request.historical, underlyings)
        if which == "monte_carlo":
            asked = request.monte_carlo
            self.expect_room("monte_carlo.scenarios", asked.scenarios or SCENARIOS_DEFAULT, underlyings)
            return monte_carlo_requests.draw(asked, underlyings, self.history, self.days, exposure, did)
        scenarios = self.given(request.custom, underlyings, "custom")
        return scenarios, f"{len(scenarios)} given scenarios"

    def historical(
        self, asked: wire.HistoricalScenarios, underlyings: tuple[str, ...]
    ) -> tuple[gk.Scenarios, str]:
        """Past days over again."""
        history = loaded(self.history)
        weighting = cast(Weighting, named(asked.weighting, _WEIGHTINGS, "historical.weighting"))
        days = min(asked.window_days or self.days, history.days)
        horizon = asked.horizon_days or 1
        if horizon > days:
            raise InvalidRequest("historical.horizon_days", f"{horizon} days do not fit into {days} days")
        self.expect_room("historical.window_days", days, underlyings)
        with within("historical"):
            scenarios = from_history(
                lambda: history.scenarios(
                    underlyings,
                    days,
                    horizon_days=horizon,
                    weighting=weighting,
                    decay=asked.decay or None,
                )
            )
        return scenarios, f"{len(scenarios)} historical scenarios of {horizon} d, {weighting}"

    def cut_short(self, asked: wire.HistoricalScenarios) -> list[str]:
        """Says so where fewer days are taken than were asked for."""
        there = 0 if self.history is None else self.history.days
        if not 0 < there < asked.window_days:
            return []
        return [f"historical.window_days: of {asked.window_days} days the history has {there}"]

    def of_or_live(
        self,
        request: TailRequest,
        underlyings: tuple[str, ...],
        exposure: Callable[[], Floats],
        did: Callable[[int], object],
    ) -> tuple[gk.Scenarios, str]:
        """As `of`; without any asked for, those of the live numbers."""
        if request.WhichOneof("scenarios") is None:
            return self.live(underlyings)
        return self.of(request, underlyings, exposure, did)

    def live(self, underlyings: tuple[str, ...]) -> tuple[gk.Scenarios, str]:
        """The historical scenarios that the live numbers are made with."""
        expect_underlyings(underlyings)
        return self.historical(wire.HistoricalScenarios(window_days=self.days), underlyings)

    def is_live(self, request: TailRequest) -> bool:
        """Whether a request asks for the very scenarios that the live numbers are made with."""
        asked = request.historical
        return (
            self.history is not None
            and request.WhichOneof("scenarios") == "historical"
            and asked.weighting == wire.HistoricalScenarios.WEIGHTING_PLAIN
            and (asked.horizon_days or 1) == 1
            and min(asked.window_days or self.days, self.history.days) == min(self.days, self.history.days)
        )

    def past_days(self, asked: wire.HistoricalScenarios) -> int:
        """How many scenarios the history gives, at most."""
        history = 0 if self.history is None else self.history.days
        return min(asked.window_days or self.days, history)

    def reverse(self, asked: wire.ReverseStress, underlyings: tuple[str, ...]) -> ReverseQuestion:
        """What a reverse stress is asked for, over the law of the history where none is given."""
        cov = monte_carlo_requests.covariance_of(asked, underlyings, self.history, self.days, "reverse")
        with within("reverse"):
            vol_beta = monte_carlo_requests.per_underlying(asked, "vol_beta", len(underlyings))
        return ReverseQuestion(
            loss=asked.loss,
            cov=cov.matrix,
            horizon=asked.horizon or monte_carlo_requests.ONE_DAY,
            vol_beta=vol_beta,
            deviations_max=asked.deviations_max or DEVIATIONS_DEFAULT,
        )

    def given(self, columns: wire.ScenarioColumns, underlyings: tuple[str, ...], field: str) -> gk.Scenarios:
        """Scenarios that the request spells out."""
        count = len(underlyings)
        returns = matrix_of(columns.spot_return, f"{field}.spot_return")
        if returns.shape[1] != count:
            raise InvalidRequest(
                f"{field}.spot_return.columns", f"is {returns.shape[1]}, the book has {count} underlyings"
            )
        if not len(returns):
            raise InvalidRequest(f"{field}.spot_return", "has no scenarios")
        self.expect_room(f"{field}.spot_return.rows", len(returns), underlyings)
        if columns.name and len(columns.name) != len(returns):
            raise InvalidRequest(
                f"{field}.name", f"has {len(columns.name)} entries for {len(returns)} scenarios"
            )
        for row, name in enumerate(columns.name):
            expect_short(f"{field}.name", name, row)
        change = columns.HasField("vol_change")
        vols = matrix_of(columns.vol_change, f"{field}.vol_change") if change else np.zeros((len(returns), 1))
        with within(field, {"weights": f"{field}.weight"}):
            return gk.Scenarios(
                spot_return=returns,
                vol_change=vols,
                rate_change=_per_scenario(columns, "rate_change", len(returns)),
                elapsed=_per_scenario(columns, "elapsed", len(returns)),
                vol_shock_surface=_surface(columns, len(returns), count),
                weights=_per_scenario(columns, "weight", len(returns)) if columns.weight else None,
                names=tuple(columns.name) or [f"scenario {row}" for row in range(len(returns))],
            )

    def expect_room(self, field: str, scenarios: int, underlyings: tuple[str, ...]) -> None:
        """Refuses more scenarios than one request may have."""
        if scenarios * len(underlyings) > self.values_max:
            raise TooLarge(
                f"{field}: {scenarios} scenarios of {len(underlyings)} underlyings are more than the "
                f"{self.values_max} numbers of one request"
            )


def expect_short(field: str, name: str, row: int) -> None:
    """Refuses the name of a scenario that would fill the answer."""
    if len(name) > NAME_LENGTH_MAX:
        raise InvalidRequest(field, f"has {len(name)} characters, more than {NAME_LENGTH_MAX}", row)


def expect_underlyings(underlyings: tuple[str, ...]) -> None:
    """Refuses a book without underlyings: nothing can happen to it."""
    if not underlyings:
        raise InvalidRequest("portfolio", "has no underlyings, so there are no scenarios of it")


def _per_scenario(columns: wire.ScenarioColumns, name: str, rows: int) -> Floats:
    try:
        values: Floats = packing.column(columns, name, rows)
    except packing.PackingError as fault:
        given = len(getattr(columns, name))
        raise InvalidRequest(name, f"has {given} entries for {rows} scenarios") from fault
    return values


def _surface(columns: wire.ScenarioColumns, rows: int, underlyings: int) -> gk.VolShockSurface | None:
    if not columns.HasField("vol_shock_surface"):
        return None
    message = columns.vol_shock_surface
    moneyness, tenor = packing.read(message, "log_moneyness"), packing.read(message, "tenor")
    shock = packing.read(message, "shock")
    grid = ((underlyings if message.by_underlying else 1), len(moneyness), len(tenor))
    each = math.prod(grid)
    if not each or len(shock) not in (each, each * rows):
        raise InvalidRequest(
            "vol_shock_surface.shock",
            f"has {len(shock)} entries, not {' × '.join(map(str, grid))} for one or for {rows} scenarios",
        )
    return gk.VolShockSurface.of(log_moneyness=moneyness, tenor=tenor, shock=shock.reshape(-1, *grid))
