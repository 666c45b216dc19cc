"""`risk hedge` with Kelly's sizes, bands and plans: here against formulas, by a server as the client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from desk_files import option_value, run

import risk_client
from protos.risk.v1 import risk_pb2 as wire
from risk_client import RiskClient

SPOT, VOL, RATE, YEARS = 100.0, 0.25, 0.03, 0.5
DESK = "symbol,quantity,underlying,kind,expiry,strike,right,exercise,multiplier\n"
CALLS = DESK + ",-20,IDX,option,0.5,100,C,E,100\nIDX,300,IDX,spot,,,,,1\n"
MARKET = (
    f"date = 2026-11-20\ncorrelation = 0.3\n[underlying.IDX]\nspot = {SPOT}\nvol = {VOL}\nrate = {RATE}\n"
)
FUTURE = "symbol,quantity,underlying,kind,expiry,multiplier\n,1000000,IDX,future,0.5,50\n"


def files(folder: Path, desk: str = CALLS, traded: str = "") -> tuple[str, ...]:
    for name, text in (("desk.csv", desk), ("market.toml", MARKET), ("traded.csv", traded)):
        (folder / name).write_text(text)
    words = ("--portfolio", str(folder / "desk.csv"), "--market", str(folder / "market.toml"))
    return (*words, "--instruments", str(folder / "traded.csv")) if traded else words


def hedged(*words: str) -> dict[str, Any]:
    done = run("hedge", *words, "--json")
    assert done.exit_code == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def delta(spot: float) -> float:
    """Of CALLS, by the formula."""
    up, down = (option_value(spot + h, 100.0, YEARS, VOL, RATE, 0.0, True) for h in (1e-4, -1e-4))
    return float(300.0 - 2_000.0 * (up - down) / 2e-4)


def test_a_plan_trades_where_the_delta_leaves_the_band(tmp_path: Path) -> None:
    words = (
        "--risk-aversion",
        "0.0001",
        "--cost-rate",
        "0.001",
        "--plan-reach",
        "0.1",
        "--engine",
        "reference",
    )
    answer = hedged(*files(tmp_path), *words)
    up, mid, down = (option_value(SPOT + h, 100.0, YEARS, VOL, RATE, 0.0, True) for h in (1e-2, 0.0, -1e-2))
    gamma = -2_000.0 * (up - 2.0 * mid + down) / 1e-4
    band = (1.5 * 0.001 * SPOT * gamma**2 / 0.0001) ** (1 / 3)
    assert answer["band"] == pytest.approx([band], rel=1e-5)
    traded = answer["trades"][0]["trade"]
    assert abs(delta(SPOT) + traded) == pytest.approx(band, abs=0.51)
    (plan,) = answer["plan"]
    assert (plan["instrument"], plan["due_now"]) == ("IDX", traded)
    for way, sign in (("up", 1.0), ("down", -1.0)):
        held, before = traded, SPOT
        assert len(plan[way]) > 3
        for step in plan[way]:
            assert sign * (step["spot"] - before) > 0.0
            out = abs(delta(step["spot"]) + held) - band
            assert out > 0.49  # half a lot beyond it
            # One step of the search nearer it was not worth a trade.
            assert abs(delta(step["spot"] - sign * 0.1 * SPOT / 400) + held) - band < 0.51
            held, before = held + step["trade"], step["spot"]
            assert abs(delta(step["spot"]) + held) == pytest.approx(band, abs=0.51)
    shown = run("hedge", *files(tmp_path), *words)
    assert "Next trades, the nearest 5 each way" in shown.stdout
    assert "rises to" in shown.stdout


def test_kelly_brings_what_the_desk_holds_to_a_fraction_of_the_optimum(tmp_path: Path) -> None:
    words = (
        "--objective",
        "kelly",
        "--expected-return",
        "IDX=0.04",
        "--capital",
        "1e6",
        "--fraction",
        "0.25",
    )
    answer = hedged(*files(tmp_path, traded=FUTURE), *words)
    wanted = 0.25 * 0.04 / VOL**2 * 1e6 / SPOT  # units of the index
    unit = 50.0 * np.exp(RATE * YEARS)
    (trade,) = answer["trades"]
    assert trade["trade"] == round(trade["trade"])
    # Holdings, before and after, count in whole futures.
    assert trade["trade"] == np.trunc(wanted / unit) - np.trunc(delta(SPOT) / unit)
    assert abs(wanted - (delta(SPOT) + trade["trade"] * unit)) < 2.0 * unit
    assert answer["risk_after"] == pytest.approx(
        (delta(SPOT) + trade["trade"] * unit) * SPOT / 1e6 * VOL, rel=1e-3
    )
    bounded = hedged(*files(tmp_path, traded=FUTURE), *words, "--leverage", "0.05")
    assert (delta(SPOT) + bounded["trades"][0]["trade"] * unit) * SPOT <= 0.05 * 1e6


def test_a_server_sizes_and_plans_as_for_the_client(address: str, tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("symbol,quantity\nIDX,100000\n")
    book = wire.Portfolio(portfolio="sized", underlyings=["IDX"])
    book.positions.symbol.append("IDX")
    book.positions.kind.append(wire.INSTRUMENT_KIND_SPOT)
    book.positions.underlying_index.append(0)
    book.positions.quantity.append(30.0)
    there = ("--server", address, "--name", "sized")
    with RiskClient(address) as client:
        client.put_portfolio(book)
        instruments = wire.Positions(
            symbol=["IDX"], underlying_index=[0], kind=[wire.INSTRUMENT_KIND_SPOT], quantity=[100_000.0]
        )
        kelly = risk_client.kelly([0.05], 1e6, fraction=0.5, leverage=2.0)
        wanted = client.hedge("sized", "kelly", instruments, kelly=kelly)
        planned = client.hedge("sized", "delta", lot_size=4.0, plan_reach=0.2)
    words = ("--objective", "kelly", "--expected-return", "IDX=0.05", "--capital", "1e6", "--leverage", "2")
    answer = hedged(*there, "--instruments", str(tmp_path / "i.csv"), *words)
    assert [one["trade"] for one in answer["trades"]] == wanted.trade.tolist()
    assert answer["risk_after"] == wanted.risk_after > 0.0
    answer = hedged(*there, "--lot-size", "4", "--plan-reach", "0.2")
    assert answer["plan"][0]["due_now"] == planned.plan[0].due_now == answer["trades"][0]["trade"] != 0.0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("--objective", "kelly", "--capital", "1", "--expected-return", "IDX=1"),
            "--instruments: is missing",
        ),
        (("--capital", "5"), "--capital: is of --objective kelly"),
        (("--plan-reach", "2"), "--plan-reach: must be at most 0.9"),
        (("--cost-rate", "-1"), "--cost-rate: must be a number that is not negative"),
        (("--plan-reach", "0.1", "--budget", "5"), "--budget: a band and a plan"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    done = run("hedge", *files(tmp_path), *words)
    assert (done.exit_code, says in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ((), "--expected-return: is missing"),
        (("--expected-return", "IDX=0.1"), "--capital: is missing"),
        (("--expected-return", "IDX", "--capital", "1"), "'IDX' is not NAME=VALUE"),
        (("--expected-return", "ABC=1", "--capital", "1"), "says nothing of IDX"),
        (("--expected-return", "IDX=1", "--expected-return", "ABC=1", "--capital", "1"), "is on ABC"),
        (("--expected-return", "IDX=1", "--capital", "1", "--plan-reach", "0.1"), "is of --objective delta"),
    ],
)
def test_what_kelly_needs_is_named(tmp_path: Path, more: tuple[str, ...], says: str) -> None:
    done = run("hedge", *files(tmp_path, traded=FUTURE), "--objective", "kelly", *more)
    assert (done.exit_code, says in done.stderr) == (2, True), done.stderr
    if more[:1] == ("--expected-return",):
        return
    (tmp_path / "traded.csv").write_text(FUTURE + ",5,IDX,future,0.25,50\n")
    words = ("--objective", "kelly", "--expected-return", "IDX=1", "--capital", "1")
    done = run("hedge", *files(tmp_path, traded=FUTURE + ",5,IDX,future,0.25,50\n"), *words)
    assert (done.exit_code, "line 3" in done.stderr) == (2, True), done.stderr
