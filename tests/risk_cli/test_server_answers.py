"""`risk price|iv|es --server`, against a real service: the same numbers as on this machine."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from desk_files import run
from served_desk import desk_options

OPTIONS = """label,spot,strike,expiry,vol,price,right,exercise
a,100,110,0.5,0.25,3.5,C,E
b,100,90,1.5,0.30,,P,A
c,100,-1,1.0,0.20,,C,E
"""


def _rows(*words: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(run(*words, "--csv").stdout)))


def test_prices_and_greeks_are_those_of_this_machine(address: str, tmp_path: Path) -> None:
    path = tmp_path / "options.csv"
    path.write_text(OPTIONS)
    words = ("price", "--options", str(path), "--rate", "0.03")
    here, there = _rows(*words, "--engine", "reference"), _rows(*words, "--server", address)
    assert [row["status"] for row in there] == ["OK", "OK", "INVALID_INPUT"]
    for one, other in zip(here[:2], there[:2], strict=True):
        for name in ("price", "delta", "gamma", "vega", "theta", "rho"):
            assert float(other[name]) == pytest.approx(float(one[name]), rel=1e-6)
    assert run(*words, "--server", address).exit_code == 1  # a row has no price


def test_a_row_without_an_answer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "options.csv"
    path.write_text(OPTIONS)
    done = run("price", "--options", str(path), "--engine", "reference")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    for part in ("1 of 3", "options.csv, line 4", "INVALID_INPUT", "strike must not be negative"):
        assert part in done.stderr
    dear = ("iv", "--price", "200", "--spot", "100", "--strike", "100", "--expiry", "1")
    done = run(*dear, "--engine", "reference")
    assert (done.exit_code, "price 200 is more than" in done.stderr) == (1, True)


def test_implied_vols_are_those_of_this_machine(address: str) -> None:
    words = ("iv", "--price", "10.45", "--spot", "100", "--strike", "100", "--expiry", "1", "--rate", "0.05")
    here, there = _rows(*words, "--engine", "reference"), _rows(*words, "--server", address)
    assert float(there[0]["vol"]) == pytest.approx(float(here[0]["vol"]), rel=1e-9)


def test_expected_shortfall_at_the_servers_history(address: str, tmp_path: Path) -> None:
    files = desk_options(tmp_path)
    words = ("es", *files[:2], "--server", address)
    answer = json.loads(run(*words, "--json").stdout)
    tail = answer["tail"][0]
    assert 0 < tail["var"] <= tail["es"]
    assert address in answer["made_with"]["market"]
    stressed = json.loads(run("stress", *files, "--server", address, "--json").stdout)
    assert tail == stressed["distributions"][0]["tail"][0]
    simulated = json.loads(run(*words, "--monte-carlo", "512", "--seed", "3", "--json").stdout)
    assert simulated["scenarios"] == 512


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("es", "--sample", "--server", "127.0.0.1:1"), 1, "127.0.0.1:1"),
        (("es", "--server", "127.0.0.1:1"), 2, "--portfolio"),
        (
            (
                "price",
                *["--spot", "1", "--strike", "1", "--expiry", "1", "--vol", "1", "--server", "127.0.0.1:1"],
            ),
            1,
            "127.0.0.1:1",
        ),
    ],
)
def test_no_server(words: tuple[str, ...], status: int, says: str) -> None:
    done = run(*words)
    assert (done.exit_code, says in done.stderr) == (status, True), done.stderr


def test_an_engine_that_the_server_has_not_is_refused(address: str) -> None:
    words = ["--spot", "1", "--strike", "1", "--expiry", "1", "--vol", "1", "--engine", "abacus"]
    done = run("price", *words, "--server", address)
    assert (done.exit_code, "abacus" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("command", ["stress", "es"])
def test_the_sample_desk_at_a_server_without_its_market_is_explained(address: str, command: str) -> None:
    done = run(command, "--sample", "--server", address)
    assert done.exit_code in (1, 2)
    assert "the sample desk holds SPX" in done.stderr
    assert "without --server it needs none" in done.stderr
