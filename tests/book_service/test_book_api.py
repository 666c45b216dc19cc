"""BookService over gRPC: orders in, depth out, every refusal, and two thousand requests of noise.

The log is in memory and matched at once by the real venues, one per partition; over Kafka it is tested end
to end.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from book_service import order_events
from book_service.api.access import Access
from book_service.api.servicer import BookServicer
from book_service.matching import MatchingEngine
from book_service.order_log import by_partition
from book_service.venue import Listed, Venue, warm_up
from protos import packing, topics
from protos.book.v1 import book_pb2 as wire
from protos.book.v1.book_pb2_grpc import add_BookServiceServicer_to_server
from protos.market.v1.market_pb2 import SIDE_BUY, SIDE_SELL, Origin
from protos.orders.v1 import orders_pb2 as orders
from service_kit.errors import SettingError
from service_kit.grpc_server import GrpcServer, GrpcSettings
from service_kit.kafka.control_log import Acknowledged, answered
from service_kit.kafka.partitioning import partition_of
from tests.service_kit.certificates import World
from tests.service_kit.rpc_faults import FaultCase, Outcome, call, fault_cases, secure_channel
from tests.service_kit.rpc_fuzz import fuzz

RPCS = wire.DESCRIPTOR.services_by_name["BookService"]
CASES = fault_cases(RPCS)
LISTED = (Listed("AAA", 0.01), Listed("BBB", 0.05), Listed("CCC", 1.0))
SYMBOLS = tuple(one.symbol for one in LISTED)
PARTITIONS = 4
REQUESTS = 2_000


class Market:
    """Venues over a log in memory."""

    def __init__(self) -> None:
        self.venues = {
            number: Venue(LISTED, MatchingEngine.default_controls()) for number in range(PARTITIONS)
        }
        self.log: dict[int, list[orders.OrderBatch]] = {number: [] for number in range(PARTITIONS)}
        self.made: dict[int, orders.ExecutionBatch] = {}
        self.executor = ThreadPoolExecutor(2)
        self._lock = threading.Lock()

    def append(self, batch: orders.OrderBatch) -> list[Origin]:
        """As KafkaOrderLog.append; what is logged is matched at once."""
        with self._lock:
            return [
                self._match(partition_of(part.symbols[0], PARTITIONS), part)
                for part in by_partition(batch, PARTITIONS)
            ]

    def send(self, batches: Mapping[int, orders.OrderBatch], within_s: float) -> list[Acknowledged]:
        """As ControlLog.send; each is applied at once."""
        with self._lock:
            return [
                answered(number, self._match(number, one).offset, self.made[number])
                for number, one in batches.items()
            ]

    def _match(self, number: int, part: orders.OrderBatch) -> Origin:
        at = Origin(topic=topics.ORDERS_INCOMING, partition=number, offset=len(self.log[number]))
        self.log[number].append(part)
        self.made[number] = self.venues[number].apply(order_events.decode(part.SerializeToString()), at)
        return at

    def book(self, symbol: str, levels: int) -> wire.Book | None:
        """As VenueLoop.book."""
        if symbol not in SYMBOLS:
            return None
        with self._lock:
            return self.venues[partition_of(symbol, PARTITIONS)].book(symbol, levels)

    def server(self, settings: GrpcSettings, **access: Any) -> GrpcServer:
        """A server over these venues; its callers are operators unless told otherwise."""
        access = access or {"access": Access(frozenset({"desk-1", "anonymous"}))}
        servicer = BookServicer(self.book, self, self, SYMBOLS, self.executor, **access)
        return GrpcServer(settings, [(add_BookServiceServicer_to_server, servicer, RPCS.full_name)])


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    warm_up()
    market = Market()
    yield market
    market.executor.shutdown()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


def batch(symbols: list[str], **columns: Any) -> orders.OrderBatch:
    message = orders.OrderBatch(symbols=symbols)
    columns.setdefault("action", [orders.ACTION_NEW])
    for name, values in columns.items():
        packing.write(message, name, np.atleast_1d(values))
    return message


ORDERS = batch(
    ["AAA", "BBB"],
    symbol_index=[0, 0, 0, 1],
    order_id=[1, 2, 3, 4],
    account=[7],
    side=[SIDE_BUY, SIDE_BUY, SIDE_SELL, SIDE_SELL],
    price_ticks=[100, 99, 105, 20],
    quantity=[10, 20, 30, 40],
    time_ns=[1],
)
GOOD = {
    "SubmitOrders": [wire.SubmitOrdersRequest(orders=ORDERS)],
    "GetBook": [wire.GetBookRequest(symbol="AAA", levels=5)],
    "WatchBook": [wire.WatchBookRequest(symbol="AAA", min_interval_ms=1)],
    "Kill": [wire.KillRequest(reason="test")],
    "SetLimits": [wire.SetLimitsRequest(accounts=[7], open_exposure=1e6, capital=1e7)],
}


async def ask(market: Market, name: str, request: Any, **access: Any) -> Outcome:
    """One call, in plain text."""
    async with (
        market.server(GrpcSettings(port=0), **access) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        return await call(channel, RPCS.methods_by_name[name], request=request)


async def test_orders_are_logged_by_partition_and_seen_in_the_book() -> None:
    market = Market()
    sent = await ask(market, "SubmitOrders", wire.SubmitOrdersRequest(orders=ORDERS))
    assert sent.code is grpc.StatusCode.OK, sent
    homes = {partition_of(symbol, PARTITIONS) for symbol in ("AAA", "BBB")}
    assert {one.partition for one in sent.messages[0].logged} == homes
    kept = [part for log in market.log.values() for part in log]
    assert {part.client for part in kept} == {"anonymous"}
    book = (await ask(market, "GetBook", wire.GetBookRequest(symbol="AAA"))).messages[0]
    assert (list(book.bid_price_ticks), list(book.bid_quantity)) == ([100, 99], [10, 20])
    assert (list(book.ask_price_ticks), list(book.ask_quantity)) == ([105], [30])
    assert (book.symbol, book.tick_size) == ("AAA", 0.01)
    one = (await ask(market, "GetBook", wire.GetBookRequest(symbol="AAA", levels=1))).messages[0]
    assert list(one.bid_price_ticks) == [100]
    market.executor.shutdown()


async def test_the_time_of_an_order_is_that_of_its_arrival() -> None:
    """The venue's clock is the latest time of any message: a caller must not be able to move it."""
    market = Market()
    sent = batch(["AAA"], symbol_index=[0], order_id=[1, 2], time_ns=[2**62, -5], quantity=[0, 1])
    before = time.time_ns()
    await ask(market, "SubmitOrders", wire.SubmitOrdersRequest(orders=sent))
    [kept] = [part for log in market.log.values() for part in log]
    assert all(before <= one <= time.time_ns() for one in kept.time_ns)
    market.executor.shutdown()


