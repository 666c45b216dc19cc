"""`risk hedge`: the trades, put into the desk's file, do what the answer says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from desk_files import run, write

import risk_client
from protos.risk.v1 import risk_pb2 as wire

INSTRUMENTS = """symbol,quantity,exercise
SPX   270319P05000000,40,E
SPX   270319C05200000,40,E
NVDA  261218C00130000,200,E
NVDA  270115P00110000,200,E
SPX,500,
NVDA,20000,
"""


def _hedged(*words: str) -> dict[str, Any]:
    done = run("hedge", *words, "--engine", "reference", "--json")
    assert done.exit_code == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _with_trades(desk: str, instruments: str, answer: dict[str, Any], path: Path) -> str:
    """The desk's file with the trades as further rows."""
    rows = [line.split(",") for line in instruments.splitlines()[1:]]
    more = [
        f"hedge,{symbol},{one['trade']!r},,,,,,,{exercise},"
        for (symbol, _, exercise), one in zip(rows, answer["trades"], strict=True)
        if one["trade"]
    ]
    path.write_text(Path(desk).read_text() + "\n".join(more) + "\n")
    return str(path)


def _exposures(files: dict[str, str], portfolio: str) -> dict[str, dict[str, float]]:
    words = ("--portfolio", portfolio, "--scenarios", files["scenarios"], "--market", files["market"])
    done = run("stress", *words, "--engine", "reference", "--json")
    found: list[dict[str, Any]] = json.loads(done.stdout)["exposures"]
    return {one["underlying"]: one for one in found}


def test_a_delta_hedge_leaves_at_most_half_a_lot(tmp_path: Path) -> None:
    files = write(tmp_path)
    words = ("--portfolio", files["portfolio"], "--market", files["market"])
    answer = _hedged(*words, "--lot-size", "10", "--cost-per-lot", "2.5")
    assert [one["instrument"] for one in answer["trades"]] == ["SPX", "NVDA"]
    for one in answer["trades"]:
        assert one["trade"] % 10 == 0
        assert one["cost"] == pytest.approx(abs(one["trade"]) / 10 * 2.5)
    instruments = "symbol,quantity,exercise\nSPX,1,\nNVDA,1,\n"
    after = _exposures(files, _with_trades(files["portfolio"], instruments, answer, tmp_path / "hedged.csv"))
    assert abs(after["SPX"]["delta"]) <= 5 * 5000.0 + 1e-6
    assert abs(after["NVDA"]["delta"]) <= 5 * 125.0 + 1e-6
    left = sum(abs(one["delta"]) for one in after.values())
    assert answer["risk_after"] == pytest.approx(left, rel=1e-6)


def test_all_three_greeks_get_smaller(tmp_path: Path) -> None:
    files = write(tmp_path)
    (tmp_path / "instruments.csv").write_text(INSTRUMENTS)
    answer = _hedged(
        "--portfolio", files["portfolio"], "--market", files["market"],
        "--instruments", str(tmp_path / "instruments.csv"), "--objective", "delta_gamma_vega",
    )  # fmt: skip
    before = _exposures(files, files["portfolio"])
    after = _exposures(files, _with_trades(files["portfolio"], INSTRUMENTS, answer, tmp_path / "hedged.csv"))

    def risk(at: dict[str, dict[str, float]]) -> float:
        # The command's exposures are per 1 % of spot and per vol point already; delta is in currency.
        parts = [(one["delta"] * 0.01, one["gamma"] * 0.005, one["vega"]) for one in at.values()]
        return float(np.sqrt(np.square(parts).sum()))

    assert answer["risk_before"] == pytest.approx(risk(before), rel=1e-6)
    assert answer["risk_after"] == pytest.approx(risk(after), rel=1e-6)
    assert answer["risk_after"] < 0.1 * answer["risk_before"]
    limits = [float(line.split(",")[1]) for line in INSTRUMENTS.splitlines()[1:]]
    assert all(abs(one["trade"]) <= most for one, most in zip(answer["trades"], limits, strict=True))


