"""What a hedge is asked for: instruments, budget, and what each objective reads."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_service.api import book_requests, monte_carlo_requests
from risk_service.api.scenario_requests import ScenarioReader
from risk_service.on_demand import hedging
from risk_service.on_demand.books import ValuedBook, book_at
from risk_service.on_demand.sizing import KellyQuestion
from service_kit.errors import InvalidRequest

# Whole lots are found by trying single ones and pairs: with more instruments that takes too long.
INSTRUMENTS_MAX = 50
PLAN_REACH_MAX = 0.9
KELLY_FRACTION_DEFAULT = 0.5
# A covariance sent with few digits may have an eigenvalue as little below 0, as a part of the largest.
COVARIANCE_ROUNDING = 1e-9

Objective = wire.HedgeRequest


def instruments_of(
    engine: gk.Engine, request: wire.HedgeRequest, book: ValuedBook, budget: float
) -> hedging.Instruments:
    """What may be traded; for a delta hedge without any said, the underlyings themselves."""
    held = book.held
    if request.objective == Objective.OBJECTIVE_DELTA and not request.instruments.symbol:
        asked = book_requests.spot_positions(held)
    else:
        asked = book_requests.read_positions(request.instruments, held, "instruments")
    if len(asked) > INSTRUMENTS_MAX:
        raise InvalidRequest("instruments", f"{len(asked)} are more than {INSTRUMENTS_MAX}")
    at = book_at(engine, book.market, book.snapshot_id, asked)
    book_requests.expect_valued(at, "instruments")
    instruments = hedging.Instruments(
        book=at,
        lot_size=book_requests.read_per_row(request, "lot_size", len(asked), 1.0),
        cost_per_lot=book_requests.read_per_row(request, "cost_per_lot", len(asked), 0.0),
        cost_rate=book_requests.read_per_row(request, "cost_rate", len(asked), 0.0),
        budget=budget,
    )
    instruments.check()
    return instruments


def expect_what_the_objective_reads(request: wire.HedgeRequest) -> None:
    """What the objective would pass over is refused, so that nobody thinks it was heeded."""
    tail_asked = request.objective == Objective.OBJECTIVE_MIN_EXPECTED_SHORTFALL
    if not 0.0 <= request.level < 1.0:
        raise InvalidRequest("level", f"must lie strictly between 0 and 1, got {request.level}")
    if not (math.isfinite(request.risk_aversion) and request.risk_aversion >= 0.0):
        raise InvalidRequest("risk_aversion", f"must not be negative, got {request.risk_aversion}")
    if not tail_asked and (request.level or request.WhichOneof("scenarios")):
        field = "level" if request.level else str(request.WhichOneof("scenarios"))
        raise InvalidRequest(field, "is of the least expected shortfall alone")
    if request.objective != Objective.OBJECTIVE_DELTA:
        for field in ("risk_aversion", "cost_rate", "plan_reach"):
            if getattr(request, field):
                raise InvalidRequest(field, "is of a delta hedge alone")
    if not 0.0 <= request.plan_reach <= PLAN_REACH_MAX:
        raise InvalidRequest("plan_reach", f"must be 0 to {PLAN_REACH_MAX:g}, got {request.plan_reach}")
    if request.HasField("kelly") != (request.objective == Objective.OBJECTIVE_KELLY):
        why = "is of OBJECTIVE_KELLY alone" if request.HasField("kelly") else "is missing"
        raise InvalidRequest("kelly", why)


def budget_of(request: wire.HedgeRequest) -> float:
    """What the trades may cost, in currency; infinite where nothing is said."""
    if not request.budget >= 0.0:
        raise InvalidRequest("budget", f"must not be negative, got {request.budget}")
    return request.budget or math.inf


def kelly_of(
    request: wire.HedgeRequest, instruments: hedging.Instruments, scenarios: ScenarioReader
) -> KellyQuestion:
    """Returns, covariance and bounds of the instruments, in their order."""
    asked, held = request.kelly, instruments.book.held
    expected: NDArray[np.float64] = packing.read(asked, "expected_return")
    if len(expected) != len(held):
        raise InvalidRequest(
            "kelly.expected_return", f"has {len(expected)} entries for {len(held)} instruments"
        )
    bad = np.flatnonzero(~np.isfinite(expected))
    if bad.size:
        raise InvalidRequest("kelly.expected_return", f"is {expected[bad[0]]}", int(bad[0]))
    for field in ("capital", "fraction", "leverage"):
        value = getattr(asked, field)
        if not (math.isfinite(value) and value >= 0.0) or (field == "capital" and not value):
            raise InvalidRequest(f"kelly.{field}", f"must be above 0, got {value}")
    cov = monte_carlo_requests.covariance_of(
        asked, held.underlyings, scenarios.history, scenarios.days, "kelly"
    )
    place = held.underlying_index
    least, most = np.linalg.eigvalsh(cov.matrix)[[0, -1]] if np.isfinite(cov.matrix).all() else (0.0, 0.0)
    if least < -COVARIANCE_ROUNDING * most:
        raise InvalidRequest("kelly.covariance", f"is that of no returns: it has the eigenvalue {least:g}")
    return KellyQuestion(
        mean=expected,
        cov=cov.matrix[np.ix_(place, place)],
        words=cov.words,
        capital=asked.capital,
        fraction=asked.fraction or KELLY_FRACTION_DEFAULT,
        leverage=asked.leverage or math.inf,
    )
