"""Hedges over gRPC against Greeks and tails written anew."""

from __future__ import annotations

import math

import numpy as np
import pytest
from desk_world import GROUPS, ROWS, plain_es, plain_greeks, plain_pnl, trade_of
from served import PATIENCE_S, Service, serving
from worlds import SPOT, option, portfolio, spot_position

import risk_client
from protos.risk.v1 import risk_pb2 as wire
from risk_client import RiskClient
from service_kit.grpc_server import GrpcSettings


def test_a_delta_hedge_trades_the_underlying(client):
    hedge = client.hedge("desk", "delta")
    delta = plain_greeks()[0]
    assert hedge.symbols == ("IDX",)
    assert hedge.trade.tolist() == [-round(delta)]
    assert hedge.risk_before == pytest.approx(abs(delta) * SPOT, rel=1e-6)
    assert hedge.risk_after == pytest.approx(abs(delta - round(delta)) * SPOT, rel=1e-3)
    assert hedge.measure == "sum of |delta| · spot"


def test_a_delta_hedge_in_futures_counts_their_multiplier_lots_costs_and_limits(client):
    future = ("IDXZ5", wire.INSTRUMENT_KIND_FUTURE, 3.0, 0.0, False, 0.5, 0, 0)
    instruments = trade_of(future)
    instruments.multiplier.append(50.0)
    hedge = client.hedge("desk", "delta", instruments, lot_size=1.0, cost_per_lot=2.5)
    contracts = min(3, round(plain_greeks()[0] / 50.0))
    assert hedge.trade.tolist() == [-contracts]
    assert hedge.cost.tolist() == [2.5 * contracts]


def test_a_hedge_of_three_greeks_takes_most_of_them_away(client):
    instruments = trade_of(spot_position(500.0), option(90.0, False, 100.0), option(120.0, True, 100.0))
    hedge = client.hedge("desk", "delta_gamma_vega", instruments, lot_size=0.01)
    traded = [
        (*row[:2], quantity, *row[3:])
        for row, quantity in zip(
            (spot_position(0.0), option(90.0, False), option(120.0, True)), hedge.trade, strict=True
        )
    ]

    def risk(rows):
        delta, gamma, vega = plain_greeks(rows)
        return math.sqrt(
            (0.01 * SPOT * delta) ** 2 + (0.5 * gamma * (0.01 * SPOT) ** 2) ** 2 + (0.01 * vega) ** 2
        )

    assert hedge.risk_before == pytest.approx(risk(ROWS), rel=1e-4)
    assert hedge.risk_after == pytest.approx(risk((*ROWS, *traded)), rel=0.05, abs=0.01)
    assert hedge.risk_after < 0.02 * hedge.risk_before


def test_a_hedge_of_the_tail_lowers_es_by_what_it_says(client):
    instruments = trade_of(option(90.0, False, 40.0), spot_position(200.0))
    hedge = client.hedge("desk", "min_expected_shortfall", instruments, cost_per_lot=[0.5, 0.01], budget=15.0)
    traded = [
        (*row[:2], quantity, *row[3:])
        for row, quantity in zip((option(90.0, False), spot_position(0.0)), hedge.trade, strict=True)
    ]
    assert hedge.risk_before == pytest.approx(plain_es(plain_pnl(500)), rel=1e-9)
    assert hedge.risk_after == pytest.approx(plain_es(plain_pnl(500, (*ROWS, *traded))), rel=1e-9)
    assert hedge.risk_after < hedge.risk_before
    assert hedge.cost.sum() <= 15.0
    assert np.all(np.abs(hedge.trade) <= [40.0, 200.0])
    assert np.all(hedge.trade == np.rint(hedge.trade))


def test_a_pure_european_book_needs_no_history_for_greeks():
    with Service(None) as service:
        service.open_market()
        with (
            serving(lambda: service.server(GrpcSettings(port=0))) as server,
            RiskClient(f"127.0.0.1:{server.port}", deadline_s=PATIENCE_S) as client,
        ):
            client.put_portfolio(portfolio(rows=ROWS, groups=GROUPS))
            assert client.hedge("desk", "delta").trade.tolist() == [-round(plain_greeks()[0])]
            for call in (
                lambda: client.expected_shortfall("desk", risk_client.historical()),
                lambda: client.expected_shortfall("desk", risk_client.monte_carlo(1_000, seed=1)),
                lambda: client.what_if("desk", trade_of(option(90.0, False))),
                lambda: client.hedge("desk", "min_expected_shortfall", trade_of(option(90.0, False))),
            ):
                with pytest.raises(risk_client.PreconditionFailed, match="no price history is loaded"):
                    call()
