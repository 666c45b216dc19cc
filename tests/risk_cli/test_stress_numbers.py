"""`risk stress`, `es`, `price` and `iv`: the numbers, against SciPy."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from desk_files import (
    MARKET,
    PORTFOLIO,
    SCENARIOS,
    expected_shortfall,
    option_value,
    position_pnl,
    run,
    stress,
    write,
)
from scipy.stats import norm

CLOSE = {"rel": 1e-9, "abs": 1e-6}


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The usual desk's answer as JSON."""
    result = stress(write(tmp_path_factory.mktemp("desk")), "--json")
    assert result.exit_code == 0, result.stderr
    body: dict[str, Any] = json.loads(result.stdout)
    return body


def _named(answer: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in answer["stress"] if one["name"] == name)


def test_custom_scenarios(answer: dict[str, Any]) -> None:
    crash = position_pnl(-0.10, -0.25, 0.15, rate=-0.005)
    found = _named(answer, "tech crash")
    assert found["pnl"] == pytest.approx(sum(crash), **CLOSE)
    assert found["by_underlying"] == pytest.approx(
        {"SPX": crash[0] + crash[3], "NVDA": crash[1] + crash[2] + crash[4]}, **CLOSE
    )
    assert found["by_portfolio"] == pytest.approx({"alpha": sum(crash[:3]), "beta": sum(crash[3:])}, **CLOSE)
    assert found["by_group"]["vol"] == pytest.approx(crash[0] + crash[3], **CLOSE)
    week = position_pnl(0.0, 0.0, 0.0, elapsed=7 / 365)
    assert _named(answer, "a week")["pnl"] == pytest.approx(sum(week), **CLOSE)


def test_ladder(answer: dict[str, Any]) -> None:
    grid = answer["ladders"][0]
    wanted = [[sum(position_pnl(move, move, vol)) for vol in grid["vol"]] for move in grid["spot"]]
    assert np.array(grid["pnl"]) == pytest.approx(np.array(wanted), **CLOSE)


def test_named_day_moves_by_beta(answer: dict[str, Any], tmp_path: Path) -> None:
    assert _named(answer, "2008-10")["pnl"] == pytest.approx(
        sum(position_pnl(-0.0904, -0.0904, 0.1356)), **CLOSE
    )
    text = '[[named]]\nname = "2008-10"\nbeta = { NVDA = 1.5 }\n'
    found = json.loads(stress(write(tmp_path, scenarios=text), "--json").stdout)
    wanted = sum(position_pnl(-0.0904, -0.0904 * 1.5, 0.1356))
    assert _named(found, "2008-10")["pnl"] == pytest.approx(wanted, **CLOSE)


def test_value_today_and_exposure(answer: dict[str, Any]) -> None:
    bump = 1e-4
    exposure = {one["underlying"]: one for one in answer["exposures"]}
    up, down = position_pnl(bump, bump, 0.0), position_pnl(-bump, -bump, 0.0)
    delta = {"SPX": (0, 3), "NVDA": (1, 2, 4)}
    for symbol, rows in delta.items():
        slope = sum(up[row] - down[row] for row in rows) / (2 * bump)
        assert exposure[symbol]["delta"] == pytest.approx(slope, rel=1e-5)
    later, higher = position_pnl(0.0, 0.0, 0.0, elapsed=bump), position_pnl(0.0, 0.0, 0.0, rate=bump)
    earlier, lower = position_pnl(0.0, 0.0, 0.0, elapsed=-bump), position_pnl(0.0, 0.0, 0.0, rate=-bump)
    for symbol, rows in delta.items():
        theta = sum(later[row] - earlier[row] for row in rows) / (2 * bump) / 365
        rho = sum(higher[row] - lower[row] for row in rows) / (2 * bump) * 1e-4
        assert exposure[symbol]["theta"] == pytest.approx(theta, rel=1e-5)
        assert exposure[symbol]["rho"] == pytest.approx(rho, rel=1e-5)
    # Spot at its price, options at theirs, and the future at nothing.
    nvda = 2500 * option_value(125, 130, 28 / 365, 0.45, 0.045, 0.0, True)
    nvda -= 4000 * option_value(125, 110, 56 / 365, 0.45, 0.045, 0.0, False)
    spx = -1000 * option_value(5000, 4800, 119 / 365, 0.18, 0.04, 0.014, False)
    assert exposure["NVDA"]["value"] == pytest.approx(nvda - 400 * 125, **CLOSE)
    assert answer["value_today"] == pytest.approx(spx + nvda - 400 * 125, **CLOSE)


