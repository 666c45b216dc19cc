"""Small requests for an engine in another process go together; each answer is what it is alone."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import grpc
import numpy as np
import pytest
from served import PATIENCE_S, Service

import gpu_kernels as gk
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_service import engines as engines_module
from risk_service.api import gathering
from risk_service.api.gathering import joined
from risk_service.engines import Engines
from risk_service.worker.engine import WorkerEngine
from service_kit.grpc_server import GrpcSettings

SETTINGS = GrpcSettings(port=0, max_calls_per_principal=512)


class Held(WorkerEngine):
    """A worker's engine that can be held at its door, and notes how many rows each call has."""

    rows: list[int]
    open: threading.Event

    @classmethod
    def over(cls, engine: WorkerEngine) -> Held:
        held = cls(engine._supervisor)
        held.rows, held.open = [], threading.Event()
        held.open.set()
        return held

    def _rows(self, kind, result, options, method, price, out):
        self.rows.append(options.size)
        assert self.open.wait(PATIENCE_S)
        return super()._rows(kind, result, options, method, price, out)


@pytest.fixture(scope="module")
def engines():
    # What is measured depends on the machine.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines_module, "gathered_options", lambda engine: 8_192)
        yield from started()


def started():
    engines = Engines.start("cpu", "always")
    engines.warm_up()
    engines.serving = Held.over(engines.serving)
    yield engines
    engines.close()


@pytest.fixture(scope="module")
def service(engines):
    with Service(None, engine=engines.cpu) as service:
        service.engines = engines
        yield service


def request(random, rows, kind=wire.GreeksRequest, american=False):
    columns = wire.OptionColumns(rate=[0.02], american=[american])
    for name, low, high in (("spot", 80, 120), ("strike", 80, 120), ("expiry", -0.1, 2), ("vol", 0.1, 0.5)):
        packing.write(columns, name, random.uniform(low, high, rows))
    return kind(options=columns)


def alone(engine, message, what):
    columns = {field.name: np.array(values) for field, values in message.options.ListFields()}
    return getattr(engine, what)(gk.Options(**columns)).columns()


async def calls_while_busy(stub, held, requests, method):
    """Sends the first, and all others while the engine computes it; the calls."""
    held.open.clear()
    held.rows.clear()
    first = method(stub)(requests[0], timeout=PATIENCE_S)
    async with asyncio.timeout(PATIENCE_S):
        while not held.rows:
            await asyncio.sleep(0.001)
    return [first, *(method(stub)(one, timeout=PATIENCE_S) for one in requests[1:])]


def counts(servicer):
    return servicer.options.gathering.batches, servicer.options.gathering.gathered


