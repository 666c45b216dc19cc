"""A small desk in files, and its P&L worked out again from SciPy's normal distribution."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import Result
from numpy.typing import NDArray
from scipy.stats import norm
from typer.testing import CliRunner

from risk_cli.main import app

TODAY = date(2026, 11, 20)
PORTFOLIO = """portfolio,symbol,quantity,group,underlying,kind,expiry,strike,right,exercise,multiplier
alpha,SPX   270319P04800000,-10,vol,,,,,,,
alpha,NVDA  261218C00130000,25,names,,,,,,E,
alpha,NVDA,-400,names,,,,,,,
beta,,3,vol,SPX,future,2026-12-18,,,,50
beta,,-40,names,NVDA,option,2027-01-15,110,P,E,100
"""
MARKET = """date = 2026-11-20
rate = 0.04
[underlying.SPX]
spot = 5000.0
vol = 0.18
dividend_yield = 0.014
[underlying.NVDA]
spot = 125.0
vol = 0.45
rate = 0.045
"""
SCENARIOS = """[[scenario]]
name = "tech crash"
spot = { default = -0.10, NVDA = -0.25 }
vol  = { default = 0.15 }
rate = -0.005
[[scenario]]
name = "a week"
elapsed_days = 7
[[ladder]]
name = "spot x vol"
spot = [-0.3, -0.1, 0, 0.2]
vol  = [-0.1, 0, 0.3]
[[named]]
name = "2008-10"
[limits]
es_975 = 2_500_000.0
stress_loss = 10_000_000.0
"""

Floats = NDArray[np.float64]


def write(folder: Path, **texts: str) -> dict[str, str]:
    """Files of the desk in `folder`, by the option that names them; a given text replaces the usual one."""
    usual = {"portfolio": PORTFOLIO, "market": MARKET, "scenarios": SCENARIOS}
    names = {"portfolio": "desk.csv", "market": "market.toml", "scenarios": "scenarios.toml"}
    paths = {}
    for option, text in (usual | texts).items():
        path = folder / names[option]
        path.write_text(text)
        paths[option] = str(path)
    return paths


def run(*arguments: str) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def stress(files: dict[str, str], *more: str, engine: str = "reference") -> Result:
    """`risk stress` on these files."""
    named = [part for option, path in files.items() for part in (f"--{option}", path)]
    return run("stress", *named, "--engine", engine, *more)


def option_value(
    spot: Any, strike: float, years: Any, vol: Any, rate: Any, dividend: float, call: bool
) -> Any:
    """Black and Scholes, in the form of a forward."""
    forward = spot * np.exp((rate - dividend) * years)
    spread = vol * np.sqrt(years)
    up = np.log(forward / strike) / spread + spread / 2
    sign = 1.0 if call else -1.0
    inner = sign * (forward * norm.cdf(sign * up) - strike * norm.cdf(sign * (up - spread)))
    return np.exp(-rate * years) * inner


def position_pnl(spx: Any, nvda: Any, vol: Any, rate: Any = 0.0, elapsed: float = 0.0) -> list[Any]:
    """P&L of the five rows of PORTFOLIO under simple returns and absolute changes, in the file's order."""

    def years(day: date) -> float:
        return (day - TODAY).days / 365

    def option(
        size: float,
        spot: float,
        move: Any,
        strike: float,
        day: date,
        flat: float,
        r: float,
        q: float,
        call: bool,
    ) -> Any:
        then = option_value(spot * (1 + move), strike, years(day) - elapsed, flat + vol, r + rate, q, call)
        return size * (then - option_value(spot, strike, years(day), flat, r, q, call))

    left = years(date(2026, 12, 18))
    future = 5000.0 * np.exp((0.04 - 0.014) * left)
    future_then = 5000.0 * (1 + spx) * np.exp((0.04 + rate - 0.014) * (left - elapsed))
    return [
        option(-1000, 5000, spx, 4800, date(2027, 3, 19), 0.18, 0.04, 0.014, False),
        option(2500, 125, nvda, 130, date(2026, 12, 18), 0.45, 0.045, 0.0, True),
        -400 * 125 * nvda,
        3 * 50 * (future_then - future),
        option(-4000, 125, nvda, 110, date(2027, 1, 15), 0.45, 0.045, 0.0, False),
    ]


def expected_shortfall(pnl: Floats, level: float) -> float:
    """Mean of the worst n(1 − level) outcomes, the last one in part."""
    tail, total, left = np.sort(pnl), 0.0, len(pnl) * (1 - level)
    for loss in tail:
        part = min(1.0, left)
        total += part * loss
        left -= part
        if left <= 1e-9:
            break
    return -total / (len(pnl) * (1 - level))