def _history(folder: Path, seed: int, days: int = 121) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A history file of closes and vols; simple returns and vol changes come back."""
    random = np.random.default_rng(seed)
    closes = np.round(100 * np.exp(np.cumsum(random.normal(0, 0.02, (days, 2)), axis=0)), 4)
    vols = np.round(0.2 + 0.02 * random.random((days, 2)), 4)
    start = np.datetime64("2026-03-01")
    lines = ["date,SPX,NVDA,SPX.vol,NVDA.vol"]
    for day in range(days):
        cells = ",".join(repr(float(value)) for value in (*closes[day], *vols[day]))
        lines.append(f"{start + day},{cells}")
    (folder / "history.csv").write_text("\n".join(lines) + "\n")
    return closes[1:] / closes[:-1] - 1, np.diff(vols, axis=0)


def _past_pnl(moves: Any, changes: Any) -> list[Any]:
    elapsed = 1 / 252
    spx = position_pnl(moves[:, 0], moves[:, 1], changes[:, 0], elapsed=elapsed)
    nvda = position_pnl(moves[:, 0], moves[:, 1], changes[:, 1], elapsed=elapsed)
    return [spx[0], nvda[1], nvda[2], spx[3], nvda[4]]


def test_historical_shortfall_and_its_parts(tmp_path: Path, seed: int) -> None:
    moves, changes = _history(tmp_path, seed)
    rows = _past_pnl(moves, changes)
    pnl = sum(rows)
    market = 'history = "history.csv"\n' + MARKET
    text = SCENARIOS + '[[historical]]\nname = "past"\n[[replay]]\nname = "all of it"\n'
    result = stress(write(tmp_path, market=market, scenarios=text), "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    one = found["distributions"][0]
    assert one["scenarios"] == 120
    tail = one["tail"][0]
    assert (tail["level"], tail["es"]) == (0.975, pytest.approx(expected_shortfall(pnl, 0.975), **CLOSE))
    assert tail["var"] == pytest.approx(-np.sort(pnl)[2], **CLOSE)
    worst = np.argsort(pnl)[:3]
    parts = [-float(np.asarray(row)[worst].mean()) for row in rows]
    # The answer's rows: options first, then the others, each in the file's order.
    given = [row["es"] for row in one["component_es"]["by_position"]]
    assert given == pytest.approx([parts[row] for row in (0, 1, 4, 2, 3)], **CLOSE)
    assert sum(one["component_es"]["by_group"].values()) == pytest.approx(tail["es"], **CLOSE)
    total, shift = np.prod(1 + moves, axis=0) - 1, changes.sum(axis=0)
    replayed = _named(found, "all of it")["by_underlying"]
    nvda = position_pnl(0.0, total[1], shift[1])
    assert replayed["NVDA"] == pytest.approx(nvda[1] + nvda[2] + nvda[4], **CLOSE)


def test_es_command_agrees_with_stress(tmp_path: Path, seed: int) -> None:
    moves, changes = _history(tmp_path, seed)
    files = write(tmp_path, market='history = "history.csv"\n' + MARKET)
    common = ("es", "--portfolio", files["portfolio"], "--market", files["market"], "--engine", "reference")
    rows = list(csv.DictReader(io.StringIO(run(*common, "--csv").stdout)))
    wanted = expected_shortfall(np.asarray(sum(_past_pnl(moves, changes))), 0.975)
    assert float(rows[0]["es"]) == pytest.approx(wanted, **CLOSE)
    window = json.loads(run(*common, "--window-days", "60", "--json").stdout)
    wanted = expected_shortfall(np.asarray(sum(_past_pnl(moves[-60:], changes[-60:]))), 0.975)
    assert (window["scenarios"], window["tail"][0]["es"]) == (60, pytest.approx(wanted, **CLOSE))


def test_monte_carlo_of_one_share_is_lognormal(tmp_path: Path) -> None:
    files = write(tmp_path, portfolio="symbol,quantity\nNVDA,100\n")
    arguments = ("es", "--portfolio", files["portfolio"], "--market", files["market"])
    result = run(*arguments, "--engine", "reference", "--monte-carlo", "16384", "--json")
    assert result.exit_code == 0, result.stderr
    spread, tail = 0.45 / np.sqrt(252), 0.025
    # Mean of a lognormal below its quantile.
    below = np.exp(spread**2 / 2) * norm.cdf(norm.ppf(tail) - spread) / tail
    assert json.loads(result.stdout)["tail"][0]["es"] == pytest.approx(12_500 * (1 - below), rel=0.01)


def test_vol_surface_is_read_at_each_option(tmp_path: Path) -> None:
    surface = (
        "date = 2026-11-20\nrate = 0.04\n[underlying.SPX]\nspot = 5000.0\n[underlying.SPX.vol]\n"
        "moneyness = [0.8, 1.0, 1.2]\nyears = [0.25, 1.0]\n"
        "vols = [[0.30, 0.20, 0.15], [0.26, 0.19, 0.16]]\n"
    )
    terms = "underlying,kind,quantity,expiry,strike,right,exercise,multiplier\n"
    books = {(4500.0, 0.5): 1.0, (6500.0, 0.1): 1.0, (5000.0, 2.0): 1.0}
    log = np.log([0.8, 1.0, 1.2])
    for strike, years in books:
        near = np.interp(np.log(strike / 5000), log, [0.30, 0.20, 0.15])
        far = np.interp(np.log(strike / 5000), log, [0.26, 0.19, 0.16])
        vol = np.interp(years, [0.25, 1.0], [near, far])
        row = f"SPX,option,2,{years},{strike},C,E,10\n"
        files = write(
            tmp_path,
            portfolio=terms + row,
            market=surface,
            scenarios='[[scenario]]\nname = "x"\nspot = -0.1\n',
        )
        found = json.loads(stress(files, "--json").stdout)
        assert found["value_today"] == pytest.approx(
            20 * option_value(5000, strike, years, vol, 0.04, 0.0, True), **CLOSE
        )


def test_exercise_comes_from_row_then_market_then_listing(tmp_path: Path) -> None:
    book = "symbol,quantity,exercise\n{} 270319P00130000,1,{}\n"
    text = '[[scenario]]\nname = "x"\nspot = -0.1\n'
    market = MARKET + 'exercise = "{}"\n'

    def value(symbol: str, row: str, underlying: str) -> Any:
        files = write(
            tmp_path,
            portfolio=book.format(symbol, row),
            market=market.format(underlying),
            scenarios=text,
        )
        return json.loads(stress(files, "--json").stdout)["made_with"]["positions"]

    assert "(0 American)" in value("NVDA", "E", "A")
    assert "(1 American)" in value("NVDA", "", "A")
    assert "(0 American)" in value("NVDA", "", "E")
    assert "(1 American)" in value("NVDA", "", "listed")
    assert "(0 American)" in value("SPXW", "", "A")


def test_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "out.parquet"
    result = stress(write(tmp_path), "--csv", "--parquet", str(out))
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    table = parquet.read_table(out).to_pylist()
    assert [float(row["amount"]) for row in rows] == [row["amount"] for row in table]
    crash = next(row for row in table if row["name"] == "tech crash" and row["portfolio"] == "beta")
    assert crash["amount"] == pytest.approx(sum(position_pnl(-0.10, -0.25, 0.15, rate=-0.005)[3:]), **CLOSE)


def test_portfolio_from_parquet(tmp_path: Path, answer: dict[str, Any]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    rows = [
        {name: cell or None for name, cell in row.items()} for row in csv.DictReader(io.StringIO(PORTFOLIO))
    ]
    for row in rows:
        row["quantity"] = float(row["quantity"])
        row["strike"] = float(row["strike"]) if row["strike"] else None
    files = write(tmp_path)
    files["portfolio"] = str(tmp_path / "desk.parquet")
    parquet.write_table(arrow.Table.from_pylist(rows), files["portfolio"])
    found = json.loads(stress(files, "--json").stdout)
    assert [one["pnl"] for one in found["stress"]] == [one["pnl"] for one in answer["stress"]]


def test_price_and_iv() -> None:
    terms = ("--spot", "100", "--strike", "110", "--expiry", "0.5", "--rate", "0.03", "--put")
    common = (*terms, "--dividend-yield", "0.01", "--engine", "reference", "--json")
    priced = json.loads(run("price", *common, "--vol", "0.25").stdout)["options"][0]
    wanted = option_value(100, 110, 0.5, 0.25, 0.03, 0.01, False)
    assert priced["price"] == pytest.approx(wanted, **CLOSE)
    bump = 1e-4
    up = option_value(100 + bump, 110, 0.5, 0.25, 0.03, 0.01, False)
    assert priced["delta"] == pytest.approx((up - wanted) / bump, rel=1e-4)
    implied = json.loads(run("iv", *common, "--price", repr(float(wanted))).stdout)["options"][0]
    assert implied["vol"] == pytest.approx(0.25, rel=1e-9)


def test_options_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "options.csv"
    path.write_text("label,strike,right,vol\nlow,90,C,0.3\nhigh,110,P,0.2\nbad,-1,P,0.2\n")
    common = ("--options", str(path), "--spot", "100", "--expiry", "1", "--engine", "reference", "--csv")
    result = run("price", *common)
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert float(rows[0]["price"]) == pytest.approx(option_value(100, 90, 1, 0.3, 0, 0, True), **CLOSE)
    assert float(rows[1]["price"]) == pytest.approx(option_value(100, 110, 1, 0.2, 0, 0, False), **CLOSE)
    assert (rows[2]["status"], rows[2]["price"], result.exit_code) == ("INVALID_INPUT", "", 1)