def test_the_least_expected_shortfall_is_what_risk_es_says(tmp_path: Path) -> None:
    files = write(tmp_path)
    (tmp_path / "instruments.csv").write_text(INSTRUMENTS)
    words = ("--market", files["market"], "--monte-carlo", "1024", "--seed", "5")
    answer = _hedged(
        "--portfolio", files["portfolio"], *words, "--instruments", str(tmp_path / "instruments.csv"),
        "--objective", "min_expected_shortfall",
    )  # fmt: skip
    hedged = _with_trades(files["portfolio"], INSTRUMENTS, answer, tmp_path / "hedged.csv")
    found = []
    for portfolio in (files["portfolio"], hedged):
        done = run("es", "--portfolio", portfolio, *words, "--engine", "reference", "--json")
        found.append(json.loads(done.stdout)["tail"][0]["es"])
    assert (answer["risk_before"], answer["risk_after"]) == pytest.approx(tuple(found), rel=1e-7)
    assert found[1] < 0.5 * found[0]


def test_a_server_hedges_a_portfolio_that_it_keeps(address: str, tmp_path: Path) -> None:
    book = wire.Portfolio(portfolio="kept", underlyings=["IDX"])
    book.positions.symbol.append("IDX")
    book.positions.underlying_index.append(0)
    book.positions.kind.append(wire.INSTRUMENT_KIND_SPOT)
    book.positions.quantity.append(30.0)
    book.positions.multiplier.append(1.0)
    with risk_client.RiskClient(address) as client:
        client.put_portfolio(book)
    answer = _hedged_by(address, "--name", "kept")
    assert [(one["instrument"], one["trade"]) for one in answer["trades"]] == [("IDX", -30.0)]
    (tmp_path / "i.csv").write_text("symbol,quantity,exercise\nIDX   240119C00100000,500,E\nIDX,12,\n")
    more = ("--instruments", str(tmp_path / "i.csv"), "--objective", "delta_gamma_vega")
    answer = _hedged_by(address, "--name", "kept", *more)
    assert answer["risk_after"] < answer["risk_before"]
    assert len(answer["trades"]) == 2


def _hedged_by(server: str, *words: str) -> dict[str, Any]:
    done = run("hedge", "--server", server, *words, "--json")
    assert done.exit_code == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_what_cannot_be_hedged_is_refused(address: str, tmp_path: Path) -> None:
    files = write(tmp_path)
    desk = ("--portfolio", files["portfolio"], "--market", files["market"])
    (tmp_path / "bad.csv").write_text("symbol,quantity\nSPX,-3\n")
    (tmp_path / "other.csv").write_text("symbol,quantity\nABC,3\n")
    bad, other = (("--instruments", str(tmp_path / name)) for name in ("bad.csv", "other.csv"))
    for words, says in (
        ((*desk, "--objective", "luck"), "--objective"),
        ((*desk, "--objective", "delta_gamma_vega"), "--instruments"),
        ((*desk, "--lot-size", "0"), "--lot-size"),
        ((*desk, "--name", "x"), "--name"),
        ((*desk, *bad), "line 2, column quantity"),
        ((*desk, *other), "ABC"),
        (("--portfolio", files["portfolio"]), "--market"),
        (("--server", address), "--name"),
        (("--server", address, "--name", "x", "--sample"), "--sample"),
        (("--server", address, "--name", "nobody's"), "nobody's"),
    ):
        done = run("hedge", *words, "--engine", "auto" if "--server" in words else "reference")
        assert (done.exit_code, says in done.stderr) == (2, True), (words, done.stderr)


def test_a_reader_sees_what_to_buy() -> None:
    shown = run("hedge", "--sample", "--engine", "reference").stdout
    assert "risk before" in shown
    assert any(line.split()[:2] == ["NDX", "buy"] for line in shown.splitlines())
