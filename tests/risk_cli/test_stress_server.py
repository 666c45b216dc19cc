"""`risk stress --server` against a real service: the same numbers as SciPy at the service's market."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from desk_files import option_value, run

# The service in this process that risk_service's own tests use.
sys.path.insert(0, str(Path(__file__).parent.parent / "risk_service"))
from served import PATIENCE_S, STRIKES, Service, price_history, serving
from worlds import NOW_NS, RATE, SPOT, YIELD, osi, quotes, reference, smile

from risk_service.market_events import MarketEvents
from service_kit.grpc_server import GrpcSettings

EXPIRY_NS = datetime(2024, 1, 19, 20, tzinfo=UTC).timestamp() * 1e9
YEARS = (EXPIRY_NS - NOW_NS) / (365 * 86_400e9)
BOOK = """portfolio,symbol,quantity,exercise
alpha,IDX   240119P00090000,10,E
alpha,IDX   240119C00100000,-20,E
beta,IDX,150,
"""
SCENARIOS = """[[scenario]]
name = "crash"
spot = -0.2
vol = 0.1
[[scenario]]
name = "a week"
elapsed_days = 7
[[ladder]]
name = "grid"
spot = [-0.1, 0.1]
vol = [0.0, 0.2]
[limits]
es_975 = 100_000.0
stress_loss = 1_000_000.0
[limits.beta]
stress_loss = 600.0
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A service with a history, whose market quotes the options of BOOK and what stands opposite to them."""
    with Service(price_history()) as service:
        for record in _market():
            last = service.market.send("IDX", record)
        while service.loop.desk.ask().result(PATIENCE_S).market.snapshot_id() != f"0:{last + 1}":
            assert service.thread.is_alive()
        with serving(lambda: service.server(GrpcSettings(port=0))) as server:
            yield f"127.0.0.1:{server.port}"


def _market() -> Iterator[MarketEvents]:
    yield reference("IDX")
    yield quotes(["IDX"], [SPOT])
    for right in "CP":
        symbols = [osi("IDX", right, strike) for strike in STRIKES]
        values = [option_value(SPOT, k, YEARS, smile(k), RATE, YIELD, right == "C") for k in STRIKES]
        yield quotes(symbols, values)


def _pnl(move: float, vol: float, elapsed: float = 0.0) -> list[float]:
    """P&L of the rows of BOOK."""

    def option(strike: float, call: bool, size: float) -> float:
        now = option_value(SPOT, strike, YEARS, smile(strike), RATE, YIELD, call)
        left, sigma = YEARS - elapsed, smile(strike) + vol
        return float(size * (option_value(SPOT * (1 + move), strike, left, sigma, RATE, YIELD, call) - now))

    return [option(90.0, False, 1000.0), option(100.0, True, -2000.0), 150 * SPOT * move]


def _files(folder: Path) -> tuple[str, ...]:
    (folder / "desk.csv").write_text(BOOK)
    (folder / "scenarios.toml").write_text(SCENARIOS)
    return ("--portfolio", str(folder / "desk.csv"), "--scenarios", str(folder / "scenarios.toml"))


def test_the_server_gives_the_numbers(address: str, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    result = run("stress", *_files(tmp_path), "--server", address, "--json", "--report", str(out))
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


def test_what_the_server_cannot_do_is_refused(address: str, tmp_path: Path) -> None:
    files = _files(tmp_path)
    scenarios = tmp_path / "scenarios.toml"
    scenarios.write_text(SCENARIOS + '[[replay]]\nname = "x"\n')
    result = run("stress", *files, "--server", address)
    assert (result.exit_code, "line 17, replay" in result.stderr) == (2, True)
    scenarios.write_text(SCENARIOS + "es_975 = 1.0\n")
    result = run("stress", *files, "--server", address)
    assert (result.exit_code, "limits.beta.es_975" in result.stderr) == (2, True)


def test_no_server_is_a_failure(tmp_path: Path) -> None:
    result = run("stress", *_files(tmp_path), "--server", "127.0.0.1:1")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
