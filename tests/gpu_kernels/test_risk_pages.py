"""The pages of docs/risk: their examples run, and what they quote is what the code has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpu_kernels as gk
from gpu_kernels.stress_library import EVENTS

PAGES = Path(__file__).parents[2] / "docs" / "risk"


def ran(page: str) -> dict[str, Any]:
    """Names left by the page's examples, run one after another as a reader would."""
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", (PAGES / f"{page}.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, f"{page}.md", "exec"), names)
    return names


def test_revaluation() -> None:
    names = ran("revaluation")
    total = names["eng"].revalue(names["book"], names["sc"])
    groups = names["eng"].revalue(names["book"], names["sc"], by="group")
    assert total.shape == (3,)
    assert groups.sum(axis=0) == pytest.approx(total)


def test_scenarios() -> None:
    names = ran("scenarios")
    assert len(names["draws"]) == 4096
    assert len(names["every"]) == 15
    assert any("illustrative" in note for note in names["crises"].notes)


def test_tail_measures() -> None:
    names = ran("tail_measures")
    parts, impact, t = names["parts"], names["impact"], names["t"]
    assert parts.by_position.sum() == pytest.approx(parts.es)
    assert parts.by_group.sum() == pytest.approx(t.es)
    assert impact.marginal <= impact.incremental + 1e-9
    assert t.es_interval[0] < t.es < t.es_interval[1]
    assert names["low"].es < t.es < names["high"].es
    assert names["hits"].sum() == 50 - 1  # beyond the 50th worst of 2,000


def test_hedging() -> None:
    names = ran("hedging")
    held, shares, hedge, both = names["held"], names["shares"], names["hedge"], names["both"]
    assert abs(held.delta[0] + shares.trades[0]) <= 50.0
    assert hedge.risk_after + hedge.cost <= hedge.risk_before
    assert both.risk_after < both.risk_before
    assert names["plan"].due_now % 100.0 == 0.0
    assert names["sizes"].cost <= 500.0


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_events_are_quoted_as_they_are(event: Any) -> None:
    """The spot move in the page's table is that of the library, and a vol without a source is marked."""
    lines = (PAGES / "scenarios.md").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"| {event.name}")]
    spot, vol, source = (cell.strip() for cell in line.split("|")[2:5])
    assert float(spot.replace("−", "-").rstrip(" %")) == pytest.approx(100.0 * event.spot.value, abs=0.006)
    points = float(re.sub(r"[^0-9.\-]", "", vol.replace("−", "-")))
    assert points == pytest.approx(100.0 * event.vol.value, abs=0.006)
    assert ("illustrative" in source) == event.vol.illustrative


def test_every_bad_input_of_the_issue_is_named() -> None:
    """NaN return, missing underlying, covariance not square, level outside (0, 1), too few scenarios."""
    engine = gk.engine("auto")
    options = gk.Options(spot=100.0, strike=[90.0, 100.0], expiry=0.5, vol=0.2)
    book = gk.Portfolio(options, 1.0, underlying=[0, 3])
    nothing = np.zeros((4, 2))
    nan = nothing.copy()
    nan[2, 1] = np.nan
    given = {"mean": 0.0, "seed": 1, "horizon": 0.1}
    for call, field, row, words in (
        (lambda: gk.Scenarios(nan), "spot_return", 2, "nan in row 2, column 1"),
        (lambda: gk.Scenarios(nothing, vol_change=nan), "vol_change", 2, "nan"),
        (lambda: engine.revalue(book, gk.Scenarios(nothing)), "underlying", 1, "3.*have 2 underlyings"),
        (lambda: gk.simulate_scenarios(8, cov=np.zeros((2, 3)), **given), "cov", None, "square"),
        (lambda: gk.tail_risk(np.arange(100.0), level=1.0), "level", None, "between 0 and 1"),
        (lambda: gk.tail_risk(np.arange(100.0), level=97.5), "level", None, "between 0 and 1"),
        (lambda: gk.tail_risk(np.arange(39.0)), "pnl", None, "39 scenarios are too few.* needs 40"),
        (lambda: gk.tail_risk([np.nan] * 100), "pnl", 0, "nan"),
    ):
        with pytest.raises(gk.InvalidInput, match=words) as caught:
            call()
        assert (caught.value.field, caught.value.row) == (field, row)
    assert "9.975 outcomes" in gk.tail_risk(np.arange(399.0)).warnings[0]
    assert gk.tail_risk(np.arange(400.0)).warnings == ()
