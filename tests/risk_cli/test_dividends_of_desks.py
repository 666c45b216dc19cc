"""Cash dividends of files: `risk stress` here and at a server, `risk price` and `risk iv`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from desk_files import option_value, run, stress, write
from scipy.optimize import brentq
from served_desk import RATE, SPOT, YEARS, YIELD, desk_options, smile
from worlds import NOW_NS

NOW = datetime.fromtimestamp(NOW_NS / 1e9, UTC)
PAID = (("2023-12-14", 1.5), ("2024-01-10", 0.5), ("2024-02-14", 9.0))  # the last one after the expiry
CARRY = RATE - YIELD
MOVES = """[[scenario]]
name = "crash"
spot = -0.2
vol = 0.1
"""


def _due(now: datetime = NOW) -> float:
    """What the dividends before the expiry are worth today."""
    days = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day, _ in PAID[:2])
    years = [(day - now).total_seconds() / (365 * 86_400) for day in days]
    return float(sum(paid * np.exp(-CARRY * t) for (_, paid), t in zip(PAID, years, strict=False)))


def _value(spot: float, strike: float, vol: float, call: bool, years: float = YEARS) -> float:
    return float(option_value(spot - _due(), strike, years, vol, RATE, YIELD, call))


def _vol(strike: float, call: bool) -> float:
    """That which makes the server's quote, with the dividends counted."""
    quoted = option_value(SPOT, strike, YEARS, smile(strike), RATE, YIELD, call)
    return float(brentq(lambda vol: _value(SPOT, strike, vol, call) - quoted, 0.01, 2.0, xtol=1e-14))


def _market(folder: Path) -> str:
    listed = ", ".join(f'{{date = "{day}", amount = {paid}}}' for day, paid in PAID)
    path = folder / "market.toml"
    path.write_text(
        f"""date = {NOW.isoformat()}
[underlying.IDX]
spot = {SPOT}
rate = {RATE}
dividend_yield = {YIELD}
dividends = [{listed}]
[underlying.IDX.vol]
moneyness = [0.9, 1.0]
years = [1.0]
vols = [[{_vol(90.0, False)!r}, {_vol(100.0, True)!r}]]
"""
    )
    return str(path)


def test_a_desk_with_dividends_is_worth_the_same_here_and_there(address: str, tmp_path: Path) -> None:
    files = (*desk_options(tmp_path), "--market", _market(tmp_path), "--json")
    (tmp_path / "scenarios.toml").write_text(MOVES)
    here: dict[str, Any] = json.loads(run("stress", *files, "--engine", "reference").stdout)
    there: dict[str, Any] = json.loads(run("stress", *files, "--server", address).stdout)
    wanted = 150 * SPOT * -0.2
    for strike, call, size in ((90.0, False, 1000.0), (100.0, True, -2000.0)):
        vol = _vol(strike, call)
        now, then = _value(SPOT, strike, vol, call), _value(0.8 * SPOT, strike, vol + 0.1, call)
        wanted += size * (then - now)
    for answer in (here, there):
        assert answer["stress"][0]["pnl"] == pytest.approx(wanted, rel=1e-8)
        assert any("IDX 1.5 on 2023-12-14 and 2 later" in note for note in answer["notes"])
    # Without them it is another number: the test above would not see them left out.
    plain = json.loads(run("stress", *desk_options(tmp_path), "--server", address, "--json").stdout)
    assert abs(plain["stress"][0]["pnl"] - wanted) > 1.0


def test_a_future_moves_as_the_forward_after_dividends(tmp_path: Path) -> None:
    desk = "symbol,quantity,underlying,kind,expiry,multiplier\n,1,IDX,future,2024-01-19,50\n"
    files = write(tmp_path, portfolio=desk, scenarios=MOVES)
    files["market"] = _market(tmp_path)
    answer = json.loads(stress(files, "--json").stdout)
    forward = (SPOT - _due()) * np.exp(CARRY * YEARS)
    up = (SPOT + 1.0 - _due()) * np.exp(CARRY * YEARS)
    assert answer["exposures"][0]["delta"] == pytest.approx(50 * (up - forward) * SPOT, rel=1e-12)
    fallen = (0.8 * SPOT - _due()) * np.exp(CARRY * YEARS)
    assert answer["stress"][0]["pnl"] == pytest.approx(50 * (fallen - forward), rel=1e-12)


