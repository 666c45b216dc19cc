"""What a request asks of a tail: levels, convention, intervals, liquidity horizons, the stressed period."""

from __future__ import annotations

import numpy as np

from gpu_kernels.basel import LIQUIDITY_HORIZONS
from protos.risk.v1 import risk_pb2 as wire
from risk_service.api import risk_answers
from risk_service.api.book_requests import within
from risk_service.api.monte_carlo_requests import Floats, per_underlying
from risk_service.on_demand.liquidity import Horizons
from risk_service.on_demand.tail import CONFIDENCE_DEFAULT, TailQuestion
from service_kit.errors import InvalidRequest

LEVEL_DEFAULT = 0.975
LEVELS_MAX = 100
BOOTSTRAP_MAX = 100_000


def read_tail(request: wire.ExpectedShortfallRequest, underlyings: int) -> TailQuestion:
    """Checks it all; the book has so many underlyings."""
    if request.bootstrap > BOOTSTRAP_MAX:
        raise InvalidRequest("bootstrap", f"{request.bootstrap} resamples are more than {BOOTSTRAP_MAX}")
    if not 0.0 <= request.confidence < 1.0:
        raise InvalidRequest("confidence", f"must lie between 0 and 1, got {request.confidence}")
    return TailQuestion(
        levels=_levels(request),
        convention=risk_answers.convention(request.convention),
        components=request.with_components,
        bootstrap=request.bootstrap,
        confidence=request.confidence or CONFIDENCE_DEFAULT,
        horizons=_horizons(request, underlyings),
        stressed_window=request.stressed_window,
    )


def _levels(request: wire.ExpectedShortfallRequest) -> list[float]:
    if len(request.levels) > LEVELS_MAX:
        raise InvalidRequest("levels", f"{len(request.levels)} levels are more than {LEVELS_MAX}")
    for row, level in enumerate(request.levels):
        if not 0.0 < level < 1.0:
            raise InvalidRequest("levels", f"must lie strictly between 0 and 1, got {level}", row)
    return list(request.levels) or [LEVEL_DEFAULT]


def _horizons(request: wire.ExpectedShortfallRequest, underlyings: int) -> Horizons | None:
    if not request.HasField("liquidity_horizons"):
        return None
    if not underlyings:
        raise InvalidRequest("portfolio", "has no underlyings, so there are no horizons of them")
    message = request.liquidity_horizons
    with within("liquidity_horizons"):
        if not message.spot_days:
            raise InvalidRequest("spot_days", "is missing")
        spot = _days(message, "spot_days", underlyings)
        return Horizons(spot, _days(message, "vol_days", underlyings) if message.vol_days else spot)


def _days(message: wire.LiquidityHorizons, field: str, underlyings: int) -> Floats:
    days = per_underlying(message, field, underlyings)
    bad = np.flatnonzero(~np.isin(days, LIQUIDITY_HORIZONS))
    if bad.size:
        known = ", ".join(f"{one:g}" for one in LIQUIDITY_HORIZONS)
        row = int(bad[0])
        raise InvalidRequest(field, f"{days[row]:g} days are none of {known}", row)
    return days
