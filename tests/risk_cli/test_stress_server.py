"""`risk stress --server` against a real service: the same numbers as SciPy at the service's market."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from desk_files import option_value, run
from served_desk import RATE, SCENARIOS, SPOT, YEARS, YIELD, desk_options, smile


def _pnl(move: float, vol: float, elapsed: float = 0.0) -> list[float]:
    """P&L of the rows of BOOK."""

    def option(strike: float, call: bool, size: float) -> float:
        now = option_value(SPOT, strike, YEARS, smile(strike), RATE, YIELD, call)
        left, sigma = YEARS - elapsed, smile(strike) + vol
        return float(size * (option_value(SPOT * (1 + move), strike, left, sigma, RATE, YIELD, call) - now))

    return [option(90.0, False, 1000.0), option(100.0, True, -2000.0), 150 * SPOT * move]


def test_the_server_gives_the_numbers(address: str, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    result = run("stress", *desk_options(tmp_path), "--server", address, "--json", "--report", str(out))
    assert result.exit_code == 3, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    found = {one["name"]: one for one in answer["stress"]}
    crash = _pnl(-0.2, 0.1)
    assert found["crash"]["pnl"] == pytest.approx(sum(crash), rel=1e-7)
    assert found["crash"]["by_portfolio"] == pytest.approx(
        {"alpha": sum(crash[:2]), "beta": crash[2]}, rel=1e-7
    )
    assert found["a week"]["pnl"] == pytest.approx(sum(_pnl(0.0, 0.0, 7 / 365)), rel=1e-7)
    wanted = [[sum(_pnl(move, vol)) for vol in (0.0, 0.2)] for move in (-0.1, 0.1)]
    for row, line in zip(answer["ladders"][0]["pnl"], wanted, strict=True):
        assert row == pytest.approx(line, rel=1e-7)
    one = answer["distributions"][0]
    assert sum(one["component_es"]["by_portfolio"].values()) == pytest.approx(one["tail"][0]["es"], rel=1e-9)
    assert [limit["breached"] for limit in answer["limits"]] == [False, False, True]
    assert address in out.read_text()


def test_futures_count_as_nothing_today_there_as_here(address: str, tmp_path: Path) -> None:
    words = desk_options(tmp_path)
    before = json.loads(run("stress", *words, "--server", address, "--json").stdout)
    desk = tmp_path / "desk.csv"
    future = "beta,,3,E,IDX,future,2024-01-19,50"
    head, *rows = desk.read_text().splitlines()
    with_future = [f"{head},underlying,kind,expiry,multiplier", *(f"{row},,,," for row in rows), future]
    desk.write_text("\n".join(with_future))
    after = json.loads(run("stress", *words, "--server", address, "--json").stdout)
    assert after["value_today"] == pytest.approx(before["value_today"], rel=1e-12)
    moved = [one["stress"][0]["pnl"] for one in (before, after)]
    assert moved[1] - moved[0] == pytest.approx(3 * 50 * SPOT * -0.2, rel=0.1)


def test_what_the_server_cannot_do_is_refused(address: str, tmp_path: Path) -> None:
    files = desk_options(tmp_path)
    scenarios = tmp_path / "scenarios.toml"
    scenarios.write_text(SCENARIOS + '[[replay]]\nname = "x"\n')
    result = run("stress", *files, "--server", address)
    assert (result.exit_code, "line 17, replay" in result.stderr) == (2, True)
    scenarios.write_text(SCENARIOS + "es_975 = 1.0\n")
    result = run("stress", *files, "--server", address)
    assert (result.exit_code, "limits.beta.es_975" in result.stderr) == (2, True)


def test_no_server_is_a_failure(tmp_path: Path) -> None:
    result = run("stress", *desk_options(tmp_path), "--server", "127.0.0.1:1")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
