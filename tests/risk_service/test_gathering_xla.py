"""Small requests gathered for the xla engine in its own process: each answer is what it is alone."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec

import grpc
import numpy as np
import pytest
from served import PATIENCE_S, Service

import gpu_kernels as gk
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_service import engines as engines_module
from risk_service.engines import Engines
from service_kit.grpc_server import GrpcSettings

SETTINGS = GrpcSettings(port=0, max_calls_per_principal=512)

# Its process takes long to start: jax is loaded, and every kernel traced.
pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(find_spec("jax") is None, reason="jax is not installed"),
]


@pytest.fixture(scope="module")
def engines():
    # The CPU serves; xla is asked for by name, so that its break-even is not measured meanwhile.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines_module, "gathered_options", lambda engine: 8_192)
        engines = Engines.start("cpu", "auto")
        yield engines
        engines.close()


def request(random, rows):
    columns = wire.OptionColumns(rate=[0.02])
    for name, low, high in (("spot", 80, 120), ("strike", 80, 120), ("expiry", -0.1, 2), ("vol", 0.1, 0.5)):
        packing.write(columns, name, random.uniform(low, high, rows))
    return wire.PriceRequest(options=columns, engine="xla")


async def test_gathered_or_alone_the_answers_are_the_same(engines, seed):
    random = np.random.default_rng(seed)
    requests = [request(random, rows) for rows in (4, 4, 4)]
    with Service(None, engine=engines.cpu) as service:
        service.engines = engines
        servicer = service.servicer(SETTINGS)
        async with (
            service.server(SETTINGS, servicer) as server,
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            stub = RiskServiceStub(channel)
            alone = [await stub.Price(one, timeout=PATIENCE_S) for one in requests]
            gathering = servicer.options.gathering
            assert (gathering.batches, gathering.gathered) == (len(requests), len(requests))
            together = await asyncio.gather(*(stub.Price(one, timeout=PATIENCE_S) for one in requests))
    assert gathering.gathered == 2 * len(requests)
    for message, one, other in zip(requests, alone, together, strict=True):
        columns = {field.name: np.array(values) for field, values in message.options.ListFields()
                   if field.name in ("spot", "strike", "expiry", "vol", "rate")}  # fmt: skip
        expected = gk.engine("reference").price(gk.Options(**columns)).columns()
        assert (one.provenance.engine, other.provenance.engine) == ("xla", "xla")
        for name, truth in zip(gk.PriceResult.COLUMNS, expected, strict=True):
            found, beside = packing.read(one, name), packing.read(other, name)
            np.testing.assert_array_equal(beside, found)
            np.testing.assert_allclose(beside, truth, rtol=1e-9, atol=1e-9)
