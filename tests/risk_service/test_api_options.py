"""Prices, Greeks, vols and what the service tells of itself, over gRPC."""

from __future__ import annotations

import grpc
import numpy as np
from desk_world import HISTORY
from served import PATIENCE_S, STRIKES, Service, serving
from worlds import NOW_NS, black_scholes, osi, portfolio, quotes, spot_position

import gpu_kernels as gk
import risk_client
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_client import RiskClient
from risk_service.price_history import PriceHistory
from service_kit.grpc_server import GrpcSettings


def test_columns_over_the_wire_are_the_kernels_to_the_bit(client, engine, seed):
    random = np.random.default_rng(seed)
    rows = 1_000  # more than is computed in the event loop
    columns = {
        "spot": random.uniform(50, 150, rows),
        "strike": random.uniform(50, 150, rows),
        "expiry": random.uniform(0, 2, rows),
        "vol": random.uniform(0, 0.8, rows),
        "rate": 0.02,
        "is_call": random.random(rows) < 0.5,
    }
    options = gk.Options(**columns)
    priced, greeks = engine.price(options), engine.greeks(options)
    answer = client.price(**columns)
    np.testing.assert_array_equal(answer["price"], priced.price)
    np.testing.assert_array_equal(answer.status, priced.status)
    over_wire = client.greeks(**columns)
    for name in ("delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm"):
        np.testing.assert_array_equal(over_wire[name], getattr(greeks, name))
    implied = engine.implied_vol(options, priced.price)
    np.testing.assert_array_equal(client.implied_volatility(priced.price, **columns)["vol"], implied.vol)


def test_the_method_for_american_rows_reaches_every_rpc(service, engine):
    columns = {"spot": [100.0], "strike": [90.0, 105.0, 120.0], "expiry": [1.0], "vol": [0.3], "rate": [0.04]}
    flags = {"is_call": [False], "american": [True]}
    options = gk.Options(**{name: np.array(values) for name, values in (columns | flags).items()})
    sent, fast = wire.OptionColumns(**columns, **flags), wire.AMERICAN_METHOD_FAST
    with (
        serving(lambda: service.server(GrpcSettings(port=0))) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = RiskServiceStub(channel)
        for method, number in (("accurate", wire.AMERICAN_METHOD_ACCURATE), ("fast", fast)):
            given = {"options": sent, "american_method": number}
            price = stub.Price(wire.PriceRequest(**given), timeout=PATIENCE_S)
            priced = engine.price(options, american_method=method)
            assert list(price.price) == priced.price.tolist()
            greeks = stub.Greeks(wire.GreeksRequest(**given), timeout=PATIENCE_S)
            assert list(greeks.vega) == engine.greeks(options, american_method=method).vega.tolist()
            asked = wire.ImpliedVolatilityRequest(**given, price=price.price)
            vols = stub.ImpliedVolatility(asked, timeout=PATIENCE_S)
            expected = engine.implied_vol(options, priced.price, american_method=method)
            assert list(vols.vol) == expected.vol.tolist()


def test_a_market_that_moves_moves_the_answer():
    with Service(PriceHistory(("IDX",), HISTORY.closes[:, :1], HISTORY.vols[:, :1])) as service:
        service.open_market()
        with (
            serving(lambda: service.server(GrpcSettings(port=0))) as server,
            RiskClient(f"127.0.0.1:{server.port}", deadline_s=PATIENCE_S) as client,
        ):
            client.put_portfolio(portfolio(rows=(spot_position(10.0),)))
            first = client.stress_test("desk", risk_client.shocks([[-0.1]]))
            service.market.send("IDX", quotes(["IDX"], [50.0], time_ns=NOW_NS + 5))
            metrics = next(
                one for one in client.watch_risk(["desk"], deadline_s=30) if one.greeks.spot[0] == 50.0
            )
            second = client.stress_test("desk", risk_client.shocks([[-0.1]]))
    assert metrics.value == 500.0
    assert (first.value_today, second.value_today) == (1_000.0, 500.0)
    assert second.pnl[0] == first.pnl[0] / 2.0
    assert first.provenance.market_snapshot_id != second.provenance.market_snapshot_id


def test_streams_answer_each_request_in_order(service, client):
    requests = []
    for spot in (90.0, 100.0, 110.0):
        request = wire.PriceRequest()
        for name, value in (("spot", spot), ("strike", 100.0), ("expiry", 1.0), ("vol", 0.2)):
            packing.write(request.options, name, [value])
        requests.append(request)
    with serving(lambda: service.server(GrpcSettings(port=0))) as server:
        channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
        answers = list(RiskServiceStub(channel).PriceStream(iter(requests), timeout=30))
        channel.close()
    expected = black_scholes(np.array([90.0, 100.0, 110.0]), 100.0, 1.0, 0.2, True, 0.0, 0.0)
    np.testing.assert_allclose([one.price[0] for one in answers], expected, rtol=1e-11)


def test_engines_are_listed(client, engine):
    listed = client.list_engines()
    assert listed.serving == engine.name
    cannot = {one.name: list(one.cannot) for one in listed.engines}
    assert cannot.keys() == {"cuda", "cpu", "xla", "reference"}
    assert not cannot["cpu"]
    assert "interpolated American books" in cannot["cuda"]


def test_strikes_of_the_world_are_quoted():
    assert osi("IDX", "C", STRIKES[0]) == "IDX   240515C00080000"
