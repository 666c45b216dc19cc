"""Both clients call for call: deadlines, typed errors, tokens, TLS, retries and watches that go on."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from contextlib import contextmanager
from dataclasses import fields

import numpy as np
import pytest
from served import PATIENCE_S, Service, serving
from worlds import option, portfolio, spot_position

import risk_client
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceServicer
from risk_client import AsyncRiskClient, RiskClient
from risk_client.connection import IDEMPOTENT, backoff_s
from risk_service.api.servicer import RiskServicer
from service_kit.errors import Unavailable
from service_kit.grpc_server import GrpcSettings
from tests.service_kit.certificates import World

ROWS = (option(90.0, False, 10.0), option(110.0, True, -5.0), spot_position(150.0))
TRADE = portfolio(rows=(option(90.0, False, 1.0),)).positions
COLUMNS = {"spot": np.linspace(80, 120, 10), "strike": 100.0, "expiry": 1.0, "vol": 0.2}


# ---- the two clients are one -----------------------------------------------------------------------------


def public(kind):
    found = inspect.getmembers(kind, callable)
    return {name: inspect.signature(method) for name, method in found if not name.startswith("_")}


def test_both_clients_have_the_same_methods_with_the_same_parameters():
    plain, twin = public(RiskClient), public(AsyncRiskClient)
    assert plain.keys() == twin.keys()
    for name in plain:
        assert plain[name].parameters == twin[name].parameters, name


def test_every_rpc_has_a_method():
    rpcs = {name for name in vars(RiskServiceServicer) if name[0].isupper()}
    names = {"".join(part.title() for part in name.split("_")) for name in public(RiskClient)}
    told_apart = {name.removesuffix("Stream").removesuffix("WithProgress") for name in rpcs}
    assert told_apart - names == set()
    assert set(IDEMPOTENT) == rpcs - {"PutPortfolio", "DeletePortfolio"}


CALLS = {
    "price": lambda one: one.price(**COLUMNS),
    "greeks": lambda one: one.greeks(**COLUMNS),
    "implied_volatility": lambda one: one.implied_volatility(10.0, spot=100.0, strike=100.0, expiry=1.0),
    "get_portfolio": lambda one: one.get_portfolio("desk"),
    "list_portfolios": lambda one: one.list_portfolios(),
    "expected_shortfall": lambda one: one.expected_shortfall(
        "desk", risk_client.historical(200), with_components=True, with_pnl=True
    ),
    "stress_test": lambda one: one.stress_test("desk", named=["2020-03"], by_position=True),
    "what_if": lambda one: one.what_if("desk", TRADE),
    "hedge": lambda one: one.hedge("desk", "delta"),
    "list_engines": lambda one: one.list_engines(),
}


MOVING = ("memory_used_bytes", "utilisation", "temperature_celsius")  # of a device, from one call to the next


def plain(answer):
    """An answer as something that can be compared; the age of the data moves on between two calls."""
    if isinstance(answer, list):
        return [plain(one) for one in answer]
    if hasattr(answer, "DESCRIPTOR"):
        copy = type(answer)()
        copy.CopyFrom(answer)
        if copy.DESCRIPTOR.fields_by_name.get("provenance") is not None:
            copy.provenance.ClearField("data_age_ns")
        for engine in getattr(copy, "engines", ()):
            for name in MOVING:
                engine.ClearField(name)
        return copy
    return [str(getattr(answer, one.name)) for one in fields(answer) if one.name != "provenance"]


@pytest.mark.parametrize("name", CALLS)
def test_both_clients_answer_the_same(service, address, client, name):
    client.put_portfolio(portfolio(rows=ROWS))
    if name == "list_engines":
        # One that is still being looked for when the first asks may have been found when the second does.
        service.engines.survey().result(PATIENCE_S)

    async def ask():
        async with AsyncRiskClient(address, deadline_s=PATIENCE_S) as twin:
            return await CALLS[name](twin)

    assert plain(asyncio.run(ask())) == plain(CALLS[name](client))


async def test_the_twin_puts_watches_and_deletes(address):
    async with AsyncRiskClient(address, deadline_s=PATIENCE_S) as twin:
        assert await twin.put_portfolio(portfolio("async", rows=ROWS)) == 1
        watch = twin.watch_risk(["async"], deadline_s=PATIENCE_S)
        assert (await anext(watch)).portfolio == "async"
        await watch.aclose()
        await twin.delete_portfolio("async", expected_version=1)
        with pytest.raises(risk_client.NotFound):
            await twin.get_portfolio("async")


async def test_the_twin_streams_what_is_too_long(address):
    async with AsyncRiskClient(address, deadline_s=PATIENCE_S, chunk_rows=3) as twin:
        parts = await twin.greeks(**COLUMNS)
        twin._chunk_rows = 10
        whole = await twin.greeks(**COLUMNS)
    np.testing.assert_array_equal(parts["vega"], whole["vega"])


# ---- what can go wrong -----------------------------------------------------------------------------------


WITH_PROGRESS = {
    "expected_shortfall": lambda one, told, desk="desk": one.expected_shortfall(
        desk, risk_client.monte_carlo(2_000, seed=1), progress=told
    ),
    "stress_test": lambda one, told, desk="desk": one.stress_test(desk, named=["2020-03"], progress=told),
    "hedge": lambda one, told, desk="desk": one.hedge(desk, "delta", progress=told),
}


@pytest.mark.parametrize("name", WITH_PROGRESS)
def test_progress_is_told_and_changes_no_number(address, client, name):
    client.put_portfolio(portfolio(rows=ROWS))

    async def ask(told):
        async with AsyncRiskClient(address, deadline_s=PATIENCE_S) as twin:
            return await WITH_PROGRESS[name](twin, told)

    call, wanted = WITH_PROGRESS[name], plain(WITH_PROGRESS[name](client, None))
    for answer in (lambda told: call(client, told), lambda told: asyncio.run(ask(told))):
        told = []
        assert plain(answer(told.append)) == wanted
        assert told[0] == 0.0
        assert told == sorted(told)
        assert told[-1] <= 1.0


def test_whoever_is_told_of_progress_may_end_the_call(address, client):
    client.put_portfolio(portfolio(rows=ROWS))

    def enough(fraction):
        raise KeyboardInterrupt

    for call in WITH_PROGRESS.values():
        with pytest.raises(KeyboardInterrupt):
            call(client, enough)


@pytest.mark.parametrize("name", WITH_PROGRESS)
def test_errors_with_progress_are_typed_too(client, name):
    with pytest.raises(risk_client.NotFound):
        WITH_PROGRESS[name](client, print, "nobody's")


def test_errors_are_typed_and_name_field_and_row(client):
    book = portfolio(rows=ROWS)
    book.positions.quantity[1] = float("nan")
    with pytest.raises(risk_client.InvalidRequest) as refused:
        client.put_portfolio(book)
    [violation] = refused.value.violations
    assert (violation.column.split(".")[-1], violation.row) == ("quantity", 1)
    with pytest.raises(risk_client.AlreadyChanged):
        client.put_portfolio(portfolio(rows=ROWS), expected_version=999)
    with pytest.raises(risk_client.InvalidRequest, match="abacus"):
        client.price(**COLUMNS, engine="abacus")


def test_a_call_has_the_deadline_of_its_client_or_its_own(address, client):
    scenarios = risk_client.monte_carlo(200_000, seed=1)
    book = portfolio(rows=[option(strike, True) for strike in np.linspace(80, 120, 200)])
    with RiskClient(address, deadline_s=0.001) as hasty, pytest.raises(risk_client.DeadlinePassed):
        hasty.expected_shortfall(book, scenarios)
    with pytest.raises(risk_client.DeadlinePassed):
        client.expected_shortfall(book, scenarios, deadline_s=0.001)


def test_nobody_there_is_unavailable():
    # Port 1 of this host: nobody listens, and connecting fails at once.
    with RiskClient("127.0.0.1:1", deadline_s=PATIENCE_S) as client, pytest.raises(risk_client.Unavailable):
        client.list_engines()


class Faulty(RiskServicer):
    """The real servicer, which says UNAVAILABLE as often as it is told; counts the calls that reach it."""

    @classmethod
    def over(cls, real):
        made = cls(**{one.name: getattr(real, one.name) for one in fields(real)})
        made.fail, made.calls, made.break_after = Counter(), Counter(), []
        return made

    def _count(self, name):
        self.calls[name] += 1
        if self.fail[name]:
            self.fail[name] -= 1
            raise Unavailable("not now")

    async def Price(self, request, context):
        self._count("Price")
        return await super().Price(request, context)

    async def PutPortfolio(self, request, context):
        self._count("PutPortfolio")
        return await super().PutPortfolio(request, context)

    async def Greeks(self, request, context):
        self._count("Greeks")
        return await super().Greeks(request, context)

    async def WatchRisk(self, request, context):
        self._count("WatchRisk")
        async for metrics in super().WatchRisk(request, context):
            yield metrics
            if self.break_after:
                self.break_after.pop()
                raise Unavailable("broken off")


@pytest.fixture(scope="module")
def faulty(service):
    made = []

    def make():
        settings = GrpcSettings(port=0)
        made.append(Faulty.over(service.servicer(settings)))
        return service.server(settings, made[0])

    with serving(make) as server:
        yield made[0], f"127.0.0.1:{server.port}"


@pytest.fixture
def fresh(faulty):
    faults, address = faulty
    faults.fail.clear()
    faults.calls.clear()
    faults.break_after.clear()
    return faults, address


def test_what_changes_nothing_is_asked_again(fresh):
    faults, address = fresh
    # Beyond gRPC's own limit of 256 KiB for what it keeps to send again.
    spot = np.linspace(80, 120, 40_000)
    faults.fail["Price"] = 2
    with RiskClient(address, deadline_s=PATIENCE_S) as client:
        assert len(client.price(spot=spot, strike=spot, expiry=1, vol=0.2)["price"]) == 40_000
        assert faults.calls["Price"] == 3
        faults.fail["Price"] = 99
        with pytest.raises(risk_client.Unavailable, match="not now"):
            client.price(**COLUMNS)
    assert faults.calls["Price"] == 3 + 4


def test_what_changes_something_is_not_asked_again(fresh):
    faults, address = fresh
    faults.fail["PutPortfolio"] = 1
    with RiskClient(address, deadline_s=PATIENCE_S) as client, pytest.raises(risk_client.Unavailable):
        client.put_portfolio(portfolio(rows=ROWS))
    assert faults.calls["PutPortfolio"] == 1


@pytest.mark.parametrize("kind", ["plain", "twin"])
def test_parts_are_asked_again_one_by_one(fresh, client, kind):
    faults, address = fresh
    faults.fail["Greeks"] = 2

    async def ask():
        async with AsyncRiskClient(address, deadline_s=PATIENCE_S, chunk_rows=3) as twin:
            return await twin.greeks(**COLUMNS)

    if kind == "twin":
        answer = asyncio.run(ask())
    else:
        with RiskClient(address, deadline_s=PATIENCE_S, chunk_rows=3) as parts:
            answer = parts.greeks(**COLUMNS)
    assert faults.calls["Greeks"] == 4 + 2
    np.testing.assert_array_equal(answer["delta"], client.greeks(**COLUMNS)["delta"])


@pytest.mark.parametrize("kind", ["plain", "twin"])
def test_parts_of_which_one_fails_fail_together(fresh, kind):
    faults, address = fresh
    faults.fail["Greeks"] = 999

    async def ask_twin():
        async with AsyncRiskClient(address, deadline_s=PATIENCE_S, chunk_rows=1) as twin:
            await twin.greeks(**COLUMNS)

    def ask():
        with RiskClient(address, deadline_s=PATIENCE_S, chunk_rows=1) as client:
            client.greeks(**COLUMNS)

    with pytest.raises(risk_client.Unavailable, match="not now"):
        asyncio.run(ask_twin()) if kind == "twin" else ask()
    # Two parts were under way, and each was tried four times at most.
    assert faults.calls["Greeks"] <= 8


def test_a_watch_ends_with_its_service_or_waits_for_it(fresh, client):
    faults, address = fresh
    client.put_portfolio(portfolio(rows=ROWS))
    with RiskClient(address) as watcher:
        faults.break_after[:] = [1]
        with pytest.raises(risk_client.Unavailable, match="broken off"):
            list(watcher.watch_risk(["desk"], deadline_s=PATIENCE_S))
        faults.break_after[:] = [1]
        watch = watcher.watch_risk(["desk"], deadline_s=PATIENCE_S, resume=True)
        assert [next(watch).portfolio, next(watch).portfolio] == ["desk", "desk"]
        watch.close()
    assert faults.calls["WatchRisk"] == 3


async def test_the_twin_waits_for_its_service_too(fresh, client):
    faults, address = fresh
    client.put_portfolio(portfolio(rows=ROWS))
    faults.break_after[:] = [1]
    async with AsyncRiskClient(address) as watcher:
        watch = watcher.watch_risk(["desk"], deadline_s=PATIENCE_S, resume=True)
        assert [(await anext(watch)).portfolio, (await anext(watch)).portfolio] == ["desk", "desk"]
        await watch.aclose()
    assert faults.calls["WatchRisk"] == 2


def test_waits_grow_to_a_limit_and_are_drawn_at_random():
    for failures, longest in ((1, 0.1), (2, 0.2), (3, 0.4), (50, 2.0)):
        drawn = {backoff_s(failures) for _ in range(50)}
        assert len(drawn) > 1
        assert all(0.5 * longest <= one <= longest for one in drawn)


# ---- who calls -------------------------------------------------------------------------------------------


@contextmanager
def guarded(service, world, **change):
    with serving(lambda: service.server(GrpcSettings(**{**world.settings(), **change}))) as server:
        yield f"localhost:{server.port}"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World.make(tmp_path_factory.mktemp("certificates"))


def test_tokens_over_tls_fresh_for_each_call(service, world):
    given = iter(["bad", world.issuer.token("alice"), world.issuer.token("bob")])
    with (
        guarded(service, world) as address,
        RiskClient(
            address,
            risk_client.tls(world.authority.cert, world.client.cert, world.client.key),
            token=lambda: next(given),
            deadline_s=PATIENCE_S,
        ) as client,
    ):
        with pytest.raises(risk_client.Unauthenticated):
            client.list_engines()
        client.put_portfolio(portfolio("alice's", rows=ROWS))
        assert client.list_portfolios() == []
    with (
        guarded(service, world) as address,
        RiskClient(address, _tls(world), world.issuer.token("alice")) as alice,
    ):
        alice.delete_portfolio("alice's", deadline_s=PATIENCE_S)


def test_a_client_is_known_by_its_certificate(service, world, tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_bytes(world.authority.cert)
    cert, key = world.client.write(tmp_path, "client")
    with guarded(service, world, auth="mtls") as address:
        with RiskClient(address, risk_client.tls(ca, str(cert), key), deadline_s=PATIENCE_S) as client:
            assert client.list_engines().serving
        with (
            RiskClient(address, risk_client.tls(ca), deadline_s=PATIENCE_S) as stranger,
            pytest.raises(risk_client.Unavailable),
        ):
            stranger.list_engines()


async def test_the_twin_takes_tokens_from_a_coroutine(service, world):
    async def token():
        return world.issuer.token("carol")

    with guarded(service, world) as address:
        async with AsyncRiskClient(address, _tls(world), token, deadline_s=PATIENCE_S) as client:
            assert (await client.list_engines()).serving


@pytest.mark.parametrize("kind", [RiskClient, AsyncRiskClient])
@pytest.mark.parametrize("target", ["risk.example:50051", "dns:///risk.example:443", "10.0.0.1:50051"])
def test_a_token_does_not_cross_a_network_in_the_clear(kind, target):
    with pytest.raises(ValueError, match="in the clear"):
        kind(target, token="secret")


@pytest.mark.parametrize(
    "target", ["localhost:1", "127.0.0.1:1", "[::1]:1", "ipv4:127.0.0.1:1", "unix:/tmp/x"]
)
def test_on_one_machine_it_may(target):
    RiskClient(target, token="secret").close()


def test_half_a_client_certificate_is_refused(world):
    with pytest.raises(ValueError, match="together"):
        risk_client.tls(world.authority.cert, certificate=world.client.cert)


def _tls(world):
    return risk_client.tls(world.authority.cert, world.client.cert, world.client.key)


def test_a_service_without_history_says_what_it_needs():
    with Service(None) as service, serving(lambda: service.server(GrpcSettings(port=0))) as server:
        service.open_market()
        with RiskClient(f"127.0.0.1:{server.port}", deadline_s=PATIENCE_S) as client:
            with pytest.raises(risk_client.PreconditionFailed, match="history"):
                client.expected_shortfall(portfolio(rows=ROWS), risk_client.historical(100))
            answer = client.stress_test(portfolio(rows=ROWS), risk_client.shocks([[-0.1]]))
            assert isinstance(answer.provenance, wire.Provenance)
