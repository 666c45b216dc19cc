"""What a stress test is asked for: spelled out, by name, as shocks and grids in few words, or as history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.stress_library import EVENTS, ladder, shock_scenario, stress_scenarios
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_service.api.scenario_requests import ScenarioReader, expect_short, expect_underlyings
from service_kit.errors import InvalidRequest, TooLarge

# Each has a name in the answer, which costs more than its number.
DESCRIBED_MAX = 100_000
EVENTS_NAMED_MAX = 1_000
VOL_CHANGE_MAX = 10.0  # absolute: 1,000 points of vol
BETA_MAX = 100.0

Floats = NDArray[np.float64]


def count(request: wire.StressTestRequest, reader: ScenarioReader) -> int:
    """How many scenarios the request asks for."""
    grids = sum(len(one.spot) * max(1, len(one.vol)) for one in request.ladders)
    past = reader.past_days(request.historical) if request.HasField("historical") else 0
    few = len(request.named) + len(request.events) + len(request.shocks)
    return request.scenarios.spot_return.rows + few + grids + past


def stresses(
    request: wire.StressTestRequest, reader: ScenarioReader, underlyings: tuple[str, ...]
) -> tuple[gk.Scenarios, str]:
    """The scenarios in the order of the request's fields; none at all where only the reverse is asked for."""
    expect_underlyings(underlyings)
    described = count(request, reader) - request.scenarios.spot_return.rows
    if described > DESCRIBED_MAX:
        raise TooLarge(
            f"{described} scenarios by name, shock, ladder and history are more than {DESCRIBED_MAX}"
        )
    reader.expect_room("shocks, ladders, events and historical", described, underlyings)
    parts = list(_parts(request, reader, underlyings))
    if not parts and request.HasField("reverse"):
        return gk.Scenarios(np.empty((0, len(underlyings)))), "no scenarios given"
    if not parts:
        raise InvalidRequest(
            "scenarios", "is missing, and so are named, shocks, ladders, events, historical and reverse"
        )
    scenarios = gk.Scenarios.stacked(parts)
    return scenarios, "; ".join((f"{len(scenarios)} scenarios", *scenarios.notes))


def _parts(
    request: wire.StressTestRequest, reader: ScenarioReader, underlyings: tuple[str, ...]
) -> Iterator[gk.Scenarios]:
    if request.HasField("scenarios"):
        if request.scenarios.weight:
            raise InvalidRequest("scenarios.weight", "has no meaning in a stress test: leave it out")
        yield reader.given(request.scenarios, underlyings, "scenarios")
    if request.named:
        yield _named(request.named, len(underlyings))
    for row, shock in enumerate(request.shocks):
        yield _shock(shock, row, underlyings)
    for row, grid in enumerate(request.ladders):
        yield _ladder(grid, row, underlyings)
    if request.events:
        yield _events(request.events, underlyings)
    if request.HasField("historical"):
        yield _past(request.historical, reader, underlyings)


def _named(names: Sequence[str], underlyings: int) -> gk.Scenarios:
    _expect_known("named", names)
    return stress_scenarios(list(names), underlyings)


def _events(events: Sequence[wire.NamedEvent], underlyings: tuple[str, ...]) -> gk.Scenarios:
    _expect_known("events", [event.name for event in events])
    parts = []
    for row, event in enumerate(events):
        beta = _by_underlying(event, "beta", "events", row, underlyings, 1.0)
        _expect_at_most("events.beta", beta, BETA_MAX, row)
        parts.append(stress_scenarios([event.name], len(underlyings), beta=beta))
    return gk.Scenarios.stacked(parts)


def _expect_known(field: str, names: Sequence[str]) -> None:
    known = {event.name for event in EVENTS}
    for row, name in enumerate(names):
        if name not in known:
            raise InvalidRequest(field, f"{name!r} is unknown; there are {', '.join(sorted(known))}", row)
    if len(names) > EVENTS_NAMED_MAX:
        raise InvalidRequest(field, f"{len(names)} events are more than {EVENTS_NAMED_MAX}")


