"""A portfolio belongs to who put it: others see and change it only where the settings say so."""

from __future__ import annotations

import pytest
from served import PATIENCE_S, Service, price_history, serving
from worlds import option, portfolio, spot_position

import risk_client
from protos.risk.v1 import risk_pb2 as wire
from risk_client import NotFound, PermissionDenied, RiskClient
from risk_service.settings import RiskSettings
from service_kit.grpc_server import GrpcSettings
from tests.service_kit.certificates import World

ROWS = (option(90.0, False, 10.0), spot_position(150.0))
TRADE = portfolio(rows=(option(90.0, False, 1.0),)).positions
RISK = RiskSettings(readers=("auditor",), writers=("head",))


@pytest.fixture(scope="module")
def desks(tmp_path_factory):
    """Clients of alice, bob, auditor and head; `desk` is alice's."""
    world = World.make(tmp_path_factory.mktemp("world"))
    with Service(price_history(), risk=RISK) as service:
        service.open_market()
        settings = GrpcSettings(**world.settings())
        with serving(lambda: service.server(settings)) as server:
            clients = {
                name: RiskClient(
                    f"localhost:{server.port}",
                    credentials=world.channel_credentials(world.client),
                    token=world.issuer.token(name),
                    deadline_s=PATIENCE_S,
                )
                for name in ("alice", "bob", "auditor", "head")
            }
            # Fills of account 7 go to this name, so a writer gives it to its owner.
            clients["head"].put_portfolio(portfolio(rows=ROWS, owner="alice"))
            yield clients
            for client in clients.values():
                client.close()


def first_risk(client, names):
    return next(iter(client.watch_risk(names, deadline_s=PATIENCE_S)))


def told(fraction):
    """Is told of progress."""


READS = {
    "get": lambda client: client.get_portfolio("desk"),
    "es": lambda client: client.expected_shortfall("desk", risk_client.historical(100)),
    "stress": lambda client: client.stress_test("desk", named=["2020-03"]),
    "what if": lambda client: client.what_if("desk", TRADE),
    "hedge": lambda client: client.hedge("desk", "delta"),
    "watch": lambda client: first_risk(client, ["desk"]),
    "es with progress": lambda client: client.expected_shortfall(
        "desk", risk_client.historical(100), progress=told
    ),
    "stress with progress": lambda client: client.stress_test("desk", named=["2020-03"], progress=told),
    "hedge with progress": lambda client: client.hedge("desk", "delta", progress=told),
}
WRITES = {
    "put": lambda client: client.put_portfolio(portfolio(rows=ROWS)),
    "delete": lambda client: client.delete_portfolio("desk"),
}


@pytest.mark.parametrize("what", [*READS, *WRITES])
def test_a_stranger_is_denied(desks, what):
    with pytest.raises(PermissionDenied, match="'bob' may not"):
        {**READS, **WRITES}[what](desks["bob"])


@pytest.mark.parametrize("who", ["alice", "auditor", "head"])
@pytest.mark.parametrize("what", READS)
def test_owner_readers_and_writers_may_read(desks, what, who):
    READS[what](desks[who])


@pytest.mark.parametrize("what", WRITES)
def test_a_reader_may_not_write(desks, what):
    with pytest.raises(PermissionDenied, match="'auditor' may not change portfolio 'desk'"):
        WRITES[what](desks["auditor"])


def test_lists_and_watches_hold_only_what_one_may_read(desks):
    desks["bob"].put_portfolio(portfolio("bob's", rows=ROWS))
    listed = {who: [one.portfolio for one in desks[who].list_portfolios()] for who in desks}
    everything = ["bob's", "desk"]
    assert listed == {"alice": ["desk"], "bob": ["bob's"], "auditor": everything, "head": everything}
    assert first_risk(desks["bob"], []).portfolio == "bob's"
    assert first_risk(desks["alice"], []).portfolio == "desk"


def test_an_owner_is_who_put_it_first_whatever_the_message_says(desks):
    claimed = portfolio("claimed", rows=ROWS, owner="bob")
    desks["alice"].put_portfolio(claimed)
    assert desks["alice"].get_portfolio("claimed").owner == "alice"
    assert desks["head"].put_portfolio(claimed) == 2
    assert desks["alice"].get_portfolio("claimed").owner == "alice"
    desks["head"].delete_portfolio("claimed")
    with pytest.raises(NotFound):
        desks["alice"].get_portfolio("claimed")
    desks["bob"].put_portfolio(claimed)
    with pytest.raises(PermissionDenied):
        desks["alice"].get_portfolio("claimed")


def test_a_watch_ends_its_right_when_the_name_gets_another_owner(desks):
    desks["alice"].put_portfolio(portfolio("shared", rows=ROWS))
    seen = iter(desks["alice"].watch_risk(["shared", "desk"], deadline_s=PATIENCE_S))
    assert {next(seen).portfolio, next(seen).portfolio} == {"shared", "desk"}
    desks["alice"].delete_portfolio("shared")
    desks["bob"].put_portfolio(portfolio("shared", rows=(spot_position(777.0),)))
    # Bob's number is out once his own watch has it; only then alice's next answer is asked for.
    assert first_risk(desks["bob"], ["shared"]).value == 77_700.0
    desks["alice"].put_portfolio(portfolio(rows=ROWS))
    assert next(seen).portfolio == "desk"
    seen.close()


def test_inline_portfolios_belong_to_nobody(desks):
    book = portfolio("desk", rows=ROWS)
    answer = desks["bob"].expected_shortfall(book, risk_client.historical(100))
    assert answer.tail[0].expected_shortfall > 0


def test_without_callers_told_apart_everything_is_everybodys():
    with Service(None) as service:
        service.loop.state.store.apply(portfolio("from the topic", rows=ROWS, version=1, owner="alice"))
        with (
            serving(lambda: service.server(GrpcSettings(port=0))) as server,
            RiskClient(f"127.0.0.1:{server.port}", deadline_s=PATIENCE_S) as client,
        ):
            assert client.get_portfolio("from the topic").owner == "alice"
            client.delete_portfolio("from the topic")
            assert client.list_portfolios() == []


def test_every_rpc_that_reads_or_changes_a_portfolio_is_here():
    of_portfolios = {
        method.name
        for method in wire.DESCRIPTOR.services_by_name["RiskService"].methods
        if {"portfolio", "portfolios"} & {field.name for field in method.input_type.fields}
    }
    assert len(of_portfolios) == len({**READS, **WRITES})