async def test_a_watch_gives_the_book_now_and_every_change() -> None:
    market = Market()
    async with (
        market.server(GrpcSettings(port=0)) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        watch = channel.unary_stream(
            f"/{RPCS.full_name}/WatchBook",
            request_serializer=wire.WatchBookRequest.SerializeToString,
            response_deserializer=wire.Book.FromString,
        )(wire.WatchBookRequest(symbol="AAA", min_interval_ms=1), timeout=30)
        books = aiter(watch)
        assert not (await anext(books)).bid_price_ticks
        market.append(ORDERS)
        assert list((await anext(books)).bid_price_ticks) == [100, 99]
        watch.cancel()
    market.executor.shutdown()


async def test_a_kill_cancels_every_order_on_every_partition() -> None:
    market = Market()
    await ask(market, "SubmitOrders", wire.SubmitOrdersRequest(orders=ORDERS))
    killed = await ask(market, "Kill", wire.KillRequest(reason="test"))
    acknowledged = killed.messages[0].acknowledged
    assert [one.partition for one in acknowledged] == list(range(PARTITIONS))
    assert sum(one.cancelled for one in acknowledged) == 4
    for symbol in SYMBOLS:
        book = (await ask(market, "GetBook", wire.GetBookRequest(symbol=symbol))).messages[0]
        assert not book.bid_price_ticks
        assert not book.ask_price_ticks
    market.executor.shutdown()


async def test_limits_are_split_over_the_partitions_and_told() -> None:
    market = Market()
    wanted = wire.SetLimitsRequest(
        accounts=[7, 8], open_exposure=1_000.5, loss=20.0, message_rate=10, capital=5e5, breaker_loss=0.03
    )
    outcome = await ask(market, "SetLimits", wanted, **EVERYONE, money_unit=0.01)
    assert outcome.code is grpc.StatusCode.OK, outcome

    def told(limit: str, account: int) -> list[float]:
        found = [one for one in outcome.messages[0].budgets if (one.limit, one.account) == (limit, account)]
        assert [one.partition for one in found] == list(range(PARTITIONS))
        return [round(one.value, 9) for one in found]

    for account in (7, 8):
        assert told("open_exposure", account) == [250.13, 250.13, 250.12, 250.12]
        assert told("loss", account) == [5.0] * 4
        assert told("message_rate", account) == [3, 3, 2, 2]
    breaker = [one for one in outcome.messages[0].budgets if one.limit == "breaker_loss"]
    assert [(one.value, one.every_account) for one in breaker] == [(0.0075, True)] * PARTITIONS
    asked = wire.SetLimitsRequest(accounts=[8])
    again = await ask(market, "SetLimits", asked, **EVERYONE, money_unit=0.01)
    assert len(again.messages[0].budgets) == 5 * PARTITIONS
    assert all(one in outcome.messages[0].budgets for one in again.messages[0].budgets)
    off = await ask(market, "SetLimits", wire.SetLimitsRequest(accounts=[8], loss=-1), **EVERYONE)
    assert {one.value for one in off.messages[0].budgets if one.limit == "loss"} == {-1.0}
    market.executor.shutdown()


CONTROL = batch(["AAA"], symbol_index=[0], action=[orders.ACTION_CONTROL], kind=[3], flags=[6])
EVERYONE: dict[str, Any] = {"access": Access(everyone=True)}
NOBODY: dict[str, Any] = {"access": Access(frozenset({"boss"}))}


def trader(*accounts: str) -> dict[str, Any]:
    """The caller of these tests may trade for these."""
    return {"access": Access.of(["boss"], [f"anonymous={one}" for one in accounts])}


DENIED, PRECONDITION = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("name", "request_", "access", "code"),
    [
        ("Kill", wire.KillRequest(), NOBODY, DENIED),
        (
            "SubmitOrders",
            wire.SubmitOrdersRequest(orders=CONTROL),
            NOBODY,
            DENIED,
        ),
        ("SubmitOrders", wire.SubmitOrdersRequest(orders=ORDERS), NOBODY, DENIED),
        ("SubmitOrders", wire.SubmitOrdersRequest(orders=ORDERS), trader("1-6", "8"), DENIED),
        ("SubmitOrders", wire.SubmitOrdersRequest(orders=ORDERS), trader("1", "7-9"), None),
        ("SubmitOrders", wire.SubmitOrdersRequest(orders=CONTROL), trader("0-9"), DENIED),
        ("SubmitOrders", wire.SubmitOrdersRequest(orders=CONTROL), EVERYONE, None),
        ("Kill", wire.KillRequest(), EVERYONE, None),
        ("SetLimits", wire.SetLimitsRequest(loss=5), NOBODY, DENIED),
        ("SetLimits", wire.SetLimitsRequest(loss=5), EVERYONE, None),
        ("SetLimits", wire.SetLimitsRequest(), EVERYONE | {"has_controls": False}, PRECONDITION),
        ("Kill", wire.KillRequest(), EVERYONE | {"has_controls": False}, PRECONDITION),
    ],
)
async def test_only_operators_control_and_kill(name, request_, access, code) -> None:  # type: ignore[no-untyped-def]
    market = Market()
    ended = await ask(market, name, request_, **access)
    assert ended.code is (code or grpc.StatusCode.OK), ended
    assert bool(sum(len(log) for log in market.log.values())) == (code is None)
    market.executor.shutdown()