@pytest.fixture
async def running(service):
    servicer = service.servicer(SETTINGS)
    async with (
        service.server(SETTINGS, servicer) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield servicer, RiskServiceStub(channel)


@pytest.mark.parametrize("american", [False, True])
async def test_gathered_or_alone_the_bits_are_the_same(running, engines, seed, american):
    servicer, stub = running
    random = np.random.default_rng(seed)
    sizes = [1, *random.integers(1, 8, 40).tolist(), 37]
    requests = [request(random, rows, american=american) for rows in sizes]
    before = counts(servicer)
    calls = await calls_while_busy(stub, engines.serving, requests, lambda one: one.Greeks)
    engines.serving.open.set()
    answers = await asyncio.gather(*calls)
    batches, gathered = (now - then for now, then in zip(counts(servicer), before, strict=True))
    assert gathered == len(requests)
    assert batches < len(requests)
    assert sum(engines.serving.rows) == sum(sizes)
    for message, answer in zip(requests, answers, strict=True):
        expected = alone(engines.cpu, message, "greeks")
        for name, column in zip(gk.GreeksResult.COLUMNS, expected, strict=True):
            np.testing.assert_array_equal(packing.read(answer, name), column)
        assert not answer.provenance.degraded


async def test_prices_and_vols_are_gathered_apart(running, engines, seed):
    _, stub = running
    random = np.random.default_rng(seed)
    priced = [request(random, rows, wire.PriceRequest) for rows in (1, 5, 3)]
    engines.serving.open.set()
    prices = await asyncio.gather(*(stub.Price(one, timeout=PATIENCE_S) for one in priced))
    vols = await asyncio.gather(
        *(
            stub.ImpliedVolatility(
                wire.ImpliedVolatilityRequest(options=one.options, price=answer.price), timeout=PATIENCE_S
            )
            for one, answer in zip(priced, prices, strict=True)
        )
    )
    for message, price, vol in zip(priced, prices, vols, strict=True):
        expected = alone(engines.cpu, message, "price")
        np.testing.assert_array_equal(packing.read(price, "price"), expected[0])
        columns = {field.name: np.array(values) for field, values in message.options.ListFields()}
        implied = engines.cpu.implied_vol(gk.Options(**columns), expected[0])
        np.testing.assert_array_equal(packing.read(vol, "vol"), implied.vol)


async def test_a_full_batch_waits_for_nobody(running, engines, seed, monkeypatch):
    _, stub = running
    monkeypatch.setattr(gathering, "BATCH_COST", 10)
    monkeypatch.setattr(gathering, "WAIT_S", 3600.0)
    random = np.random.default_rng(seed)
    requests = [request(random, rows) for rows in (1, 4, 4, 4)]
    calls = await calls_while_busy(stub, engines.serving, requests, lambda one: one.Greeks)
    async with asyncio.timeout(PATIENCE_S):
        while len(engines.serving.rows) < 2:  # though the first still computes
            await asyncio.sleep(0.001)
    assert engines.serving.rows == [1, 12]
    engines.serving.open.set()
    await asyncio.gather(*calls)


async def test_a_batch_goes_when_its_first_has_waited_long_enough(running, engines, seed):
    _, stub = running
    random = np.random.default_rng(seed)
    calls = await calls_while_busy(
        stub, engines.serving, [request(random, rows) for rows in (1, 2)], lambda one: one.Greeks
    )
    async with asyncio.timeout(PATIENCE_S):
        while len(engines.serving.rows) < 2:
            await asyncio.sleep(0.001)
    assert engines.serving.rows == [1, 2]
    engines.serving.open.set()
    await asyncio.gather(*calls)


async def test_who_leaves_takes_nobody_along(running, engines, seed, monkeypatch):
    _, stub = running
    monkeypatch.setattr(gathering, "WAIT_S", 3600.0)
    random = np.random.default_rng(seed)
    requests = [request(random, rows) for rows in (1, 2, 3)]
    calls = await calls_while_busy(stub, engines.serving, requests, lambda one: one.Greeks)
    late = stub.Greeks(request(random, 5), timeout=0.2)
    with pytest.raises(grpc.aio.AioRpcError) as fault:
        await late
    assert fault.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    calls[1].cancel()
    engines.serving.open.set()
    assert [len((await calls[place]).price) for place in (0, 2)] == [1, 3]


async def test_a_worker_that_dies_is_stood_in_for_in_the_whole_batch(running, engines, seed):
    _, stub = running
    random = np.random.default_rng(seed)
    requests = [request(random, rows) for rows in (1, 2, 3)]
    calls = await calls_while_busy(stub, engines.serving, requests, lambda one: one.Greeks)
    supervisor = engines.supervisor("cpu")
    os.kill(supervisor.pid, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):
        while supervisor.ready:
            await asyncio.sleep(0.001)
    engines.serving.open.set()
    answers = await asyncio.gather(*calls)
    assert supervisor.wait_ready(PATIENCE_S)
    for message, answer in zip(requests, answers, strict=True):
        np.testing.assert_array_equal(packing.read(answer, "charm"), alone(engines.cpu, message, "greeks")[8])


async def test_a_fault_of_one_is_not_the_others(running, engines, seed, monkeypatch):
    _, stub = running
    random = np.random.default_rng(seed)
    plain = WorkerEngine._rows

    def picky(self, kind, result, options, method, price, out):
        if 3 in (options.size, options.size - 2):
            raise gk.InvalidInput("spot", "is not for this engine", 1)
        return plain(self, kind, result, options, method, price, out)

    requests = [request(random, rows) for rows in (1, 2, 3)]
    calls = await calls_while_busy(stub, engines.serving, requests, lambda one: one.Greeks)
    monkeypatch.setattr(WorkerEngine, "_rows", picky)
    engines.serving.open.set()
    assert len((await calls[1]).price) == 2
    with pytest.raises(grpc.aio.AioRpcError) as fault:
        await calls[2]
    assert fault.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "is not for this engine" in fault.value.details()


async def test_what_gains_nothing_together_goes_alone(running, engines, seed, monkeypatch):
    servicer, stub = running
    monkeypatch.setitem(engines._gathered, "cpu", 0)
    engines.serving.open.set()
    random = np.random.default_rng(seed)
    before = counts(servicer)
    answers = await asyncio.gather(
        *(stub.Greeks(request(random, rows), timeout=PATIENCE_S) for rows in (1, 2, 3))
    )
    assert [len(one.price) for one in answers] == [1, 2, 3]
    assert counts(servicer) == before


def test_columns_of_one_value_are_spread_and_flags_kept(seed):
    random = np.random.default_rng(seed)
    parts = [
        (gk.Options(spot=random.uniform(80, 120, rows), strike=100.0, expiry=1.0, vol=0.2), 5.0)
        for rows in (1, 3)
    ]
    options, prices = joined(parts)
    assert options.shape == (4,)
    assert options.american.size == 1
    np.testing.assert_array_equal(options.spot, np.concatenate([one.spot for one, _ in parts]))
    np.testing.assert_array_equal(prices, np.full(4, 5.0))
    mixed, none = joined([(parts[0][0], None), (parts[0][0].replace(american=True), None)])
    assert none is None
    assert mixed.american.tolist() == [False, True]
