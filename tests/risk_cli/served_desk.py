"""A desk whose options a real service in this process quotes: its files, and its market."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from desk_files import option_value
from served import STRIKES
from worlds import NOW_NS, RATE, SPOT, YIELD, osi, quotes, reference, smile

from risk_service.market_events import MarketEvents

EXPIRY_NS = round(datetime(2024, 1, 19, 20, tzinfo=UTC).timestamp()) * 10**9
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


def market() -> Iterator[MarketEvents]:
    yield reference("IDX")
    yield quotes(["IDX"], [SPOT])
    for right in "CP":
        symbols = [osi("IDX", right, strike, EXPIRY_NS) for strike in STRIKES]
        values = [option_value(SPOT, k, YEARS, smile(k), RATE, YIELD, right == "C") for k in STRIKES]
        yield quotes(symbols, values)


def desk_options(folder: Path) -> tuple[str, ...]:
    """The desk in files, as options of `risk stress`."""
    (folder / "desk.csv").write_text(BOOK)
    (folder / "scenarios.toml").write_text(SCENARIOS)
    return ("--portfolio", str(folder / "desk.csv"), "--scenarios", str(folder / "scenarios.toml"))
