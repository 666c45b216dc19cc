"""Options in columns, cut into messages, and the answers put together again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_client.answers import Columns
from risk_client.connection import PARTS_UNDER_WAY
from risk_client.dividend_tables import option_dividends
from risk_client.errors import ServiceFault
from risk_client.jobs import Job
from risk_client.messages import message_of
from risk_client.tables import (
    Kind,
    column_kind,
    columns_like,
    flags,
    frame_column,
    frame_columns,
    frame_kind,
    numbers,
    refused,
    same_index,
    with_columns,
)

NUMBERS = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield")
FLAGS = ("is_call", "american")
OPTION_COLUMNS = (*NUMBERS, *FLAGS)
GREEKS = ("price", "delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm")

Finish = Callable[[dict[str, NDArray[Any]], wire.Provenance], Any]
Request = wire.PriceRequest | wire.GreeksRequest | wire.ImpliedVolatilityRequest


@dataclass(frozen=True, slots=True)
class How:
    """What the methods about options have in common, beside the options."""

    engine: str = ""
    fast: bool = False
    prefix: str = ""
    dividends: Any = None
    paid_by: Any = None
    deadline_s: float | None = None


@dataclass
class OptionJob(Job[Any]):
    """One question about many options; `requests` are its messages, `take` reads the answers to them."""

    rpc: str
    outputs: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]  # each of length 1 or `rows`
    rows: int
    blank: Callable[[], Request]
    finish: Finish
    deadline_s: float | None = None
    done: int = 0
    _answer: dict[str, NDArray[Any]] = field(default_factory=dict)
    _provenance: wire.Provenance = field(default_factory=wire.Provenance)

    def __post_init__(self) -> None:
        for name in self.outputs:
            self._answer[name] = np.empty(self.rows, np.float64)
        self._answer["status"] = np.empty(self.rows, np.int32)

    def together(self, chunk_rows: int) -> int:
        """Beyond one message the next one travels while one is computed."""
        return 1 if self.rows <= chunk_rows else PARTS_UNDER_WAY

    def requests(self, chunk_rows: int) -> Iterator[Request]:
        """The messages for all rows, made one by one."""
        for first in range(0, self.rows, chunk_rows):
            yield self._request(slice(first, min(first + chunk_rows, self.rows)))

    def take(self, answer: Any) -> None:
        """Reads the answer to the next message."""
        status = packing.read(answer, "status")
        rows = slice(self.done, self.done + status.size)
        if not 0 < status.size <= self.rows - self.done:
            raise ServiceFault(f"{status.size} rows came where {self.rows - self.done} are due")
        self._answer["status"][rows] = status
        for name in self.outputs:
            values = packing.read(answer, name)
            if values.size != status.size:
                raise ServiceFault(f"{name} came with {values.size} rows, status with {status.size}")
            self._answer[name][rows] = values
        # Of all the parts the one that needs saying: an answer is degraded if a part of it is.
        if self.done == 0 or (answer.provenance.degraded and not self._provenance.degraded):
            self._provenance = answer.provenance
        self.done = rows.stop

    def result(self) -> Any:
        """The answer in the kind that the question came in."""
        return self.finish(self._answer, self._provenance)

    def _request(self, rows: slice) -> Request:
        request = self.blank()
        for name, values in self.columns.items():
            part = values if values.size == 1 else values[rows]
            packing.write(request if name == "price" else request.options, name, part)
        return request


def price_job(frame: Any, given: Mapping[str, Any], how: How) -> OptionJob:
    """Prices."""
    return _job("Price", wire.PriceRequest, ("price",), OPTION_COLUMNS, frame, given, how)


def greeks_job(frame: Any, given: Mapping[str, Any], how: How) -> OptionJob:
    """Prices and Greeks."""
    return _job("Greeks", wire.GreeksRequest, GREEKS, OPTION_COLUMNS, frame, given, how)


def implied_volatility_job(frame: Any, given: Mapping[str, Any], how: How) -> OptionJob:
    """Implied vols; what stands in a table's column vol is not read."""
    names = tuple(name for name in (*OPTION_COLUMNS, "price") if name != "vol")
    given = {name: values for name, values in given.items() if name != "vol"}
    return _job("ImpliedVolatility", wire.ImpliedVolatilityRequest, ("vol",), names, frame, given, how)


