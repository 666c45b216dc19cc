"""A client made of the .proto file alone: stubs generated here, in another process, and every RPC called."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from grpc_tools import protoc
from served import PATIENCE_S, STRIKES, Service, price_history, serving

from protos.risk.v1 import risk_pb2 as wire
from service_kit.grpc_server import GrpcSettings

# What a stranger writes: plain lists, no import of ours.
CLIENT = """
import json, sys
import grpc
import risk_pb2 as pb
import risk_pb2_grpc as rpc

port, now_ns, patience = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
stub = rpc.RiskServiceStub(grpc.insecure_channel("127.0.0.1:" + port))
said = {}

def call(name, request):
    answer = getattr(stub, name)(request, timeout=patience)
    said[name] = True
    return answer

columns = pb.OptionColumns(spot=[100.0], strike=[90.0, 100.0], expiry=[1.0], vol=[0.2])
price = call("Price", pb.PriceRequest(options=columns))
greeks = call("Greeks", pb.GreeksRequest(options=columns))
assert list(greeks.price) == list(price.price) and greeks.provenance.engine
vols = call("ImpliedVolatility", pb.ImpliedVolatilityRequest(options=columns, price=price.price))
assert all(abs(vol - 0.2) < 1e-9 for vol in vols.vol)
for name, request, one in (
    ("PriceStream", pb.PriceRequest(options=columns), price),
    ("GreeksStream", pb.GreeksRequest(options=columns), greeks),
    ("ImpliedVolatilityStream", pb.ImpliedVolatilityRequest(options=columns, price=price.price), vols),
):
    assert list(call(name, iter([request, request]))) == [one, one]

def option(right, strike):
    return f"IDX   240515{right}{round(strike * 1000):08d}"

