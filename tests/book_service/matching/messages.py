"""Short ways to write messages and to read reports."""

from __future__ import annotations

from typing import Any

import numpy as np

from book_service.matching import ORDER_DTYPE, ControlCommand, Limit, MatchingEngine

BUY, SELL = 0, 1
LIMIT, MARKET, STOP, STOP_LIMIT = range(4)
DAY, IOC, FOK, POST_ONLY, GTD = range(5)
ALL_SYMBOLS, ALL_ACCOUNTS = 2, 4


def row(**fields: int) -> Any:
    """One message; fields not named are zero."""
    message = np.zeros(1, ORDER_DTYPE)
    for name, value in fields.items():
        message[name] = value
    return message


def order(order_id: int, side: int, price: int, quantity: int, account: int = 1, **fields: int) -> Any:
    return row(order_id=order_id, side=side, price=price, quantity=quantity, account=account, **fields)


def cancel(order_id: int, account: int = 1, **fields: int) -> Any:
    return row(action=1, order_id=order_id, account=account, **fields)


def replace(order_id: int, price: int, quantity: int, account: int = 1, **fields: int) -> Any:
    return row(action=2, order_id=order_id, price=price, quantity=quantity, account=account, **fields)


def command(kind: ControlCommand, **fields: int) -> Any:
    return row(action=4, kind=int(kind), **fields)


def set_limit(limit: Limit, value: int, **fields: int) -> Any:
    """Sets a limit for everybody and everything, unless told otherwise."""
    fields = {"flags": ALL_SYMBOLS | ALL_ACCOUNTS} | fields
    return command(ControlCommand.SET_LIMIT, tif=int(limit), price=value, **fields)


def send(engine: MatchingEngine, *messages: Any) -> list[tuple[int, int]]:
    """(kind, reason) of every report, in order."""
    reports = engine.process(np.concatenate(messages))
    return list(zip(reports["kind"].tolist(), reports["reason"].tolist()))


def trades(reports: Any) -> list[tuple[int, int, int, int]]:
    """(maker, taker, price, quantity) of every trade."""
    found = reports[reports["kind"] == 1]
    return list(zip(*(found[name].tolist() for name in ("maker_id", "taker_id", "price", "quantity"))))
