"""Files of many rows: the positions that row by row gives, faults by line, the first of them and how many."""

from __future__ import annotations

import csv
import io
import random
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from desk_files import MARKET, SCENARIOS, run, stress, write

from protos import osi
from risk_cli.refusals import BadInput
from risk_cli.sheets import ROWS_AT_ONCE, read_sheet
from risk_cli.stress.book import arrange
from risk_cli.stress.portfolio_file import read_portfolio

HEAD = "portfolio,symbol,quantity,group"


def test_rows_beyond_one_block_are_read_as_they_stand(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    rows = []
    for number in range(ROWS_AT_ONCE + 500):
        day = date(2027, 1, 1) + timedelta(days=draw.randrange(400))
        symbol = osi.symbol_of(
            draw.choice(["SPXW", "NVDA"]), day, draw.random() < 0.5, draw.randint(1, 9_999)
        )
        rows.append((draw.choice("ab"), symbol, number + 1, draw.choice(["x", "y", ""])))
    path = tmp_path / "desk.csv"
    path.write_text("\n".join([HEAD, *(",".join(map(str, row)) for row in rows)]))
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(path), tmp_path / "desk.parquet")
    for name, unit, first in (("desk.csv", "line", 2), ("desk.parquet", "row", 1)):
        desk = read_portfolio(tmp_path / name)
        assert len(desk) == len(rows)
        assert desk.positions.quantity.tolist() == [row[2] for row in rows]
        for place in draw.sample(range(len(rows)), 200):
            portfolio, symbol, quantity, group = rows[place]
            one, contract = desk[place], osi.parse(symbol)
            assert (one.portfolio, one.group, one.quantity) == (portfolio, group, quantity)
            assert (one.strike, one.expiry, one.is_call) == (
                contract.strike,
                contract.expiry,
                contract.is_call,
            )
            assert one.underlying == osi.INDEX_OF_ROOT.get(contract.root, contract.root)
            assert desk.place(place) == f"{name}, {unit} {place + first}"
        layout = arrange(desk)
        cells = [layout.cells[cell] for cell in layout.cell[:50]]
        assert [(one.portfolio, one.group) for one in cells] == [(row[0], row[3]) for row in rows[:50]]
        assert layout.cells[0].portfolio == rows[0][0]


def test_the_first_faults_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    lines = [f"a,SPX,{'x' if number % 10 == 3 else 1},g" for number in range(200)]
    (tmp_path / "desk.csv").write_text("\n".join([HEAD, *lines]))
    with pytest.raises(BadInput) as caught:
        read_portfolio(tmp_path / "desk.csv")
    said = str(caught.value).split("\nrisk: ")
    assert [one.split(":")[0] for one in said[:-1]] == [
        f"desk.csv, line {line}, column quantity" for line in (5, 15, 25, 35, 45)
    ]
    assert said[-1] == "desk.csv: 15 more rows are wrong"


def test_lines_are_the_editors_also_with_blank_ones_and_breaks_within_cells(tmp_path: Path) -> None:
    text = f'{HEAD}\n\na,SPX,1,"one\ntwo"\n,,,\n\nb,SPX,bad,g\n'
    (tmp_path / "desk.csv").write_text(text)
    with pytest.raises(BadInput, match=r"^desk.csv, line 7, column quantity: 'bad' is not a number$"):
        read_portfolio(tmp_path / "desk.csv")
    (tmp_path / "desk.csv").write_text(text.replace("bad", "2"))
    desk = read_portfolio(tmp_path / "desk.csv")
    assert [desk[row].group for row in range(2)] == ["one\ntwo", "g"]
    assert desk.place(1) == "desk.csv, line 7"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("portfolio;symbol;quantity\na;SPX;1\n", "separated by semicolons"),
        ("symbol\tquantity\nSPX\t1\n", "separated by tabs"),
        (f"{HEAD}\na,SPX,1_000,g\n", "'1_000' is not a number"),
        (f"{HEAD}\na,SPX,1e300,g\n", "at most 1e+12"),
        ("symbol,group\nSPX,g\n", "column quantity: is missing: the table has no such column"),
        ("quantity,group\n1,g\n", "symbol: is missing, and so is underlying"),
    ],
)
def test_what_a_newcomer_gets_wrong_is_said(tmp_path: Path, text: str, says: str) -> None:
    done = stress(write(tmp_path, portfolio=text))
    assert (done.exit_code, done.stderr.count("\n"), says in done.stderr) == (2, 1, True)


def test_headings_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "desk.csv").write_text("Symbol,QUANTITY\nSPX,2\n")
    assert read_portfolio(tmp_path / "desk.csv")[0].quantity == 2.0


@pytest.mark.parametrize(
    ("scenarios", "says"),
    [
        (SCENARIOS.replace("default = 0.15", "default = 15"), "scenario.vol.default: must be at least -2"),
        (SCENARIOS.replace("[-0.1, 0, 0.3]", "[-10, 0, 30]"), "ladder.vol"),
        (SCENARIOS.replace('"a week"', '"tech crash"'), "'tech crash' is there twice"),
        (SCENARIOS.replace("elapsed_days = 7", "elapsed_days = 1e9"), "at most 3660"),
    ],
)
def test_shocks_that_were_meant_otherwise_are_refused(tmp_path: Path, scenarios: str, says: str) -> None:
    done = stress(write(tmp_path, scenarios=scenarios))
    assert (done.exit_code, says in done.stderr) == (2, True)


def test_a_name_is_no_formula_in_a_spreadsheet(tmp_path: Path) -> None:
    text = f"{HEAD}\n=1+1,SPX,-5,g\n"
    done = stress(write(tmp_path, portfolio=text, market=MARKET), "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert {one["portfolio"] for one in rows} == {"", "'=1+1"}
    assert float(rows[0]["amount"]) == -25_000.0


def test_options_of_a_large_file_are_priced_row_by_row(tmp_path: Path) -> None:
    strikes = np.linspace(50.0, 150.0, ROWS_AT_ONCE + 10)
    path = tmp_path / "options.csv"
    path.write_text(
        "\n".join(["strike,right", *(f"{k!r},{'CP'[n % 2]}" for n, k in enumerate(strikes.tolist()))])
    )
    words = ("--spot", "100", "--expiry", "1", "--vol", "0.2", "--engine", "reference")
    done = run("price", "--options", str(path), *words, "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert (done.exit_code, len(rows)) == (0, len(strikes))
    for place in (0, 1, ROWS_AT_ONCE, len(rows) - 1):
        put = ["--put"] if place % 2 else []
        alone = run("price", "--strike", repr(float(strikes[place])), *words, *put, "--csv")
        one = next(csv.DictReader(io.StringIO(alone.stdout)))
        assert rows[place]["option"] == f"line {place + 2}"
        assert {**one, "option": ""} == {**rows[place], "option": ""}
    bad = tmp_path / "bad.csv"
    bad.write_text("strike\n100\nx\n")
    assert "bad.csv, line 3, column strike: 'x'" in run("price", "--options", str(bad), *words).stderr


def test_a_sheet_of_numbers_keeps_what_is_missing_apart(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,\n2,5\n")
    sheet = read_sheet(tmp_path / "a.csv", None, "stress")
    assert sheet.numbers("y", 7.0).tolist() == [7.0, 5.0]
    with pytest.raises(BadInput, match=r"a\.csv, line 2, column y: is missing"):
        sheet.numbers("y")
