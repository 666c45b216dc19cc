"""Option columns of a request as the kernels take them."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_service.api.dividend_requests import read_dividends
from service_kit.errors import InvalidRequest, TooLarge

_NUMBERS = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield")
_TYPES: dict[str, type[np.generic]] = {
    **dict.fromkeys(_NUMBERS, np.float64),
    "is_call": np.bool_,
    "american": np.bool_,
}
_COLUMNS = tuple(_TYPES)
# All columns of a message in one step: asked for one by one they cost more than a small request's kernel.
_given = attrgetter(*_COLUMNS)
# What an answer weighs besides its rows: provenance, tags and lengths.
ANSWER_BYTES_BESIDE = 4_096
_NEEDED = ("spot", "strike", "expiry")
_DEFAULTS: dict[str, Any] = {
    "vol": math.nan,
    "rate": 0.0,
    "dividend_yield": 0.0,
    "is_call": True,
    "american": False,
}
_METHODS: dict[int, Literal["accurate", "fast"]] = {
    wire.AMERICAN_METHOD_ACCURATE: "accurate",
    wire.AMERICAN_METHOD_FAST: "fast",
}


def rows_of(columns: wire.OptionColumns) -> int:
    """How many rows there are, without reading one."""
    return max(map(len, _given(columns)))


def read_options(columns: wire.OptionColumns, rows_max: int, *, with_vol: bool) -> gk.Options:
    """The options of a request, each column of length 1 or n; raises naming the column."""
    given = _given(columns)
    sizes = tuple(map(len, given))
    rows = max(sizes)
    if not (0 < rows <= rows_max and {0, 1, rows}.issuperset(sizes)):
        _refuse_rows(columns, rows_max)
    fields = _DEFAULTS.copy()
    for name, values, size in zip(_COLUMNS, given, sizes, strict=True):
        if size == 1:
            fields[name] = values[0]
        elif size:
            fields[name] = np.asarray(values, _TYPES[name])
        elif name in _NEEDED or (with_vol and name == "vol"):
            raise InvalidRequest(f"options.{name}", "is missing")
    # One full-length column makes the answer have all rows even where the others are single values.
    if sizes[0] == 1:
        fields["spot"] = np.full(rows, fields["spot"]) if rows > 1 else np.array((fields["spot"],))
    fields["dividends"] = read_dividends(columns, rows)
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


def expect_answer_fits(rows: int, row_bytes: int, message_bytes_max: int) -> None:
    """Refuses, before anything is computed, rows whose answer is larger than a message may be."""
    most = max(1, (message_bytes_max - ANSWER_BYTES_BESIDE) // row_bytes)
    if rows > most:
        raise TooLarge(
            f"{rows} rows are more than the {most} whose answer fits one message of "
            f"{message_bytes_max} bytes: send them in parts, or stream"
        )


def american_method(number: int) -> Literal["accurate", "fast"]:
    """The name of the method for American rows."""
    name = _METHODS.get(number)
    if name is None:
        raise InvalidRequest("american_method", f"{number} is no method")
    return name


def _refuse_rows(columns: wire.OptionColumns, rows_max: int) -> None:
    """Says what is wrong with the lengths of the columns."""
    try:
        rows = packing.row_count(columns, _COLUMNS)
    except packing.PackingError as fault:
        raise InvalidRequest(f"options.{fault.field}", fault.why, fault.row) from fault
    if rows == 0:
        raise InvalidRequest("options.spot", "is missing")
    raise TooLarge(f"{rows} rows are more than the {rows_max} of one request: send them in parts, or stream")
