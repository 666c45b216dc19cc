"""The gRPC server that every service of the project runs: a list of servicers in, a guarded server out."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined]
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from service_kit.errors import PortTaken, SettingError
from service_kit.grpc_server.certificates import Certificates
from service_kit.grpc_server.guard import Guard, Translate
from service_kit.grpc_server.settings import GrpcSettings
from service_kit.scheduling import answer_soon
from service_kit.telemetry.logs import logger
from service_kit.telemetry.metrics import GrpcMetrics
from service_kit.telemetry.traces import Traces

SERVING, NOT_SERVING = 1, 2  # health_pb2.HealthCheckResponse.ServingStatus


class Service(NamedTuple):
    """One service: the generated `add_…_to_server`, the servicer (async methods), the full proto name."""

    add: Callable[[Any, Any], None]
    servicer: object
    full_name: str


class GrpcServer:
    """An asyncio gRPC server with health, reflection, TLS, identity, quotas, deadlines and a graceful end.

    `async with GrpcServer(settings, services=[(add_fn, servicer, full_name)]) as server:` serves at
    `server.port` until the block ends. `translate` turns a service's own exceptions into CallErrors.
    Health says SERVING from the start, or with `serving=False` not before `set_serving` does.
    """

    def __init__(
        self,
        settings: GrpcSettings,
        services: Sequence[tuple[Callable[[Any, Any], None], object, str]],
        *,
        registry: CollectorRegistry | None = None,
        traces: Traces | None = None,
        translate: Translate | None = None,
        serving: bool = True,
    ) -> None:
        self.settings, self._serving = settings, serving
        self._services = [Service(*one) for one in services]
        self._certificates = Certificates.of(settings)
        metrics = GrpcMetrics(registry if registry is not None else CollectorRegistry())
        self.guard = Guard(settings, metrics, traces or Traces.off(), translate)
        metrics.open.set_function(lambda: len(self.guard.open))
        certificates = self._certificates
        if certificates is not None:
            metrics.certificate_expiry.set_function(lambda: certificates.expires_at)
        self._health = health_aio.HealthServicer()
        self._server: Any = None
        self._log = logger("grpc")
        self.port = 0

    async def start(self) -> Self:
        """Listen; raises PortTaken or SettingError. Afterwards `port` is the real one."""
        # The event loop's thread, and through it those of the core: a call must not wait for what computes.
        answer_soon()
        self._server = grpc.aio.server(
            options=_options(self.settings), maximum_concurrent_rpcs=_hard_limit(self)
        )
        await self.set_serving("", self._serving)
        for service in self._services:
            self._add(service, public=False)
            await self.set_serving(service.full_name, self._serving)
        self._add(Service(health_pb2_grpc.add_HealthServicer_to_server, self._health, HEALTH), public=True)
        if self.settings.reflection:
            names = (*(one.full_name for one in self._services), HEALTH, reflection.SERVICE_NAME)
            add = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
            servicer = reflection.aio.ReflectionServicer(names)  # type: ignore[attr-defined]
            self._add(Service(add, servicer, reflection.SERVICE_NAME), public=False)
        self.port = self._listen()
        await self._server.start()
        self._log.info("listening", host=self.settings.host, port=self.port, auth=self.settings.auth)
        return self

    async def set_serving(self, full_name: str, serving: bool) -> None:
        """Say in health whether a service can do its work now; the empty name is the process as a whole."""
        await self._health.set(full_name, SERVING if serving else NOT_SERVING)

    async def stop(self) -> None:
        """Drain: health says NOT_SERVING, watches end at once, other calls have `drain_s` to finish."""
        if self._server is None:
            return
        server, self._server = self._server, None
        await self._health.enter_graceful_shutdown()
        self.guard.end_calls(self.settings.drain_s)
        # A little longer than the calls have, so that their own UNAVAILABLE gets out before the cut.
        await server.stop(self.settings.drain_s + 0.25)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _add(self, service: Service, *, public: bool) -> None:
        found = _Recorder()
        service.add(service.servicer, found)
        handlers = {
            name: self.guard.wrap(f"/{service.full_name}/{name}", handler, public=public)
            for name, handler in found.handlers(service.full_name).items()
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service.full_name, handlers),)
        )
        self._server.add_registered_method_handlers(service.full_name, handlers)

    def _listen(self) -> int:
        settings = self.settings
        _check_free(settings.host, settings.port)
        host = f"[{settings.host}]" if ":" in settings.host and settings.host[0] != "[" else settings.host
        address = f"{host}:{settings.port}"
        try:
            if self._certificates is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, self._certificates.credentials())
        except RuntimeError as error:
            raise PortTaken("gRPC", settings.host, settings.port) from error
        return int(port)


class _Recorder:
    """Stands in for a server while generated code registers its handlers, and keeps them."""

    def __init__(self) -> None:
        self._handlers: dict[str, dict[str, Any]] = {}

    def add_generic_rpc_handlers(self, _handlers: object) -> None:
        """Generated code gives the same handlers twice; the registered ones have names."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self._handlers[service] = handlers

    def handlers(self, full_name: str) -> dict[str, Any]:
        if set(self._handlers) != {full_name}:
            given = ", ".join(self._handlers) or "nothing"
            raise TypeError(f"a service named {full_name!r} registers {given}")
        return self._handlers[full_name]


def _options(settings: GrpcSettings) -> list[tuple[str, int]]:
    return [
        # By default two servers may share a port and split its calls; a taken port must be an error.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_concurrent_streams", settings.max_calls),
        ("grpc.keepalive_time_ms", int(settings.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", int(settings.client_ping_s * 1000)),
    ]


def client_options(settings: GrpcSettings) -> list[tuple[str, int]]:
    """Channel options of a client that suit a server with these settings (sizes, keepalive)."""
    ping_s = max(settings.keepalive_s, settings.client_ping_s)
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", int(ping_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 0),
    ]


def _hard_limit(server: GrpcServer) -> int:
    """The core's own wall: room above the quota for refusals with a proper status, and for health."""
    return 2 * server.settings.max_calls + 64


def _check_free(host: str, port: int) -> None:
    """Try every address of the host: grpc is content with one, and its error does not say why."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise SettingError("GPU_RISK_GRPC_HOST", f"{host!r} is no address: {error.strerror}") from error
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind(address)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise PortTaken("gRPC", host, port) from error
                if len(found) == 1 or error.errno == errno.EACCES:
                    raise PortTaken("gRPC", host, port, error.strerror or str(error)) from error
