"""`risk price` and `risk iv`: one option from the command line, or a file of options."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.dividend_schedules import CashDividends
from risk_cli.answers import Form, plain_table, rows_of, show
from risk_cli.engine_choice import engine_for
from risk_cli.refusals import DONE, FAILED, BadInput
from risk_cli.server_options import Server
from risk_cli.servers import named_engine, risk_server
from risk_cli.sheets import Sheet, read_sheet

GREEKS = ("price", "delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm")
_NUMBERS = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield")
_FILE_COLUMNS = ("label", *_NUMBERS, "right", "exercise", "price", "dividends")
# Greeks, or an implied vol, in prices.
GREEKS_COST = 16.0
# A table on a terminal shows so many rows; JSON, CSV and Parquet have them all.
ROWS_SHOWN = 200
_ONE = np.zeros(1, np.int64)


@dataclass(frozen=True, slots=True)
class Quote:
    """The options of the command line; None where one was not given. Expiry in years, rates continuous."""

    spot: float | None
    strike: float | None
    expiry: float | None
    vol: float | None
    rate: float | None
    dividend_yield: float | None
    put: bool
    american: bool
    price: float | None = None
    dividends: Sequence[str] = ()  # each YEARS:AMOUNT


@dataclass(frozen=True, slots=True)
class _Asked:
    labels: Sequence[str]
    place: Callable[[int], str]  # where each stands, for complaints
    options: gk.Options
    price: NDArray[np.float64]
    schedules: Sequence[Sequence[tuple[float, float]]]  # of dividends
    schedule: NDArray[np.int64]  # the place among them of each row's


def run_price(quote: Quote, file: Path | None, engine: str, form: Callable[[], Form], server: Server) -> int:
    """Prices and Greeks, of this machine or of a server; the exit status."""
    shape = form()
    asked = _asked(quote, file, ("spot", "strike", "expiry", "vol"), "price")
    if server:
        with risk_server(server) as client:
            came = client.greeks(engine=named_engine(engine), **_columns(asked))
        columns, status = {name: np.asarray(came[name]) for name in GREEKS}, came.status
    else:
        answer = engine_for(engine, asked.options, GREEKS_COST).greeks(asked.options)
        columns, status = {name: np.asarray(getattr(answer, name)) for name in GREEKS}, answer.status
    return _answered(asked, columns, np.asarray(status), shape, "price")


def run_implied_vol(
    quote: Quote, file: Path | None, engine: str, form: Callable[[], Form], server: Server
) -> int:
    """Implied vols, of this machine or of a server; the exit status."""
    shape = form()
    asked = _asked(quote, file, ("spot", "strike", "expiry", "price"), "iv")
    if server:
        given = _columns(asked)
        del given["vol"]
        with risk_server(server) as client:
            came = client.implied_volatility(asked.price, engine=named_engine(engine), **given)
        vol, status = np.asarray(came["vol"]), came.status
    else:
        answer = engine_for(engine, asked.options, GREEKS_COST).implied_vol(asked.options, asked.price)
        vol, status = np.asarray(answer.vol), answer.status
    return _answered(asked, {"price": asked.price, "vol": vol}, np.asarray(status), shape, "iv")


def _columns(asked: _Asked) -> dict[str, Any]:
    """As a request takes them."""
    names = (*_NUMBERS, "is_call", "american")
    columns: dict[str, Any] = {name: np.asarray(getattr(asked.options, name)) for name in names}
    if any(asked.schedules):
        columns["dividends"] = {str(place): paid for place, paid in enumerate(asked.schedules)}
        columns["paid_by"] = asked.schedule
    return columns


def _asked(quote: Quote, file: Path | None, needed: Sequence[str], command: str) -> _Asked:
    if file is None:
        return _one(quote, needed)
    return _many(quote, read_sheet(file, _FILE_COLUMNS, command), needed)


def _one(quote: Quote, needed: Sequence[str]) -> _Asked:
    for name in needed:
        if getattr(quote, name) is None:
            raise BadInput(f"--{name}: is missing (or give --options FILE)")
    values: dict[str, Any] = {name: np.array([_number(getattr(quote, name))]) for name in _NUMBERS}
    label = "put" if quote.put else "call"
    paid = [_own_dividends(quote)]
    options = gk.Options(
        **values,
        is_call=np.array([not quote.put]),
        american=np.array([quote.american]),
        dividends=_cash(paid, _ONE),
    )
    return _Asked([label], lambda _: f"the {label}", options, np.array([_number(quote.price)]), paid, _ONE)


def _own_dividends(quote: Quote) -> list[tuple[float, float]]:
    """Those of the command line."""
    try:
        return _pairs(" ".join(quote.dividends))
    except ValueError as wrong:
        raise BadInput(f"--dividend: {wrong}") from None


def _pairs(text: str) -> list[tuple[float, float]]:
    """Pairs YEARS:AMOUNT with blanks between, by time; ValueError says what is wrong."""
    found = []
    for one in text.split():
        years, _, amount = one.partition(":")
        try:
            pair = (float(years), float(amount))
        except ValueError:
            raise ValueError(f"{one!r} is not YEARS:AMOUNT") from None
        if not (math.isfinite(pair[0]) and 0.0 <= pair[1] < math.inf):
            raise ValueError(f"{one!r} needs finite years and an amount of 0 or more")
        found.append(pair)
    return sorted(found)


def _cash(paid: Sequence[Sequence[tuple[float, float]]], schedule: NDArray[np.int64]) -> CashDividends | None:
    return CashDividends.shared(paid, schedule) if any(paid) else None


def _number(value: float | None) -> float:
    return 0.0 if value is None else value


def _many(quote: Quote, sheet: Sheet, needed: Sequence[str]) -> _Asked:
    """Columns of the file; what it has no column for comes from the command line."""

    def column(name: str) -> NDArray[np.float64]:
        given = getattr(quote, name)
        if name in sheet.columns:
            return sheet.numbers(name, given if name in needed else _number(given))
        if given is None and name in needed:
            raise BadInput(f"{sheet.file}: has no column {name!r}, and --{name} is not given")
        return np.full(len(sheet), _number(given))

    def flags(name: str, choices: tuple[str, str], default: bool) -> NDArray[np.bool_]:
        said = sheet.choices(name, choices)
        return np.where(said < 0, default, said == 0)

    columns: dict[str, Any] = {name: column(name) for name in _NUMBERS}
    said = sheet.texts("dividends").named()
    paid = []
    for place, text in enumerate(said.distinct):
        try:
            paid.append(_pairs(text) if text else _own_dividends(quote))
        except ValueError as wrong:
            row = int(np.flatnonzero(said.codes == place)[0])
            raise sheet.fault(row, "dividends", str(wrong)) from None
    schedule = said.codes.astype(np.int64)
    options = gk.Options(
        **columns,
        dividends=_cash(paid, schedule),
        is_call=flags("right", ("C", "P"), not quote.put),
        american=flags("exercise", ("A", "E"), quote.american),
    )
    return _Asked(sheet.labels("label"), sheet.place, options, column("price"), paid, schedule)


def _answered(
    asked: _Asked, columns: Mapping[str, NDArray[np.float64]], status: NDArray[Any], form: Form, command: str
) -> int:
    """Shows the rows; status 1 if any of them has no answer."""
    name_of = {one.value: one.name for one in gk.Status}
    names = [name_of[one] for one in status.tolist()]
    count = len(names)
    answer: dict[str, Sequence[Any]] = {
        "option": asked.labels,
        **{name: column.tolist() for name, column in columns.items()},
        "status": names,
    }
    shown = [_line(row) for row in zip(*(one[:ROWS_SHOWN] for one in answer.values()), strict=True)]
    tables: list[Any] = [plain_table("", list(answer), shown)]
    if count > ROWS_SHOWN:
        tables.append(f"… {count - ROWS_SHOWN:,} more rows: --json, --csv or --parquet have them all")
    show(form, command, tables, lambda: {"options": rows_of(answer)}, answer)
    bad = np.flatnonzero(status > gk.Status.EXPIRED)
    if not bad.size:
        return DONE
    first = int(bad[0])
    why = f"{asked.place(first)}: {names[first]}{_reason(asked, first, gk.Status(int(status[first])))}"
    print(f"risk: {bad.size:,} of {count:,} without an answer; {why}", file=sys.stderr)
    return FAILED


def _reason(asked: _Asked, row: int, status: gk.Status) -> str:
    """Which input of a row is to blame, in words."""
    if status in (gk.Status.BELOW_INTRINSIC, gk.Status.ABOVE_MAXIMUM):
        side = "less" if status == gk.Status.BELOW_INTRINSIC else "more"
        return f", price {asked.price[row]:g} is {side} than such an option can cost"
    negative = [name for name in _NUMBERS[:4] if np.asarray(getattr(asked.options, name))[row] < 0.0]
    return f", {' and '.join(negative)} must not be negative" if negative else ""


def _line(row: Sequence[Any]) -> list[str]:
    return [f"{value:.8g}" if isinstance(value, float) else str(value) for value in row]
