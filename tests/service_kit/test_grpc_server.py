"""The server base over real sockets: errors, deadlines, drain, identity, ports, reflection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from protos.risk.v1 import risk_pb2
from service_kit import errors
from service_kit.grpc_server import GrpcServer, GrpcSettings, client_options, current_call
from service_kit.grpc_server.guard import PUBLIC_CALLS_MAX
from tests.service_kit.certificates import World
from tests.service_kit.echo_service import FAILURES, NAME, SERVICE, UNSERVED, EchoRisk, Foreign, make_server
from tests.service_kit.rpc_faults import PATIENCE_S, Outcome, call

PRICE, PRICE_STREAM = SERVICE.methods_by_name["Price"], SERVICE.methods_by_name["PriceStream"]
WATCH, ENGINES = SERVICE.methods_by_name["WatchRisk"], SERVICE.methods_by_name["ListEngines"]
Code = grpc.StatusCode


@asynccontextmanager
async def running(
    servicer: EchoRisk | None = None, settings: dict[str, Any] | None = None, **arguments: Any
) -> AsyncIterator[tuple[GrpcServer, grpc.aio.Channel]]:
    """An open server on a free port, and a channel to it."""
    own = GrpcSettings(**{"port": 0, **(settings or {})})
    server = make_server(own, servicer, **arguments)
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", client_options(own)) as channel:
        yield server, channel


def ask(order: str) -> risk_pb2.PriceRequest:
    return risk_pb2.PriceRequest(engine=order)


EXPECTED = {
    "invalid": (Code.INVALID_ARGUMENT, "options.strike[3]: is negative"),
    "missing": (Code.NOT_FOUND, "no engine named 'abacus'"),
    "changed": (Code.ABORTED, "portfolio 'p1' has changed meanwhile: version 3, not 2"),
    "busy": (Code.RESOURCE_EXHAUSTED, "too much work"),
    "later": (Code.UNAVAILABLE, "no market data yet"),
    "crash": (Code.INTERNAL, "internal error "),
    "broker": (Code.INTERNAL, "internal error "),
    "foreign": (Code.INVALID_ARGUMENT, "foreign: row 4"),
    "abort": (Code.DATA_LOSS, "by hand"),
}


def translate(error: Exception) -> errors.CallError | None:
    return errors.InvalidRequest("foreign", str(error)) if isinstance(error, Foreign) else None


@pytest.mark.parametrize("method", [PRICE, PRICE_STREAM], ids=lambda one: one.name)
@pytest.mark.parametrize("order", EXPECTED)
async def test_errors_become_rich_status(order: str, method: Any) -> None:
    assert set(EXPECTED) == {*FAILURES, "abort"}
    async with running(translate=translate) as (server, channel):
        with structlog.testing.capture_logs() as logs:
            outcome = await call(channel, method, request=ask(order))
        code, says = EXPECTED[order]
        assert outcome.code is code
        assert outcome.text.startswith(says)
        assert "hunter2" not in str(outcome)
        assert "10.0.0.7" not in str(outcome)
        if code is Code.INTERNAL:
            error_id = outcome.detail(error_details_pb2.ErrorInfo).metadata["error_id"]
            assert error_id in outcome.text
            # What the caller may not see, the log explains under the same id.
            assert [one["exc_info"] for one in logs if one.get("error_id") == error_id] == [FAILURES[order]]
        good = await call(channel, method, request=risk_pb2.PriceRequest())
        assert good.code is Code.OK
        await until(lambda: not server.guard.open)


async def test_an_rpc_without_a_handler_and_one_without_a_name() -> None:
    async with running() as (_, channel):
        outcome = await call(channel, SERVICE.methods_by_name[UNSERVED])
        assert outcome.code is Code.UNIMPLEMENTED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/gpu_risk.risk.v1.RiskService/Nothing")(b"", timeout=PATIENCE_S)
        assert caught.value.code() is Code.UNIMPLEMENTED


@pytest.mark.parametrize("method", [PRICE, PRICE_STREAM], ids=lambda one: one.name)
@pytest.mark.parametrize("own_deadline", [True, False])
async def test_the_handler_is_cancelled_at_the_deadline(method: Any, own_deadline: bool) -> None:
    servicer = EchoRisk()
    settings = {"default_deadline_s": 0.2, "default_stream_deadline_s": 0.2}
    async with running(servicer, settings) as (server, channel):
        outcome = await call(channel, method, request=ask("hang"), timeout=0.2 if own_deadline else None)
        assert outcome.code is Code.DEADLINE_EXCEEDED
        await until(lambda: "Price" in servicer.ended and not server.guard.open)


async def test_the_default_deadline_reaches_the_handler_and_the_callers_own_wins() -> None:
    async with running(settings={"default_deadline_s": 7.0}) as (_, channel):
        assert 6 < float((await call(channel, ENGINES, timeout=None)).messages[0].serving) <= 7
        assert (await call(channel, ENGINES, timeout=300)).code is Code.OK  # exactly what is allowed
        assert 60 < float((await call(channel, ENGINES, timeout=200)).messages[0].serving) <= 203
    with pytest.raises(errors.ServiceKitError, match="no call is served here"):
        current_call()


async def test_a_handler_that_computes_past_its_deadline_without_waiting() -> None:
    class Busy(EchoRisk):
        async def Price(self, request: Any, context: Any) -> Any:
            while current_call().remaining_s() > 0:
                pass
            return risk_pb2.PriceResponse()

    async with running(Busy(), {"default_deadline_s": 0.01}) as (_, channel):
        assert (await call(channel, PRICE, timeout=None)).code is Code.DEADLINE_EXCEEDED


async def test_a_caller_that_goes_away_ends_its_handler() -> None:
    servicer = EchoRisk()
    async with running(servicer) as (server, channel):
        task = asyncio.create_task(call(channel, PRICE, request=ask("hang")))
        await servicer.entered.wait()
        task.cancel()
        await until(lambda: servicer.ended == ["Price"] and not server.guard.open)
        assert server.guard.quotas.open == 0


async def test_a_watch_is_ended_when_its_reader_leaves() -> None:
    servicer = EchoRisk()
    async with running(servicer) as (server, channel):
        request = risk_pb2.WatchRiskRequest(portfolios=["a", "b"])
        outcome = await call(channel, WATCH, request=request, messages_max=2)
        assert [one.portfolio for one in outcome.messages] == ["a", "b"]
        await until(lambda: servicer.ended == ["WatchRisk"] and not server.guard.open)


async def test_a_caller_that_never_sends_its_message_runs_into_the_deadline() -> None:
    async with running(settings={"default_deadline_s": 0.1}) as (server, channel):
        stream = channel.stream_unary(f"/{NAME}/Price")(timeout=None)
        assert await stream.code() is Code.DEADLINE_EXCEEDED
        nothing = channel.stream_unary(f"/{NAME}/Price")(timeout=None)
        await nothing.done_writing()
        assert await nothing.code() is Code.INVALID_ARGUMENT
        assert await nothing.details() == "request: no message came"
        await until(lambda: not server.guard.open)


async def test_strangers_are_refused_before_their_message_is_read(world: World) -> None:
    async with make_server(GrpcSettings(**world.settings())) as server:
        credentials = world.channel_credentials(world.client)
        async with grpc.aio.secure_channel(f"localhost:{server.port}", credentials) as channel:
            stream = channel.stream_unary(f"/{NAME}/Price")(timeout=PATIENCE_S)
            assert await stream.code() is Code.UNAUTHENTICATED


async def test_concurrency_over_the_wire() -> None:
    servicer = EchoRisk()
    async with running(servicer, {"max_calls_per_principal": 3}) as (server, channel):
        held = [asyncio.create_task(call(channel, PRICE, request=ask("hang"))) for _ in range(3)]
        await until(lambda: len(server.guard.open) == 3)
        refused = await call(channel, PRICE)
        assert refused.code is Code.RESOURCE_EXHAUSTED
        assert refused.detail(error_details_pb2.RetryInfo).retry_delay.nanos > 0
        servicer.release.set()
        assert {one.code for one in await asyncio.gather(*held)} == {Code.OK}
        assert (await call(channel, PRICE)).code is Code.OK


async def test_the_rate_over_the_wire_comes_back() -> None:
    async with running(settings={"rate_per_principal": 20.0, "burst_per_principal": 2}) as (_, channel):
        codes = [(await call(channel, PRICE)).code for _ in range(2)]
        assert codes == [Code.OK] * 2
        outcome = await call(channel, PRICE)
        while outcome.code is not Code.OK:
            assert outcome.code is Code.RESOURCE_EXHAUSTED
            outcome = await call(channel, PRICE)


async def health(channel: grpc.aio.Channel, service: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE_S)
    return int(answer.status)


async def test_health_for_each_service() -> None:
    async with running() as (server, channel):
        assert await health(channel, "") == await health(channel, NAME) == 1
        await server.set_serving(NAME, False)
        assert (await health(channel, ""), await health(channel, NAME)) == (1, 2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health(channel, "nobody")
        assert caught.value.code() is Code.NOT_FOUND


async def test_a_flood_of_health_watches_is_bounded_and_keeps_nobody_out() -> None:
    async with running() as (server, channel):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=NAME)
        watches = [stub.Watch(request, timeout=PATIENCE_S) for _ in range(PUBLIC_CALLS_MAX)]
        for watch in watches:
            assert (await watch.read()).status == 1
        assert await stub.Watch(request, timeout=PATIENCE_S).code() is Code.RESOURCE_EXHAUSTED
        assert (await call(channel, PRICE)).code is Code.OK
        for watch in watches:
            watch.cancel()
        await until(lambda: not server.guard.open)
        assert await health(channel, NAME) == 1


async def test_draining_lets_calls_finish_ends_watches_and_says_so_in_health() -> None:
    servicer = EchoRisk()
    async with running(servicer, {"drain_s": PATIENCE_S}) as (server, channel):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        states = stub.Watch(health_pb2.HealthCheckRequest(service=NAME), timeout=PATIENCE_S)
        assert (await states.read()).status == 1
        unary = asyncio.create_task(call(channel, PRICE, request=ask("hang")))
        await servicer.entered.wait()
        servicer.entered.clear()
        watch = asyncio.create_task(call(channel, WATCH))
        await servicer.entered.wait()
        stopping = asyncio.create_task(server.stop())
        assert (await states.read()).status == 2
        outcome = await watch
        assert (outcome.code, outcome.text) == (Code.UNAVAILABLE, "the server is stopping")
        assert outcome.detail(error_details_pb2.RetryInfo).retry_delay.seconds == 1
        assert not unary.done()
        servicer.release.set()
        assert (await unary).code is Code.OK
        await stopping


async def test_a_call_that_does_not_finish_in_the_drain_is_told_why() -> None:
    servicer = EchoRisk()
    async with running(servicer, {"drain_s": 0.05}) as (server, channel):
        unary = asyncio.create_task(call(channel, PRICE, request=ask("hang")))
        await servicer.entered.wait()
        await server.stop()
        outcome = await unary
        assert (outcome.code, outcome.text) == (Code.UNAVAILABLE, "the server is stopping")
        assert servicer.ended == ["Price"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_taken_port_is_one_clear_error(host: str) -> None:
    async with running() as (server, _):
        with pytest.raises(errors.PortTaken) as caught:
            await make_server(GrpcSettings(host=host, port=server.port)).start()
        assert (
            str(caught.value) == f"gRPC: cannot listen on {host}:{server.port}: another process listens there"
        )


async def test_a_host_that_is_not_ours() -> None:
    with pytest.raises(errors.SettingError, match="GPU_RISK_GRPC_HOST"):
        await make_server(GrpcSettings(host="no such host", port=0, insecure=True)).start()
    with pytest.raises(errors.PortTaken, match=r"192\.0\.2\.1"):
        await make_server(GrpcSettings(host="192.0.2.1", port=1234, insecure=True)).start()


@pytest.mark.parametrize("on", [True, False])
async def test_reflection_only_where_it_is_on(on: bool) -> None:
    async with running(settings={"reflection": on}) as (_, channel):
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        stream = stub.ServerReflectionInfo(timeout=PATIENCE_S)
        if not on:
            # Refused before anything is written: a write would race with that.
            assert await stream.code() is Code.UNIMPLEMENTED
            return
        await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        await stream.done_writing()
        answer = await stream.read()
        assert NAME in [one.name for one in answer.list_services_response.service]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


async def secured(world: World, settings: GrpcSettings, token: str | None, client: Any) -> Outcome:
    async with make_server(settings) as server:
        credentials = world.channel_credentials(client)
        async with grpc.aio.secure_channel(f"localhost:{server.port}", credentials) as channel:
            return await call(channel, PRICE, metadata=() if token is None else world.bearer(token))


async def test_mutual_tls_names_the_principal(world: World) -> None:
    settings = GrpcSettings(**world.settings(auth="mtls"))
    outcome = await secured(world, settings, None, world.authority.client("desk 7"))
    assert outcome.messages[0].provenance.engine == "desk 7"
    nameless = await secured(world, settings, None, world.authority.client(""))
    assert nameless.code is Code.UNAUTHENTICATED


async def test_plain_tls_with_a_token(world: World) -> None:
    settings = GrpcSettings(**world.settings(client_ca=None))
    outcome = await secured(world, settings, world.issuer.token("desk-9"), None)
    assert outcome.messages[0].provenance.engine == "desk-9"
    again = await secured(world, settings, world.issuer.token("x" * 300), None)
    assert again.code is Code.UNAUTHENTICATED


async def test_a_remembered_token_still_expires(world: World) -> None:
    settings = GrpcSettings(**world.settings(token_leeway_s=0.0))
    expiry = int(time.time()) + 2
    token = world.issuer.token(exp=expiry)
    async with make_server(settings) as server:
        credentials = world.channel_credentials(world.client)
        async with grpc.aio.secure_channel(f"localhost:{server.port}", credentials) as channel:
            outcome = await call(channel, PRICE, metadata=world.bearer(token))
            while outcome.code is Code.OK:
                assert time.time() < expiry + 1.5
                outcome = await call(channel, PRICE, metadata=world.bearer(token))
            assert outcome.text == "the token has expired"


BAD_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"host": "0.0.0.0"}, "open to the network"),
    ({"auth": "mtls"}, "needs client_ca"),
    ({"auth": "token"}, "needs token_audience"),
    ({"tls_cert": Path("x")}, "together"),
    ({"client_ca": Path("x")}, "client_ca needs"),
    ({"default_deadline_s": 1e9}, "above max_deadline_s"),
]
TOKEN = {"auth": "token", "token_audience": "a", "token_issuer": "i"}
BAD_SETTINGS += [
    ({**TOKEN, "token_algorithms": ("HS256", "ES256"), "token_key": Path("x")}, "mixes"),
    ({**TOKEN, "token_algorithms": ("HS256",), "token_key": Path("x")}, "takes token_secret"),
    ({**TOKEN}, "takes token_key"),
    ({**TOKEN, "token_key": Path("x"), "host": "10.1.1.1"}, "plain text"),
]


@pytest.mark.parametrize(("changes", "says"), BAD_SETTINGS)
def test_settings_that_make_no_sense_together(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        GrpcSettings(**changes)


def test_files_that_hold_the_wrong_thing_name_their_setting(world: World, tmp_path: Path) -> None:
    junk, private = tmp_path / "junk", tmp_path / "private"
    junk.write_text("junk")
    private.write_bytes(world.issuer.private_pem)
    for name, path in [
        ("tls_cert", junk),
        ("tls_cert", tmp_path / "absent"),
        ("client_ca", junk),
        ("token_key", junk),
        ("token_key", private),
        ("token_key", tmp_path / "absent"),
    ]:
        with pytest.raises(errors.SettingError, match=f"GPU_RISK_GRPC_{name.upper()}"):
            make_server(GrpcSettings(**world.settings(**{name: path})))


async def test_metrics_count_by_method_and_code() -> None:
    registry = CollectorRegistry()
    async with running(registry=registry) as (_, channel):
        for order in ("", "", "missing"):
            await call(channel, PRICE, request=ask(order))

    def count(code: str) -> float | None:
        labels = {"method": f"/{NAME}/Price", "code": code}
        return registry.get_sample_value("gpu_risk_grpc_calls_total", labels)

    assert (count("OK"), count("NOT_FOUND")) == (2, 1)
    assert registry.get_sample_value("gpu_risk_grpc_seconds_count", {"method": f"/{NAME}/Price"}) == 3
    assert registry.get_sample_value("gpu_risk_grpc_open_calls") == 0


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)