def _job(
    rpc: str,
    kind: type[Request],
    outputs: tuple[str, ...],
    names: tuple[str, ...],
    frame: Any,
    given: Mapping[str, Any],
    how: How,
) -> OptionJob:
    unknown = given.keys() - set(names)
    if unknown:
        raise TypeError(f"no option column {min(unknown)!r}; there are {', '.join(names)}")
    paid_by = how.paid_by
    if frame is None:
        columns, finish = dict(given), _as_columns(given)
    else:
        columns, finish = _of_frame(frame, given, names, (*outputs, "status"), how.prefix)
        if isinstance(paid_by, str):
            paid_by = frame_column(frame, _kind(frame), paid_by)
    arrays = {one: _read(one, values) for one, values in columns.items()}
    if how.dividends is None and paid_by is not None:
        raise refused("paid_by", "is given without dividends")
    dividends = None
    if how.dividends is not None:
        dividends, schedule = option_dividends(how.dividends, paid_by)
        if schedule is not None:
            arrays["dividend_schedule"] = schedule
    rows = _rows(arrays) if frame is None else len(frame)
    for one, values in arrays.items():
        if values.size not in (1, rows):
            raise refused(_field(one), f"has {values.size} entries where there are {rows} rows")
    if rows > 1 and arrays and all(values.size == 1 for values in arrays.values()):
        # A table whose every column was replaced by one value still has its rows.
        one, values = next(iter(arrays.items()))
        arrays[one] = np.repeat(values, rows)
    method = wire.AMERICAN_METHOD_FAST if how.fast else wire.AMERICAN_METHOD_ACCURATE

    def blank() -> Request:
        request = message_of(kind, engine=how.engine, american_method=method)
        if dividends is not None:
            request.options.dividends.CopyFrom(dividends)
        return request

    return OptionJob(rpc, outputs, arrays, rows, blank, finish, how.deadline_s)


def _of_frame(
    frame: Any, given: Mapping[str, Any], names: tuple[str, ...], results: tuple[str, ...], prefix: str
) -> tuple[dict[str, Any], Finish]:
    """The columns of a table; a keyword replaces one, and a keyword's text names another column."""
    kind = _kind(frame)
    there = frame_columns(frame, kind)
    for result in results:
        if f"{prefix}{result}" in there:
            raise refused(f"{prefix}{result}", "is in the table already: name results apart by prefix=")
    columns = {one: frame_column(frame, kind, one) for one in names if one in there and one not in given}
    for name, values in given.items():
        columns[name] = frame_column(frame, kind, values) if isinstance(values, str) else values
    if kind == "pandas":
        same_index(columns, frame.index)

    def finish(answer: dict[str, NDArray[Any]], provenance: wire.Provenance) -> Any:
        named = {f"{prefix}{one}": values for one, values in answer.items()}
        return with_columns(frame, kind, named, provenance)

    return columns, finish


def _kind(frame: Any) -> Kind:
    kind = frame_kind(frame)
    if kind is None:
        raise TypeError(f"a table of pandas, polars or arrow is needed, not {type(frame).__name__}")
    return kind


def _as_columns(given: Mapping[str, Any]) -> Finish:
    kinds = {column_kind(values) for values in given.values()} - {"numpy"}
    if len(kinds) > 1:
        raise TypeError(f"columns of {' and '.join(sorted(kinds))} in one call")
    kind: Kind = kinds.pop() if kinds else "numpy"
    index = same_index(given)

    def finish(answer: dict[str, NDArray[Any]], provenance: wire.Provenance) -> Columns:
        columns = columns_like(kind, index, answer)
        status = columns.pop("status")
        return Columns(columns, status, provenance)

    return finish


def _read(name: str, values: Any) -> NDArray[Any]:
    return flags(_field(name), values) if name in FLAGS else numbers(_field(name), values)


def _rows(columns: Mapping[str, NDArray[Any]]) -> int:
    lengths = {values.size for values in columns.values()}
    return max(lengths, default=0) if 0 not in lengths else 0


def _field(name: str) -> str:
    """As the service names it; what has no column of its own there by its keyword here."""
    own = {"price": "price", "dividend_schedule": "paid_by"}
    return own.get(name, f"options.{name}")
