"""Option columns of a request as the kernels take them, and the kernels' answers as columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from service_kit.errors import InvalidRequest, TooLarge

_NUMBERS = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield")
_FLAGS = ("is_call", "american")
_NEEDED = ("spot", "strike", "expiry")
_DEFAULTS = {"rate": 0.0, "dividend_yield": 0.0, "is_call": True, "american": False}
GREEKS = ("price", "delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm")


def read_options(columns: wire.OptionColumns, rows_max: int, *, with_vol: bool) -> gk.Options:
    """The options of a request, each column of length 1 or n; raises naming the column."""
    rows = _rows(columns, rows_max)
    fields: dict[str, Any] = {}
    for name in (*_NUMBERS, *_FLAGS):
        values = packing.read(columns, name)
        if values.size:
            fields[name] = values if values.size == rows else values[0]
        elif name in _DEFAULTS:
            fields[name] = _DEFAULTS[name]
        elif name in _NEEDED or with_vol:
            raise InvalidRequest(f"options.{name}", "is missing")
        else:
            fields[name] = np.nan
    # One full-length column makes the answer have all rows even where the others are single values.
    fields["spot"] = (
        np.broadcast_to(fields["spot"], rows).copy() if rows > 1 else np.atleast_1d(fields["spot"])
    )
    return gk.Options(**fields)


def read_prices(request: wire.ImpliedVolatilityRequest, rows: int) -> NDArray[np.float64]:
    """The prices to imply vols from, one per option."""
    try:
        prices: NDArray[np.float64] = packing.column(request, "price", rows)
    except packing.PackingError as fault:
        raise InvalidRequest("price", fault.why) from fault
    if not len(request.price):
        raise InvalidRequest("price", "is missing")
    return prices


def price_response(result: gk.PriceResult) -> wire.PriceResponse:
    """Prices as columns."""
    response = wire.PriceResponse()
    packing.write(response, "price", result.price)
    packing.write(response, "status", result.status)
    return response


def greeks_response(result: gk.GreeksResult) -> wire.GreeksResponse:
    """Price and Greeks as columns."""
    response = wire.GreeksResponse()
    for name in (*GREEKS, "status"):
        packing.write(response, name, getattr(result, name))
    return response


def vol_response(result: gk.ImpliedVolResult) -> wire.ImpliedVolatilityResponse:
    """Vols as columns."""
    response = wire.ImpliedVolatilityResponse()
    packing.write(response, "vol", result.vol)
    packing.write(response, "status", result.status)
    return response


def american_method(number: int) -> Any:
    """The name of the method for American rows."""
    if number not in wire.AmericanMethod.values():
        raise InvalidRequest("american_method", f"{number} is no method")
    return "fast" if number == wire.AMERICAN_METHOD_FAST else "accurate"


def _rows(columns: wire.OptionColumns, rows_max: int) -> int:
    try:
        rows = packing.row_count(columns, (*_NUMBERS, *_FLAGS))
    except packing.PackingError as fault:
        raise InvalidRequest(f"options.{fault.field}", fault.why, fault.row) from fault
    if rows == 0:
        raise InvalidRequest("options.spot", "is missing")
    if rows > rows_max:
        raise TooLarge(
            f"{rows} rows are more than the {rows_max} of one request: send them in parts, or stream"
        )
    return rows