INVALID, MISSING = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("name", "request_", "code", "says"),
    [
        ("GetBook", wire.GetBookRequest(symbol="ZZZ"), MISSING, "no instrument named 'ZZZ'"),
        ("GetBook", wire.GetBookRequest(symbol="AAA", levels=1_001), INVALID, "levels: is more than 1000"),
        ("WatchBook", wire.WatchBookRequest(symbol="ZZZ"), MISSING, "no instrument named 'ZZZ'"),
        ("WatchBook", wire.WatchBookRequest(symbol="AAA", levels=1_001), INVALID, "levels: is more than"),
        (
            "WatchBook",
            wire.WatchBookRequest(symbol="AAA", min_interval_ms=60_001),
            INVALID,
            "min_interval_ms: is more than 60000",
        ),
        ("SubmitOrders", wire.SubmitOrdersRequest(), INVALID, "orders.action: the batch has no orders"),
        (
            "SubmitOrders",
            wire.SubmitOrdersRequest(orders=batch(["AAA", "AAA"])),
            INVALID,
            "orders.symbols: names a symbol twice",
        ),
        (
            "SubmitOrders",
            wire.SubmitOrdersRequest(orders=batch(["AAA"], symbol_index=[0, 1])),
            INVALID,
            "orders.symbol_index[1]: 1 is outside symbols",
        ),
        (
            "SubmitOrders",
            wire.SubmitOrdersRequest(orders=batch(["AAA"], flags=[0, 70_000])),
            INVALID,
            "orders.flags[1]: 70000 does not fit",
        ),
        ("SetLimits", wire.SetLimitsRequest(accounts=[1, 1]), INVALID, "accounts: names an account twice"),
        ("SetLimits", wire.SetLimitsRequest(accounts=range(1_001)), INVALID, "accounts: has more than 1000"),
        ("SetLimits", wire.SetLimitsRequest(loss=float("nan")), INVALID, "loss: is no number"),
        ("SetLimits", wire.SetLimitsRequest(open_exposure=1e300), INVALID, "open_exposure: is more than"),
        ("SetLimits", wire.SetLimitsRequest(capital=1.0), INVALID, "capital: is of accounts"),
        ("SetLimits", wire.SetLimitsRequest(by_use=True), INVALID, "by_use: needs one account"),
        (
            "SubmitOrders",
            wire.SubmitOrdersRequest(orders=batch(["AAA"], quantity=[1, 2], order_id=[1, 2, 3])),
            INVALID,
            "orders.quantity: has 2 entries",
        ),
    ],
)
async def test_what_is_wrong_is_named(
    market: Market, name: str, request_: Any, code: grpc.StatusCode, says: str
) -> None:
    outcome = await ask(market, name, request_)
    assert says in outcome.text
    assert outcome.code is code


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_refused(case: FaultCase, world: World, market: Market) -> None:
    await case.check(market.server, world)