book = pb.Portfolio(portfolio="stranger", underlyings=["IDX"], groups=["vol"], positions=pb.Positions(
    symbol=[option("C", 100.0), option("P", 90.0)], underlying_index=[0, 0], quantity=[10.0, -5.0],
    kind=[pb.INSTRUMENT_KIND_OPTION], strike=[100.0, 90.0], is_call=[True, False],
    expiry_time_ns=[now_ns + 365 * 86_400_000_000_000 // 2], group_index=[0]))
version = call("PutPortfolio", pb.PutPortfolioRequest(portfolio=book)).version
assert call("GetPortfolio", pb.GetPortfolioRequest(portfolio="stranger")).version == version
listed = call("ListPortfolios", pb.ListPortfoliosRequest())
assert [one.portfolio for one in listed.portfolios] == ["stranger"]
watch = call("WatchRisk", pb.WatchRiskRequest(portfolios=["stranger"]))
metrics = next(watch)
watch.cancel()
assert metrics.value and not metrics.faults, metrics

es = call("ExpectedShortfall", pb.ExpectedShortfallRequest(
    portfolio="stranger", historical=pb.HistoricalScenarios(), with_components=True))
assert abs(sum(es.component_by_position) - es.tail[0].expected_shortfall) < 1e-6
stress = call("StressTest", pb.StressTestRequest(portfolio="stranger", named=["2020-03"], by_group=True))
assert list(stress.name) == ["2020-03"] and len(stress.pnl) == 1
assert stress.pnl_by_group.columns == 1 and abs(sum(stress.pnl_by_group.values) - stress.pnl[0]) < 1e-6
trade = pb.Positions(symbol=[option("P", 90.0)], underlying_index=[0], quantity=[5.0], strike=[90.0],
                     expiry_time_ns=[book.positions.expiry_time_ns[0]], is_call=[False])
impact = call("WhatIf", pb.WhatIfRequest(portfolio="stranger", trade=trade))
assert abs(impact.after.expected_shortfall - impact.before.expected_shortfall - impact.incremental) < 1e-9
hedge = call("Hedge", pb.HedgeRequest(portfolio="stranger"))
assert hedge.risk_after <= hedge.risk_before and not hedge.warnings
fall = pb.ByUnderlying(underlying=["IDX"], value=[-0.1])
words = call("StressTest", pb.StressTestRequest(
    inline_portfolio=book, by_position=True, shocks=[pb.Shock(name="fall", spot=fall)],
    ladders=[pb.Ladder(spot=[-0.1, 0.1], vol=[0.0, 0.1])],
    events=[pb.NamedEvent(name="2020-03", beta=pb.ByUnderlying(other=1.0))],
    historical=pb.HistoricalScenarios(window_days=20), reverse=pb.ReverseStress(loss=1.0)))
assert len(words.pnl) == 1 + 4 + 1 + 20 and words.name[0] == "fall" and words.reverse.deviations > 0.0
assert abs(min(abs(one - stress.pnl[0]) for one in words.pnl)) < 1e-6
assert abs(words.pnl[0] - words.pnl[1]) < 1e-6 and words.pnl_by_position.rows == 2
given = pb.ScenarioColumns(spot_return=pb.Matrix(rows=2, columns=1, values=[-0.1, 0.1]), weight=[1.0, 1.0])
custom = call("ExpectedShortfall", pb.ExpectedShortfallRequest(
    portfolio="stranger", custom=given, levels=[0.5], with_pnl=True, convention=pb.TAIL_CONVENTION_DISCRETE))
assert len(custom.pnl) == 2 and custom.provenance.market_snapshot_id
drawn = call("WhatIf", pb.WhatIfRequest(
    portfolio="stranger", trade=trade, monte_carlo=pb.MonteCarloScenarios(
        scenarios=1024, distribution=pb.MonteCarloScenarios.DISTRIBUTION_JUMP, jump_intensity=10.0)))
assert "jump" in drawn.provenance.method
spot = pb.Positions(symbol=["IDX"], kind=[pb.INSTRUMENT_KIND_SPOT], quantity=[1e6])
planned = call("Hedge", pb.HedgeRequest(
    portfolio="stranger", instruments=spot, cost_rate=[0.001], risk_aversion=0.1, plan_reach=0.2))
assert len(planned.band) == 1 and len(planned.plan) == 1
sized = call("Hedge", pb.HedgeRequest(
    portfolio="stranger", objective=pb.HedgeRequest.OBJECTIVE_KELLY, instruments=spot,
    kelly=pb.KellySizing(expected_return=[0.05], capital=1e6, fraction=0.5)))
assert "of Kelly" in sized.provenance.method
paying = pb.OptionColumns(spot=[100.0], strike=[90.0], expiry=[1.0], vol=[0.2], dividends=pb.DividendColumns(
    ex_date=[0.5], amount=[3.0]))
assert call("Price", pb.PriceRequest(options=paying)).price[0] < price.price[0]
for name, request, alone in (
    ("ExpectedShortfall", pb.ExpectedShortfallRequest(
        portfolio="stranger", monte_carlo=pb.MonteCarloScenarios(scenarios=4096, seed=1)), "tail"),
    ("StressTest", pb.StressTestRequest(portfolio="stranger", named=["2020-03"]), "pnl"),
    ("Hedge", pb.HedgeRequest(portfolio="stranger"), "trade"),
):
    updates = list(call(name + "WithProgress", request))
    assert [one.WhichOneof("update") for one in updates] == ["progress"] * (len(updates) - 1) + ["result"]
    assert getattr(updates[-1].result, alone) == getattr(call(name, request), alone)
engines = call("ListEngines", pb.ListEnginesRequest())
assert engines.serving in {one.name for one in engines.engines if one.available}
call("DeletePortfolio", pb.DeletePortfolioRequest(portfolio="stranger"))
print(json.dumps(sorted(said)))
"""


@pytest.fixture
def stubs(tmp_path):
    """The .proto alone in a folder of its own, and what the compiler makes of it."""
    source = Path(str(files("protos"))) / "risk" / "v1" / "risk.proto"
    (tmp_path / "risk.proto").write_text(source.read_text())
    told = [
        "protoc",
        f"-I{tmp_path}",
        f"--python_out={tmp_path}",
        f"--grpc_python_out={tmp_path}",
        "risk.proto",
    ]
    assert protoc.main(told) == 0
    (tmp_path / "stranger.py").write_text(CLIENT)
    return tmp_path


def test_a_stranger_with_the_proto_can_do_everything(stubs):
    from worlds import NOW_NS

    assert STRIKES[1] == 90.0
    with Service(price_history()) as service:
        service.open_market()
        with serving(lambda: service.server(GrpcSettings(port=0))) as server:
            done = subprocess.run(
                [sys.executable, str(stubs / "stranger.py"), str(server.port), str(NOW_NS), str(PATIENCE_S)],
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                cwd=stubs,
                check=False,
            )
    assert done.returncode == 0, done.stderr
    called = json.loads(done.stdout)
    assert called == sorted(one.name for one in wire.DESCRIPTOR.services_by_name["RiskService"].methods)
