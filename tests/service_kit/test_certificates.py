"""Certificates that are renewed while the server runs, over real handshakes."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import structlog
from cryptography import x509
from prometheus_client import CollectorRegistry

from service_kit.grpc_server import GrpcServer, GrpcSettings
from service_kit.telemetry.logs import LogSettings, start_logs
from tests.service_kit.certificates import Authority, Pair, World
from tests.service_kit.echo_service import SERVICE, make_server
from tests.service_kit.rpc_faults import call

PRICE = SERVICE.methods_by_name["Price"]
Code = grpc.StatusCode


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    out = io.StringIO()
    start_logs(LogSettings(form="json"), "svc", out)
    yield out
    structlog.reset_defaults()


def put(pair: Pair, world: World) -> None:
    """As a renewal does it: each file is replaced as a whole."""
    for path, data in ((world.server_cert, pair.cert), (world.server_key, pair.key)):
        fresh = path.with_suffix(".new")
        fresh.write_bytes(data)
        fresh.replace(path)


async def shown(server: GrpcServer) -> int:
    """The serial number of the certificate that a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(der).serial_number


def serial(pair: Pair) -> int:
    return x509.load_pem_x509_certificate(pair.cert).serial_number


async def ask(server: GrpcServer, world: World, client: Pair) -> Code:
    # A channel of its own: channels to one place share a connection otherwise.
    options = [("grpc.use_local_subchannel_pool", 1)]
    credentials = world.channel_credentials(client)
    async with grpc.aio.secure_channel(f"localhost:{server.port}", credentials, options) as channel:
        return (await call(channel, PRICE)).code


async def test_a_renewed_certificate_is_shown_without_a_restart(world: World, log: io.StringIO) -> None:
    registry = CollectorRegistry()
    settings = GrpcSettings(**world.settings(client_ca=None))
    async with make_server(settings, registry=registry) as server:
        first = await shown(server)
        renewed = world.authority.server()
        put(renewed, world)
        assert await shown(server) == serial(renewed) != first
        assert await shown(server) == serial(renewed)
    events = [json.loads(line)["event"] for line in log.getvalue().splitlines()]
    assert events.count("certificates renewed") == 1
    expiry = registry.get_sample_value("gpu_risk_grpc_certificate_expiry_time_seconds")
    assert expiry == pytest.approx(time.time() + 86_400, abs=600)


async def test_half_a_renewal_leaves_the_last_good_one(world: World, log: io.StringIO) -> None:
    settings = GrpcSettings(**world.settings(client_ca=None))
    async with make_server(settings) as server:
        first = await shown(server)
        renewed = world.authority.server()
        world.server_cert.write_bytes(renewed.cert)  # its key is not there yet
        assert await shown(server) == first
        world.server_key.unlink()
        assert await shown(server) == first
        world.server_key.write_bytes(renewed.key)
        assert await shown(server) == serial(renewed)
    told = [json.loads(line) for line in log.getvalue().splitlines()]
    reasons = [one["why"] for one in told if one["event"] == "certificates not renewed"]
    assert len(reasons) == 2
    assert "no certificate and its key" in reasons[0]
    assert "cannot read" in reasons[1]


async def test_whom_the_server_trusts_is_renewed_too(world: World) -> None:
    settings = GrpcSettings(**world.settings(auth="mtls"))
    other = Authority("the next authority")
    async with make_server(settings) as server:
        assert await ask(server, world, world.client) is Code.OK
        assert await ask(server, world, other.client("desk-2")) is Code.UNAVAILABLE
        world.client_ca.write_bytes(other.cert)
        assert await ask(server, world, other.client("desk-2")) is Code.OK
        assert await ask(server, world, world.client) is Code.UNAVAILABLE