def _shock(shock: wire.Shock, row: int, underlyings: tuple[str, ...]) -> gk.Scenarios:
    spot = _by_underlying(shock, "spot", "shocks", row, underlyings, 0.0)
    vol = _by_underlying(shock, "vol", "shocks", row, underlyings, 0.0)
    _expect_falls("shocks.spot", spot, row)
    _expect_at_most("shocks.vol", vol, VOL_CHANGE_MAX, row)
    expect_short("shocks.name", shock.name, row)
    with _of("shocks", row):
        return shock_scenario(
            shock.name or f"shock {row}",
            underlyings,
            spot=dict(zip(underlyings, spot.tolist(), strict=True)),
            vol=dict(zip(underlyings, vol.tolist(), strict=True)),
            rate=shock.rate,
            elapsed=shock.elapsed,
        )


def _ladder(grid: wire.Ladder, row: int, underlyings: tuple[str, ...]) -> gk.Scenarios:
    spot, vol = packing.read(grid, "spot"), packing.read(grid, "vol")
    if not len(spot):
        raise InvalidRequest("ladders.spot", "is missing", row)
    _expect_falls("ladders.spot", spot, row)
    _expect_at_most("ladders.vol", vol, VOL_CHANGE_MAX, row)
    expect_short("ladders.name", grid.name, row)
    beta = _by_underlying(grid, "beta", "ladders", row, underlyings, 1.0)
    _expect_at_most("ladders.beta", beta, BETA_MAX, row)
    with _of("ladders", row):
        return ladder(
            spot.tolist(),
            vol.tolist() or [0.0],
            len(underlyings),
            beta=beta,
            rate=grid.rate,
            elapsed=grid.elapsed,
            name=grid.name or f"ladder {row}",
        )


def _past(
    asked: wire.HistoricalScenarios, reader: ScenarioReader, underlyings: tuple[str, ...]
) -> gk.Scenarios:
    if asked.weighting != wire.HistoricalScenarios.WEIGHTING_PLAIN or asked.decay:
        field = "weighting" if asked.weighting else "decay"
        raise InvalidRequest(f"historical.{field}", "has no meaning in a stress test: leave it out")
    past, _ = reader.historical(asked, underlyings)
    horizon = asked.horizon_days or 1
    ago = range(len(past) + horizon - 1, horizon - 1, -1)
    return gk.Scenarios(
        spot_return=past.spot_return,
        vol_change=past.vol_change,
        rate_change=past.rate_change,
        elapsed=past.elapsed,
        names=[f"history: {days} d ago, over {horizon} d" for days in ago],
        notes=past.notes,
    )


@contextmanager
def _of(table: str, row: int) -> Iterator[None]:
    """A fault of the kernels' is that of this row of the table."""
    try:
        yield
    except gk.InvalidInput as fault:
        raise InvalidRequest(f"{table}.{fault.field}", fault.reason, row) from fault


def _expect_at_most(field: str, values: Floats, most: float, row: int) -> None:
    bad = values[~(np.abs(values) <= most)]
    if bad.size:
        raise InvalidRequest(field, f"{bad[0]:g} is beyond {most:g} either way: a mistake of units", row)


def _expect_falls(field: str, moves: Floats, row: int) -> None:
    bad = moves[~(moves >= -1.0)]
    if bad.size:
        raise InvalidRequest(field, f"{bad[0]:g}: nothing falls by more than all of it (-1)", row)


def _by_underlying(
    message: wire.Shock | wire.Ladder | wire.NamedEvent,
    field: str,
    table: str,
    row: int,
    underlyings: tuple[str, ...],
    none: float,
) -> Floats:
    """One number per underlying of the book; `none` where the field is not there."""
    if not message.HasField(field):  # type: ignore[arg-type]
        return np.full(len(underlyings), none)
    given: wire.ByUnderlying = getattr(message, field)
    path = f"{table}.{field}"
    if len(given.value) != len(given.underlying):
        raise InvalidRequest(
            f"{path}.value", f"has {len(given.value)} entries for {len(given.underlying)} underlyings", row
        )
    values = np.full(len(underlyings), given.other)
    places = {name: place for place, name in enumerate(underlyings)}
    seen = set()
    for name, value in zip(given.underlying, given.value, strict=True):
        if name not in places or name in seen:
            why = "twice" if name in seen else "which is no underlying of the book"
            raise InvalidRequest(f"{path}.underlying", f"names {name!r}, {why}", row)
        seen.add(name)
        values[places[name]] = value
    if not np.isfinite(values).all():
        raise InvalidRequest(path, "must be finite numbers", row)
    return values