async def test_a_whole_battery_leaves_nothing_behind(world: World, market: Market) -> None:
    process = psutil.Process()
    battery = [case for case in CASES if case.method.name in ("SubmitOrders", "WatchBook")]

    async def run() -> tuple[int, int]:
        for case in battery:
            await case.check(market.server, world)
        gc.collect()
        return process.num_fds(), process.num_threads()

    await run()  # fills grpc's own pools
    fds, threads = await run()
    again = await run()
    async with asyncio.timeout(60):
        # grpc closes its sockets and lets its threads go in the background.
        while again[0] > fds or again[1] > threads + 4:
            await asyncio.sleep(0.01)
            again = process.num_fds(), process.num_threads()


async def test_the_same_calls_pass_without_the_fault(world: World, market: Market) -> None:
    async with (
        market.server(GrpcSettings(**world.settings())) as server,
        secure_channel(server, world, world.client) as channel,
    ):
        for name, (request, *_) in GOOD.items():
            method = RPCS.methods_by_name[name]
            outcome = await call(channel, method, metadata=world.bearer(), request=request)
            assert outcome.code is grpc.StatusCode.OK, (name, outcome)
    assert "desk-1" in {part.client for log in market.log.values() for part in log}


async def test_nothing_that_is_sent_breaks_the_service(seed: int) -> None:
    market = Market()
    async with (
        market.server(GrpcSettings(port=0)) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        outcomes = await fuzz(channel, RPCS, GOOD, seed, REQUESTS, SYMBOLS)
    print(outcomes)
    assert outcomes[grpc.StatusCode.OK] > REQUESTS / 20
    assert outcomes[grpc.StatusCode.INVALID_ARGUMENT] > REQUESTS / 20
    market.executor.shutdown()


@pytest.mark.parametrize("entry", ["desk", "=7", "desk=", "desk=x", "desk=9-7", "desk=-7", f"desk={2**32}"])
def test_accounts_that_are_none_are_refused(entry: str) -> None:
    with pytest.raises(SettingError, match=r"book\.accounts"):
        Access.of([], [entry])
