"""Changes of portfolios: in turn, in a thread of their own, and no more of them than the service can hold."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc
import numpy as np
import pytest
from served import PATIENCE_S, LogInMemory, Service, serving
from worlds import option, portfolio, spot_position

from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_client import PermissionDenied, RiskClient
from risk_service.api import portfolio_rpcs
from risk_service.api.access import Access
from risk_service.api.portfolio_limits import ChangeBudget, PortfolioLimits
from risk_service.portfolios import check
from risk_service.positions import AccountRule
from risk_service.settings import RiskSettings
from service_kit import errors
from service_kit.grpc_server import GrpcSettings

ROWS = (option(90.0, False, 10.0), spot_position(150.0))


class GatedLog(LogInMemory):
    """A log whose brokers are away until they are let back."""

    def __init__(self, topic):
        super().__init__(topic)
        self.asked, self.back, self.logged = threading.Event(), threading.Event(), []

    def put(self, message):
        self.asked.set()
        assert self.back.wait(PATIENCE_S)
        self.logged.append(message.portfolio)
        return super().put(message)


@pytest.fixture
def served():
    """The service, a stub of it, and its log, away."""
    with Service(None) as service:
        service.open_market()
        log = GatedLog(service.portfolios)

        def server():
            servicer = service.servicer(GrpcSettings(port=0))
            servicer.portfolios.log = log
            return service.server(GrpcSettings(port=0), servicer)

        with (
            serving(server) as running,
            grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel,
        ):
            yield service, RiskServiceStub(channel), log
            log.back.set()


def put_of(name="desk", rows=ROWS, version=0):
    return wire.PutPortfolioRequest(portfolio=portfolio(name, rows=rows), expected_version=version)


def refused(code, call):
    with pytest.raises(grpc.RpcError) as fault:
        call()
    assert fault.value.code() is code, fault.value
    return fault.value


def test_a_log_that_does_not_answer_holds_up_changes_alone(served, monkeypatch):
    _, stub, log = served
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(stub.PutPortfolio, put_of(), timeout=PATIENCE_S)
        assert log.asked.wait(PATIENCE_S)
        monkeypatch.setattr(portfolio_rpcs, "LOG_SLOW_S", 0.0)
        for request in (put_of("desk"), put_of("other")):
            told = refused(grpc.StatusCode.UNAVAILABLE, partial(stub.PutPortfolio, request, timeout=60))
            assert "the log of portfolios does not answer" in told.details()
        gone = wire.DeletePortfolioRequest(portfolio="desk")
        refused(grpc.StatusCode.UNAVAILABLE, lambda: stub.DeletePortfolio(gone, timeout=60))
        # More than is computed in the event loop, so it needs a thread.
        options = wire.OptionColumns(strike=[100.0], expiry=[1.0], vol=[0.2])
        packing.write(options, "spot", np.full(100_000, 100.0))
        answers = [stub.Price(wire.PriceRequest(options=options), timeout=PATIENCE_S) for _ in range(8)]
        assert {len(one.price) for one in answers} == {100_000}
        log.back.set()
        assert first.result(PATIENCE_S).version == 1
    assert stub.PutPortfolio(put_of(version=1), timeout=PATIENCE_S).version == 2
    assert log.logged == ["desk", "desk"]


def test_a_caller_who_leaves_takes_along_what_has_not_begun(served):
    service, stub, log = served
    first = stub.PutPortfolio.future(put_of(), timeout=PATIENCE_S)
    assert log.asked.wait(PATIENCE_S)
    waiting = [stub.PutPortfolio.future(put_of(name), timeout=PATIENCE_S) for name in ("second", "third")]
    while len(service.last_server.guard.open) < 3:
        assert not first.done()
    for one in (first, *waiting):
        one.cancel()
    while service.last_server.guard.open:
        assert service.thread.is_alive()
    log.back.set()
    # What was being logged is held, by the version that the log has; the others never were.
    assert stub.PutPortfolio(put_of("last"), timeout=PATIENCE_S).version == 1
    assert log.logged == ["desk", "last"]
    held = stub.ListPortfolios(wire.ListPortfoliosRequest(), timeout=PATIENCE_S).portfolios
    assert [(one.portfolio, one.version) for one in held] == [("desk", 1), ("last", 1)]


LIMITS = PortfolioLimits(portfolios=4, positions=9, portfolios_each=2, positions_each=5)


def sent(name, rows, owner="", underlyings=("IDX",)):
    return portfolio(name, rows=[spot_position(1.0)] * rows, owner=owner, underlyings=underlyings)


def held(name, rows, owner):
    return check(sent(name, rows, owner))


@pytest.mark.parametrize(
    ("name", "rows", "owner", "why"),
    [
        ("c", 1, "alice", r"portfolio: 2 portfolios of 'alice' are the most"),
        ("a", 4, "alice", r"4 positions would make 6 of 'alice', more than the 5"),
        ("c", 3, "bob", r"3 positions would make 10 in all, more than the 9"),
        ("a", 3, "alice", None),
        ("c", 2, "bob", None),
    ],
)
def test_what_is_one_too_many_is_refused(name, rows, owner, why):
    there = [held("a", 2, "alice"), held("b", 2, "alice"), held("d", 3, "carol")]
    if why is None:
        LIMITS.expect_room(there, sent(name, rows), owner)
        return
    with pytest.raises(errors.TooLarge, match=why):
        LIMITS.expect_room(there, sent(name, rows), owner)


def test_underlyings_count_in_every_portfolio_that_names_them():
    limits, there = (
        PortfolioLimits(underlyings=5, underlyings_each=3),
        [held("a", 1, "al"), held("b", 1, "bo")],
    )
    limits.expect_room(there, sent("c", 1, underlyings=("IDX", "ABC", "XYZ")), "carol")
    limits.expect_room(there, sent("a", 1, underlyings=("IDX", "ABC", "XYZ")), "al")
    with pytest.raises(errors.TooLarge, match="3 underlyings would make 4 of 'al', more than the 3"):
        limits.expect_room(there, sent("c", 1, underlyings=("IDX", "ABC", "XYZ")), "al")
    with pytest.raises(errors.TooLarge, match="4 underlyings would make 6 in all, more than the 5"):
        limits.expect_room(there, sent("c", 1, underlyings=("A", "B", "C", "D")), None)


def test_where_callers_are_not_told_apart_only_the_whole_counts():
    there = [held("a", 2, "anonymous"), held("b", 2, "anonymous"), held("d", 3, "anonymous")]
    LIMITS.expect_room(there, sent("c", 2), None)
    with pytest.raises(errors.TooLarge, match="4 portfolios in all"):
        LIMITS.expect_room([*there, held("e", 0, "anonymous")], sent("c", 2), None)


def test_who_puts_too_fast_waits_and_nobody_else_does():
    now = [0.0]
    limits = PortfolioLimits(changed_per_second=1_000.0, changed_at_once=2_000.0)
    budget = ChangeBudget(limits, clock=lambda: now[0])
    budget.spend("mallory", 5_000)  # one alone is never too large
    with pytest.raises(errors.QuotaExceeded, match="positions put per second by 'mallory'") as told:
        budget.spend("mallory", 500)
    assert told.value.retry_after_s == pytest.approx(3.5)
    budget.spend("alice", 500)
    now[0] = 3.5
    budget.spend("mallory", 500)
    with pytest.raises(errors.QuotaExceeded):
        budget.spend("mallory", 1)


def test_the_settings_limits_reach_the_service():
    risk = RiskSettings(portfolios_max=1, positions_max=3, positions_put_per_second_max=1.0)
    with (
        Service(None, risk=risk) as service,
        serving(lambda: service.server(GrpcSettings(port=0))) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = RiskServiceStub(channel)
        told = refused(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            lambda: stub.PutPortfolio(put_of(rows=ROWS * 2), timeout=PATIENCE_S),
        )
        assert "portfolio.positions: 4 positions" in told.details()
        stub.PutPortfolio(put_of(), timeout=PATIENCE_S)
        told = refused(
            grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: stub.PutPortfolio(put_of("two"), timeout=60)
        )
        assert "portfolio: 1 portfolios in all" in told.details()
        # Put again it is the same portfolio, and so it may be.
        assert stub.PutPortfolio(put_of(), timeout=PATIENCE_S).version == 2


FILLS = AccountRule({7: "alpha"}, "desk-")


@pytest.mark.parametrize("name", ["alpha", "desk-7", "desk-12345"])
def test_a_name_that_fills_go_to_is_put_first_by_a_writer_who_names_its_owner(name):
    access = Access(writers=frozenset(("head",)), fills=FILLS)
    with pytest.raises(errors.PermissionDenied, match="fills are routed to it"):
        access.owner_of_new(name, "mallory", "mallory")
    assert access.owner_of_new(name, "alice", "head") == "alice"
    assert access.owner_of_new(name, "", "head") == "head"


@pytest.mark.parametrize("name", ["beta", "desk-", "desk-7a", "my desk-7"])
def test_any_other_name_is_anybodys(name):
    access = Access(writers=frozenset(("head",)), fills=FILLS)
    assert access.owner_of_new(name, "alice", "mallory") == "mallory"


def test_a_stranger_gets_no_fills_by_taking_the_name_first(tmp_path):
    from tests.service_kit.certificates import World

    world = World.make(tmp_path)
    with (
        Service(None, risk=RiskSettings(writers=("head",))) as service,
        serving(lambda: service.server(GrpcSettings(**world.settings()))) as server,
    ):

        def client(name):
            return RiskClient(
                f"localhost:{server.port}",
                credentials=world.channel_credentials(world.client),
                token=world.issuer.token(name),
                deadline_s=PATIENCE_S,
            )

        with client("mallory") as mallory, client("head") as head, client("alice") as alice:
            with pytest.raises(PermissionDenied, match="fills are routed to it"):
                mallory.put_portfolio(portfolio(rows=ROWS))
            head.put_portfolio(portfolio(rows=ROWS, owner="alice"))
            assert alice.put_portfolio(portfolio(rows=ROWS)) == 2
            with pytest.raises(PermissionDenied):
                mallory.get_portfolio("desk")
