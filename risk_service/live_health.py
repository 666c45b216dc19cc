"""Whether the service can do its work now: what gRPC health and Prometheus are told of the live loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from prometheus_client import CollectorRegistry, Gauge

from protos.risk.v1.risk_pb2 import AlertKind
from risk_service.device_health import DeviceWatch
from risk_service.engines import Engines
from risk_service.lateness import Lateness
from risk_service.service_metrics import ALERT_KINDS
from service_kit.grpc_server.server import GrpcServer
from service_kit.telemetry.logs import logger

# What a health check may ask for besides the service's own name, and how often the answers are renewed.
ENGINE, DEVICE = "gpu_risk.engine", "gpu_risk.device"
HEALTH_EVERY_S = 0.5
# A round takes milliseconds, the longest with an engine that is being started again a few seconds.
STUCK_AFTER_S = 15.0


class Alerts(Protocol):
    """The part of the alert book that is looked at."""

    def standing(self, kind: AlertKind.ValueType) -> int: ...


class Teller(Protocol):
    """The part of what tells that is looked at."""

    @property
    def alerts(self) -> Alerts: ...


class Loop(Protocol):
    """The part of the live loop that is looked at, from other threads."""

    @property
    def caught_up(self) -> bool: ...

    @property
    def turned_at(self) -> float: ...

    @property
    def without_brokers(self) -> str: ...

    @property
    def standing_by(self) -> str: ...

    @property
    def lateness(self) -> Lateness: ...

    @property
    def failure(self) -> Exception | None: ...

    @property
    def portfolios(self) -> int: ...

    @property
    def unmeasured(self) -> int: ...

    @property
    def teller(self) -> Teller: ...


def why_not(loop: Loop, now: float) -> str:
    """Why the numbers are not to be relied on, at `now` of the monotonic clock (s); empty where they are."""
    if loop.failure is not None:
        return f"the live loop failed: {loop.failure}"
    if loop.without_brokers:
        return loop.without_brokers
    if not loop.caught_up:
        return "the logs are still being taken in"
    if now - loop.turned_at > STUCK_AFTER_S:
        return f"the live loop has not come round for more than {STUCK_AFTER_S:.0f} s"
    return loop.standing_by or loop.lateness.why


async def tell(
    server: GrpcServer,
    service: str,
    loop: Loop,
    engines: Engines,
    devices: DeviceWatch,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Keeps gRPC health true, until cancelled. A degraded service serves: its engine's own name says so."""
    said: str | None = None
    while True:
        why = why_not(loop, clock())
        for name in ("", service):
            await server.set_serving(name, not why)
        await server.set_serving(ENGINE, engines.ready)
        well = devices.well
        if well is not None:
            await server.set_serving(DEVICE, well)
        if why != said:
            said = why
            logger("health").info("not serving" if why else "serving", **({"why": why} if why else {}))
        await asyncio.sleep(HEALTH_EVERY_S)


def export(registry: CollectorRegistry, loop: Loop) -> None:
    """Exports from now on; each value is asked for at the scrape."""

    def gauge(name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(f"gpu_risk_{name}", text, registry=registry).set_function(value)

    serving = "1 while the live loop has caught up with the logs and comes round."
    gauge("serving", serving, lambda: float(not why_not(loop, time.monotonic())))
    gauge(
        "standing_by",
        "1 while another risk_service publishes on these brokers.",
        lambda: float(bool(loop.standing_by)),
    )
    gauge(
        "late_seconds",
        "How late numbers come, of records not read yet or books not told.",
        lambda: loop.lateness.seconds,
    )
    gauge("portfolios", "Portfolios held.", lambda: float(loop.portfolios))
    unmeasured = "Portfolios whose newest number is none, since they could not be measured."
    gauge("portfolios_unmeasured", unmeasured, lambda: float(loop.unmeasured))
    standing = Gauge(
        "gpu_risk_alerts_standing", "Alerts that stand now, over all portfolios.", ["kind"], registry=registry
    )
    for kind, name in ALERT_KINDS.items():
        standing.labels(name).set_function(partial(_standing, loop, kind))


def _standing(loop: Loop, kind: AlertKind.ValueType) -> float:
    return float(loop.teller.alerts.standing(kind))
