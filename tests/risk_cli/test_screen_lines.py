"""What a line of `risk watch` says of a portfolio."""

from __future__ import annotations

import math

from protos.risk.v1.risk_pb2 import GreeksByUnderlying, RiskMetrics, TailRisk
from risk_cli.desk_view import DeskView
from risk_cli.screen import plain_lines


def test_an_underlying_without_a_price_does_not_spoil_the_delta_of_the_others() -> None:
    greeks = GreeksByUnderlying(
        underlying=["A", "B"], spot=[100.0, math.nan], delta=[3.0, 0.0], gamma=[0.1, 0.0], vega=[2.0, 0.0]
    )
    tail = TailRisk(level=0.975, value_at_risk=1.0, expected_shortfall=2.0)
    metrics = RiskMetrics(portfolio="desk", value=5.0, greeks=greeks, historical=[tail])
    view = DeskView()
    view.metrics["desk"] = metrics
    assert "delta=300 " in next(plain_lines(view))
