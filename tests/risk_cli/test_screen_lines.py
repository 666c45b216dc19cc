"""What a line of `risk watch` says of a portfolio."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from protos.book.v1.book_pb2 import Book
from protos.risk.v1.risk_pb2 import GreeksByUnderlying, RiskAlert, RiskMetrics, RowFault, TailRisk
from risk_cli.desk_view import DeskView
from risk_cli.screen import plain_lines, render


@pytest.mark.parametrize("width", [60, 70, 80, 90, 100, 110, 120, 150, 200])
def test_nothing_is_cut_off_however_wide_the_terminal_is(width: int) -> None:
    view = DeskView()
    levels = [20_965, 20_960, 20_955, 20_950, 20_945]
    for name in ("AAPL", "JPM", "NVDA"):
        view.books[name] = Book(
            symbol=name, tick_size=0.01, bid_price_ticks=levels, bid_quantity=[100] * 5,
            ask_price_ticks=levels, ask_quantity=[100] * 5,
        )  # fmt: skip
    for at in range(100):
        greeks = GreeksByUnderlying(
            underlying=["SPX"],
            spot=[4_997.73 + at],
            delta=[-546.6],
            gamma=[1.0],
            vega=[732_152.0],
            age_ns=[9],
        )
        tail = TailRisk(level=0.975, value_at_risk=32_968.0, expected_shortfall=44_103.0 + at)
        view.take_metrics(
            RiskMetrics(
                portfolio="desk-3",
                value=-2_781_625.0,
                greeks=greeks,
                historical=[tail],
                stress_pnl=[-138_078.0],
            )
        )
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(render(view, "title", width))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "desk-3" in shown
    assert "44,202" in shown
    assert ("209.65" in shown) == (width >= 80)
    assert "…" not in shown


def test_an_underlying_without_a_price_does_not_spoil_the_delta_of_the_others() -> None:
    greeks = GreeksByUnderlying(
        underlying=["A", "B"], spot=[100.0, math.nan], delta=[3.0, 0.0], gamma=[0.1, 0.0], vega=[2.0, 0.0]
    )
    tail = TailRisk(level=0.975, value_at_risk=1.0, expected_shortfall=2.0)
    metrics = RiskMetrics(portfolio="desk", value=5.0, greeks=greeks, historical=[tail])
    view = DeskView()
    view.metrics["desk"] = metrics
    assert "delta=300 " in next(plain_lines(view))


def test_alerts_of_a_desk_wait_until_it_is_whole() -> None:
    view = DeskView()

    def alert(subject: str, raised: bool) -> None:
        view.take_alert(RiskAlert(portfolio="desk", subject=subject, raised=raised))

    view.take_metrics(RiskMetrics(portfolio="desk", positions=2, faults=[RowFault()]))
    alert("SPX", True)
    alert("NDX", True)
    alert("SPX", False)
    assert view.take_news() == []
    view.take_metrics(RiskMetrics(portfolio="other", positions=1))
    assert view.take_news() == []
    view.take_metrics(RiskMetrics(portfolio="desk", positions=2))
    assert [(one.subject, one.raised) for one in view.take_news()] == [("NDX", True)]
    view.take_metrics(RiskMetrics(portfolio="desk", positions=2, faults=[RowFault()]))
    alert("SPX", True)
    alert("NDX", False)
    assert [(one.subject, one.raised) for one in view.take_news()] == [("SPX", True), ("NDX", False)]
    assert view.alerts_raised == 2
    assert len(view.alerts) == 3
