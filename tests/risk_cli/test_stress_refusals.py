"""What bad input is told, and the exit status of every end."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from desk_files import MARKET, PORTFOLIO, SCENARIOS, run, stress, write
from hypothesis import given, settings
from hypothesis import strategies as st

import gpu_kernels as gk
from protos import osi
from risk_cli.refusals import BadInput
from risk_cli.stress.portfolio_file import read_portfolio
from risk_cli.stress.scenario_file import read_scenarios

HEAD = PORTFOLIO.splitlines()[0]


def _changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


BAD_PORTFOLIOS = {
    "no number": (_changed(PORTFOLIO, ",-10,vol", ",ten,vol"), "desk.csv, line 2, column quantity", "'ten'"),
    "infinite": (_changed(PORTFOLIO, ",-10,vol", ",inf,vol"), "line 2, column quantity", "finite"),
    "no quantity": (_changed(PORTFOLIO, ",-400,", ",,"), "line 4, column quantity", "missing"),
    "bad date in symbol": (_changed(PORTFOLIO, "270319P", "271319P"), "line 2, column symbol", "271319"),
    "short strike in symbol": (_changed(PORTFOLIO, "P04800000", "P048000"), "line 2, column symbol", "OSI"),
    "letters in symbol": (
        _changed(PORTFOLIO, "270319P", "27O319P"),
        "line 2, column symbol",
        "no OSI symbol",
    ),
    "expired": (_changed(PORTFOLIO, "270319P", "250319P"), "line 2, column symbol", "expired on 2025-03-19"),
    "unknown underlying": (
        _changed(PORTFOLIO, "alpha,NVDA,", "alpha,NVDB,"),
        "line 4, column symbol",
        "NVDB",
    ),
    "unknown kind": (_changed(PORTFOLIO, "future", "swap"), "line 5, column kind", "option, future, spot"),
    "bad right": (_changed(PORTFOLIO, ",P,E,", ",X,E,"), "line 6, column right", "'X'"),
    "bad exercise": (_changed(PORTFOLIO, ",P,E,", ",P,B,"), "line 6, column exercise", "'B'"),
    "no multiplier": (_changed(PORTFOLIO, ",P,E,100", ",P,E,"), "line 6, column multiplier", "missing"),
    "no expiry": (_changed(PORTFOLIO, "2027-01-15", ""), "line 6, column expiry", "missing"),
    "bad expiry": (_changed(PORTFOLIO, "2027-01-15", "soon"), "line 6, column expiry", "'soon'"),
    "another day than the symbol's": (
        _changed(
            PORTFOLIO, PORTFOLIO.splitlines()[1], "alpha,SPX   270319P04800000,-10,vol,,,2027-03-20,,,E,"
        ),
        "line 2, column expiry",
        "is not the symbol's, 2027-03-19",
    ),
    "another underlying than the symbol's": (
        _changed(
            PORTFOLIO,
            PORTFOLIO.splitlines()[1],
            "alpha,SPX   270319P04800000,-10,vol,NVDA,,,,,E,\nalpha,SPX,1,vol,,,,,,,",
        ),
        "line 2, column underlying",
        "is not the symbol's, SPX",
    ),
    "ragged": (PORTFOLIO + "beta,NVDA\n", "line 7", "has 2 columns"),
    "unknown column": (PORTFOLIO.replace("group", "grupo"), "desk.csv", "'grupo'"),
    "column twice": (PORTFOLIO.replace("group", "symbol"), "line 1", "twice"),
    "empty": ("", "line 1", "header is empty"),
    "no rows": (HEAD + "\n", "desk.csv", "no rows"),
}
BAD_MARKETS = {
    "not TOML": ("date = \n", "market.toml", "not TOML"),
    "negative spot": (
        MARKET.replace("5000.0", "-5.0"),
        "market.toml, line 4, underlying.SPX.spot",
        "above 0",
    ),
    "no vol": (MARKET.replace("vol = 0.18\n", ""), "line 3, underlying.SPX.vol", "missing"),
    "vol in per cent": (MARKET.replace("0.18", "18"), "line 5, underlying.SPX.vol", "at most 10"),
    "rate in per cent": (MARKET.replace("rate = 0.04", "rate = 4"), "line 2, rate", "at most 1"),
    "dividend above the spot": (
        MARKET.replace("vol = 0.18", "vol = 0.18\ndividends = [{date = 2026-12-01, amount = 6000}]"),
        "underlying.SPX.dividends",
        "6000 on 2026-12-01 is not below the spot, 5000",
    ),
    "unknown key": (MARKET.replace("dividend_yield", "yield"), "line 6, underlying.SPX.yield", "unknown"),
    "no date": (MARKET.replace("date = 2026-11-20\n", ""), "market.toml, date", "missing"),
    "text for number": (MARKET.replace("0.04\n", '"0.04"\n', 1), "line 2, rate", "must be a number"),
    "no history file": ('history = "none.csv"\n' + MARKET, "none.csv", "cannot be read"),
}
BAD_SCENARIOS = {
    "nothing asked": ("", "scenarios.toml", "asks for nothing"),
    "unknown kind": ("[[scenari]]\nname='a'\n", "line 1, scenari", "unknown"),
    "unknown symbol": (SCENARIOS.replace("NVDA", "NVDB"), "line 3, scenario.spot", "'NVDB'"),
    "fall of more than all": (SCENARIOS.replace("-0.25", "-1.25"), "line 3, scenario.spot", "-1.25"),
    "no name": (SCENARIOS.replace('name = "a week"\n', ""), "line 6, scenario.name", "missing"),
    "unknown day": (SCENARIOS.replace("2008-10", "2008-13"), "named.name", "there are 1987-10-19"),
    "ladder of words": (SCENARIOS.replace("[-0.1, 0, 0.3]", '["a"]'), "line 12, ladder.vol", "number"),
    "empty ladder": (SCENARIOS.replace("[-0.1, 0, 0.3]", "[]"), "line 12, ladder.vol", "list"),
    "negative limit": (SCENARIOS.replace("2_500_000.0", "-1"), "line 16, limits.es_975", "above 0"),
    "unknown limit": (SCENARIOS.replace("es_975", "es_99"), "line 16, limits.es_99", "unknown"),
    "limit of nobody": (SCENARIOS + "[limits.gamma]\nes_975 = 1\n", "limits.gamma", "no portfolio"),
    "no history": (SCENARIOS + "[[historical]]\n", "line 18, historical", "needs a history"),
    "two few draws": (SCENARIOS + "[[monte_carlo]]\nscenarios = 3\n", "line 19, monte_carlo.scenarios", "40"),
}
CASES = [
    pytest.param(option, text, words, id=f"{option}: {name}")
    for option, cases in (
        ("portfolio", BAD_PORTFOLIOS),
        ("market", BAD_MARKETS),
        ("scenarios", BAD_SCENARIOS),
    )
    for name, (text, *words) in cases.items()
]


@pytest.mark.parametrize(("option", "text", "words"), CASES)
def test_bad_input_is_told_in_one_line(option: str, text: str, words: list[str], tmp_path: Path) -> None:
    result = stress(write(tmp_path, **{option: text}))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("risk: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("option", ["--report", "--parquet"])
def test_no_input_is_written_over(option: str, tmp_path: Path) -> None:
    files = write(tmp_path)
    (tmp_path / "link").symlink_to(files["scenarios"])
    for path in (*files.values(), str(tmp_path / "link")):
        before = Path(path).read_bytes()
        result = stress(files, option, path)
        assert (result.exit_code, "would be written over" in result.stderr) == (2, True)
        assert Path(path).read_bytes() == before
    result = run(
        "hedge", "--portfolio", files["portfolio"], "--market", files["market"], "--parquet", files["market"]
    )
    assert (result.exit_code, "--parquet: " in result.stderr) == (2, True)


def test_a_parquet_column_of_lists_is_named(tmp_path: Path) -> None:
    files = write(tmp_path)
    files["portfolio"] = str(tmp_path / "desk.parquet")
    pq.write_table(pa.table({"symbol": ["NVDA"], "quantity": [[1.0, 2.0]]}), files["portfolio"])
    result = stress(files)
    assert (result.exit_code, "column 'quantity': has list<" in result.stderr) == (2, True), result.stderr


def test_every_exit_status(tmp_path: Path) -> None:
    files = write(tmp_path)
    assert stress(files).exit_code == 0
    assert stress(files, "--report", str(tmp_path / "no" / "folder.html")).exit_code == 1
    assert stress(files, engine="abacus").exit_code == 2
    assert stress(files, "--json", "--csv").exit_code == 2
    assert run("stress").exit_code == 2
    assert run("stress", "--portfolio", "nowhere.csv", "--scenarios", "nowhere.toml").exit_code == 2
    assert run("price", "--spot", "100").exit_code == 2
    tight = write(tmp_path, scenarios=SCENARIOS.replace("10_000_000.0", "1000.0"))
    assert stress(tight).exit_code == 3
    tight = write(tmp_path, scenarios=SCENARIOS + "[limits.beta]\nstress_loss = 10.0\n")
    assert stress(tight).exit_code == 3
    tight = write(tmp_path, scenarios=SCENARIOS.replace("2_500_000.0", "100.0"))
    breached = stress(tight)
    assert (breached.exit_code, "BREACHED" in breached.stdout) == (3, True)


@pytest.mark.skipif(
    any(one.name == "cuda" and one.engine for one in gk.available_engines()), reason="there is a CUDA engine"
)
def test_an_engine_that_is_not_there_fails_by_name(tmp_path: Path) -> None:
    result = stress(write(tmp_path), engine="cuda")
    assert (result.exit_code, "'cuda'" in result.stderr) == (1, True)


def test_as_a_process(tmp_path: Path) -> None:
    files = write(tmp_path)
    command = [sys.executable, "-m", "risk_cli.main", "stress", "--engine", "reference"]
    named = [part for option, path in files.items() for part in (f"--{option}", path)]
    done = subprocess.run([*command, *named], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tech crash" in done.stdout
    assert "\x1b[" not in done.stdout
    refused = subprocess.run([*command, *named[:2]], capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 2
    assert refused.stderr == "risk: --scenarios: is missing (or try --sample)\n"


@pytest.mark.parametrize("option", ["--report", "--parquet"])
@pytest.mark.parametrize("where", ["", "no/such/folder/out"])
def test_what_cannot_be_written_is_refused_before_the_work(option: str, where: str, tmp_path: Path) -> None:
    # The portfolio would be refused, too, had anyone looked at it.
    files = write(tmp_path, portfolio="nonsense")
    refused = stress(files, option, str(tmp_path / where))
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert option in refused.stderr


def test_market_may_stand_in_the_scenario_file(tmp_path: Path) -> None:
    files = write(tmp_path)
    alone = {name: path for name, path in files.items() if name != "market"}
    assert "--market" in stress(alone).stderr
    named = write(tmp_path, scenarios='market = "market.toml"\n' + SCENARIOS)
    alone["scenarios"] = named["scenarios"]
    assert stress(alone, "--csv").stdout == stress(files, "--csv").stdout


@given(
    root=st.from_regex(r"[A-Z]{1,6}", fullmatch=True),
    day=st.dates(min_value=date(2000, 1, 1), max_value=date(2099, 12, 31)),
    is_call=st.booleans(),
    thousandths=st.integers(1, 10**8 - 1),
)
def test_osi_symbols_round_trip(root: str, day: object, is_call: bool, thousandths: int) -> None:
    symbol = osi.symbol_of(root, day, is_call, thousandths / 1000)  # type: ignore[arg-type]
    assert osi.looks_like_option(symbol)
    assert len(symbol) == 21
    for form in (symbol, symbol.replace(" ", "")):
        contract = osi.parse(form)
        assert (contract.root, contract.expiry, contract.is_call) == (root, day, is_call)
        assert contract.strike == thousandths / 1000


_LINE = st.text(st.sampled_from("abSPX0123456789.,-\"'[]={} \t#"), max_size=40)


@settings(max_examples=150, deadline=None)
@given(lines=st.lists(_LINE, max_size=6), junk=st.binary(max_size=20))
def test_no_file_ends_in_a_traceback(
    lines: list[str], junk: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    for name, head, read in (
        ("junk.csv", HEAD, read_portfolio),
        ("junk.toml", "[[scenario]]", read_scenarios),
    ):
        path = folder / name
        path.write_bytes("\n".join([head, *lines]).encode() + junk)
        try:
            read(path)  # type: ignore[operator]
        except BadInput as refusal:
            assert str(refusal).startswith(name)
