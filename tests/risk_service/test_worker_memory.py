"""A worker whose engine runs out of memory, or loses its device: what callers of the service see."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from served import PATIENCE_S, STRIKES, Service, price_history, serving
from worlds import option, portfolio

import gpu_kernels as gk
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_service.engines import Engines
from risk_service.worker import process
from service_kit.grpc_server import GrpcSettings

ROOM = 3_000  # rows at once
SCENARIO_ROOM = 50  # scenarios at once
NEVER_FITS, POISONS = 123.0, 666.0  # spots
run_worker = process.run


class CUDARuntimeError(RuntimeError):
    """Named as CuPy's."""


class Cramped(gk.Engine):
    """The CPU engine on a device with little memory."""

    def greeks(self, options, **keywords):
        spot = float(options.spot.reshape(-1)[0])
        if spot == POISONS:
            raise CUDARuntimeError("cudaErrorIllegalAddress")
        if options.size > ROOM or spot == NEVER_FITS:
            raise MemoryError("out of device memory")
        return super().greeks(options, **keywords)

    def revalue(self, portfolio, scenarios, **keywords):
        if len(scenarios) > SCENARIO_ROOM:
            raise MemoryError("out of device memory")
        return super().revalue(portfolio, scenarios, **keywords)


def run_cramped(wanted, control, lanes):
    """The worker's life with a cramped engine; runs in its process."""
    found = gk.engine(wanted)
    gk.engine = lambda name: Cramped(found.name, found.device, found._backend)
    run_worker(wanted, control, lanes)


@pytest.fixture(scope="module")
def engines():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "run", run_cramped)
        engines = Engines.start("cpu", "always")
        engines.warm_up()
        yield engines
        engines.close()


@pytest.fixture(scope="module")
def stub(engines):
    with Service(price_history(), engine=engines.live) as service:
        service.engines = engines
        service.open_market()
        with (
            serving(lambda: service.server(GrpcSettings(port=0))) as server,
            grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            yield RiskServiceStub(channel)


def request(rows, spot=100.0, engine=""):
    columns = wire.OptionColumns(spot=[spot], expiry=[1.0], vol=[0.2])
    packing.write(columns, "strike", np.linspace(50.0, 150.0, rows))
    return wire.GreeksRequest(options=columns, engine=engine)


def charm(engines, rows, spot):
    options = gk.Options(spot=spot, strike=np.linspace(50.0, 150.0, rows), expiry=1.0, vol=0.2)
    return engines.cpu.greeks(options).charm


@pytest.mark.parametrize("rows", [ROOM, ROOM + 1, 20_000])
def test_rows_that_do_not_fit_at_once_are_computed_in_parts(stub, engines, rows):
    answer = stub.Greeks(request(rows), timeout=PATIENCE_S)
    assert not answer.provenance.degraded
    np.testing.assert_array_equal(packing.read(answer, "charm"), charm(engines, rows, 100.0))


def test_scenarios_that_do_not_fit_at_once_are_revalued_in_parts(stub, engines):
    book = portfolio("p", rows=[option(strike, True, 5.0) for strike in STRIKES])
    draws = wire.MonteCarloScenarios(scenarios=512, seed=4)
    asked = wire.ExpectedShortfallRequest(inline_portfolio=book, monte_carlo=draws, with_pnl=True)
    answer = stub.ExpectedShortfall(asked, timeout=PATIENCE_S)
    assert not answer.provenance.degraded
    asked.engine = "reference"
    other = stub.ExpectedShortfall(asked, timeout=PATIENCE_S)
    np.testing.assert_allclose(answer.pnl, other.pnl, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rows", [1, 2_000, 20_000])
def test_what_fits_in_no_part_is_computed_on_the_cpu_and_says_so(stub, engines, rows):
    starts = engines.starts
    answer = stub.Greeks(request(rows, NEVER_FITS), timeout=PATIENCE_S)
    assert answer.provenance.degraded
    assert "out of memory, even in small parts" in answer.provenance.degraded_reason
    np.testing.assert_array_equal(packing.read(answer, "charm"), charm(engines, rows, NEVER_FITS))
    with pytest.raises(grpc.RpcError) as refused:
        stub.Greeks(request(rows, NEVER_FITS, engine="cpu"), timeout=PATIENCE_S)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert engines.starts == starts  # memory that gives out is no reason for a new process


def test_a_lost_device_ends_the_worker_and_the_next_one_answers(stub, engines):
    starts = engines.starts
    answer = stub.Greeks(request(10, POISONS), timeout=PATIENCE_S)
    assert "lost its device: CUDARuntimeError" in answer.provenance.degraded_reason
    np.testing.assert_array_equal(packing.read(answer, "charm"), charm(engines, 10, POISONS))
    assert engines.supervisor("cpu").wait_ready(PATIENCE_S)
    assert engines.starts == starts + 1
    assert not stub.Greeks(request(10), timeout=PATIENCE_S).provenance.degraded
