"""The desk that the tests of answers ask about, and its numbers written anew from the formula."""

from __future__ import annotations

import numpy as np
from served import price_history
from worlds import RATE, SPOT, black_scholes, option, portfolio, smile, spot_position

from protos.risk.v1 import risk_pb2 as wire

ROWS = (
    option(90.0, False, 10.0),
    option(100.0, True, -20.0, group=1),
    option(110.0, True, 5.0),
    option(80.0, True, 3.0, group=1),
    spot_position(150.0),
)
GROUPS = ("vol", "carry", "empty")
HISTORY = price_history()
WINDOW = 300


def live_book(service, name="desk"):
    """The very portfolio that the live loop values."""
    snapshot = service.loop.desk.ask().result(10)
    return snapshot.measured[name].valuation.portfolio


def plain_value(spot, vol_change=0.0, years=0.5, rate=RATE, rows=ROWS):
    total = 0.0
    for _, kind, quantity, strike, is_call, *_ in rows:
        if kind == wire.INSTRUMENT_KIND_OPTION:
            vol = np.maximum(smile(strike) + vol_change, 1e-4)
            total = total + quantity * black_scholes(spot, strike, years, vol, is_call, rate)
        else:
            total = total + quantity * spot
    return total


def plain_pnl(days=WINDOW, rows=ROWS):
    """The book under each of the last days, from the formula."""
    column = HISTORY.underlyings.index("IDX")
    closes, vols = HISTORY.closes[-days - 1 :, column], HISTORY.vols[-days - 1 :, column]
    moves, changes = np.diff(np.log(closes)), np.diff(vols)
    now = plain_value(SPOT, rows=rows)
    return plain_value(SPOT * np.exp(moves), changes, 0.5 - 1 / 252, rows=rows) - now


def plain_es(pnl, level=0.975):
    losses = np.sort(-pnl)[::-1]
    k = round(len(losses) * (1 - level), 9)
    whole = int(k)
    return (losses[:whole].sum() + (k - whole) * losses[whole]) / k


def historical_scenarios(days=WINDOW):
    return HISTORY.scenarios(("IDX",), days)


def trade_of(*rows):
    return portfolio(rows=rows).positions


def plain_greeks(rows=ROWS):
    step = 1e-3
    up, mid, down = (plain_value(SPOT + move, rows=rows) for move in (step, 0.0, -step))
    vega = (plain_value(SPOT, 1e-4, rows=rows) - plain_value(SPOT, -1e-4, rows=rows)) / 2e-4
    return (up - down) / (2 * step), (up - 2 * mid + down) / step**2, vega