def test_a_market_without_dividends_is_nothing_to_a_server(address: str, tmp_path: Path) -> None:
    files = (*desk_options(tmp_path), "--server", address)
    (tmp_path / "market.toml").write_text("date = 2023-11-14\n[underlying.IDX]\nspot = 1.0\nvol = 0.2\n")
    result = run("stress", *files, "--market", str(tmp_path / "market.toml"))
    assert (result.exit_code, "it takes cash dividends" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        ("{date = 2026-12-01}", "dividends.amount: is missing"),
        ("{amount = 1.0}", "dividends.date: is missing"),
        ("{date = 2026-12-01, amount = -1.0}", "at least 0"),
        ("{date = 2026-12-01, amount = 1.0, kind = 'special'}", "kind: is unknown here"),
    ],
)
def test_a_wrong_dividend_is_named(tmp_path: Path, listed: str, why: str) -> None:
    market = f"date = 2026-11-20\n[underlying.SPX]\nspot = 1.0\nvol = 0.2\ndividends = [{listed}]\n"
    result = stress(write(tmp_path, market=market))
    assert (result.exit_code, "market.toml, line 5" in result.stderr) == (2, True)
    assert why in result.stderr


def _one(*words: str) -> dict[str, Any]:
    result = run(*words, "--engine", "reference", "--json")
    assert result.exit_code == 0, result.stderr
    row: dict[str, Any] = json.loads(result.stdout)["options"][0]
    return row


def test_price_and_vol_of_one_option_with_dividends() -> None:
    terms = ("--spot", "100", "--strike", "95", "--expiry", "0.5", "--rate", "0.03", "--put")
    paid = ("--dividend", "0.4:2", "--dividend", "0.1:1", "--dividend", "0.6:50")
    spot = 100 - np.exp(-0.03 * 0.1) - 2 * np.exp(-0.03 * 0.4)
    wanted = float(option_value(spot, 95.0, 0.5, 0.25, 0.03, 0.0, False))
    assert _one("price", *terms, *paid, "--vol", "0.25")["price"] == pytest.approx(wanted, rel=1e-12)
    assert _one("iv", *terms, *paid, "--price", repr(wanted))["vol"] == pytest.approx(0.25, rel=1e-9)


def test_dividends_of_a_file_are_each_rows_own(address: str, tmp_path: Path) -> None:
    file = tmp_path / "options.csv"
    file.write_text("strike,exercise,dividends\n95,E,0.4:2 0.1:1\n95,E,\n95,A,0.4:2 0.1:1\n100,E,0:1\n")
    words = ("price", "--options", str(file), "--spot", "100", "--expiry", "0.5", "--vol", "0.25", "--json")
    rows = json.loads(run(*words, "--engine", "reference").stdout)["options"]
    spot = 100 - 2 - 1  # no rate
    wanted = [
        option_value(s, k, 0.5, 0.25, 0.0, 0.0, True) for s, k in ((spot, 95.0), (100, 95.0), (100, 100.0))
    ]
    assert [rows[place]["price"] for place in (0, 1, 3)] == pytest.approx(wanted, rel=1e-12)
    assert rows[2]["price"] > rows[0]["price"] * 1.001  # exercised before an ex-date
    served = json.loads(run(*words, "--server", address).stdout)["options"]
    for here, there in zip(rows, served, strict=True):
        assert there["price"] == pytest.approx(here["price"], rel=1e-6)
    same = json.loads(run(*words, "--engine", "reference", "--dividend", "0.4:2").stdout)["options"]
    assert same[0] == rows[0]
    assert same[1]["price"] == pytest.approx(option_value(98, 95.0, 0.5, 0.25, 0.0, 0.0, True), rel=1e-12)


@pytest.mark.parametrize(
    ("said", "why"), [("1", "YEARS:AMOUNT"), ("1:x", "YEARS:AMOUNT"), ("1:-2", "0 or more")]
)
def test_a_dividend_that_is_none_is_refused(tmp_path: Path, said: str, why: str) -> None:
    terms = ("price", "--spot", "1", "--strike", "1", "--expiry", "1", "--vol", "1")
    result = run(*terms, "--dividend", said)
    assert (result.exit_code, result.stderr.startswith("risk: --dividend: ")) == (2, True)
    assert why in result.stderr
    file = tmp_path / "options.csv"
    file.write_text(f"strike,dividends\n1,0.1:1\n1,{said}\n")
    result = run(*terms, "--options", str(file))
    assert (result.exit_code, "line 3, column dividends" in result.stderr) == (2, True)
