"""A desk's positions from CSV or Parquet: OSI symbols, plain underlyings, or terms in columns."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from risk_cli.sheets import Sheet, read_sheet
from risk_cli.stress import osi

COLUMNS = (
    *("portfolio", "symbol", "quantity", "group", "underlying", "kind"),
    *("expiry", "strike", "right", "exercise", "multiplier"),
)
KINDS = ("option", "future", "spot")
UNNAMED = "portfolio"  # where the file has no column of that name


@dataclass(frozen=True, slots=True)
class Position:
    """One row of the file. `expiry` is a day or a number of years; None where there is none."""

    place: str  # file and row, for complaints
    label: str
    portfolio: str
    group: str
    underlying: str
    kind: str
    quantity: float
    multiplier: float
    expiry: date | float | None = None
    strike: float = 0.0
    is_call: bool = False
    american: bool | None = None  # None: as the market file or the listing says
    root: str = ""
    name_column: str = "symbol"  # where the underlying's name stands, for complaints
    expiry_column: str = "expiry"


def read_portfolio(path: Path, command: str = "stress") -> tuple[Position, ...]:
    """All positions, in the order of the file."""
    sheet = read_sheet(path, COLUMNS, command)
    if "symbol" not in sheet.columns and "underlying" not in sheet.columns:
        raise sheet.fault(0, "symbol", "is missing, and so is underlying: one of the two is needed")
    return tuple(_position(sheet, row) for row in range(len(sheet)))


def _position(sheet: Sheet, row: int) -> Position:
    symbol, kind = sheet.text(row, "symbol"), sheet.choice(row, "kind", KINDS)
    if kind in ("", "option") and osi.looks_like_option(symbol):
        return _listed_option(sheet, row, symbol)
    if kind == "option":
        return _option(sheet, row, symbol)
    return _linear(sheet, row, symbol, kind or "spot")


def _listed_option(sheet: Sheet, row: int, symbol: str) -> Position:
    try:
        contract = osi.parse(symbol)
    except ValueError as error:
        raise sheet.fault(row, "symbol", str(error)) from None
    position = Position(
        **_common(sheet, row, symbol),
        underlying=sheet.text(row, "underlying") or osi.INDEX_OF_ROOT.get(contract.root, contract.root),
        kind="option",
        multiplier=_multiplier(sheet, row, osi.CONTRACT_SIZE),
        expiry=contract.expiry,
        strike=contract.strike,
        is_call=contract.is_call,
        american=_exercise(sheet, row),
        root=contract.root,
        name_column="underlying" if sheet.text(row, "underlying") else "symbol",
        expiry_column="symbol",
    )
    _check_agreement(sheet, row, position)
    return position


def _check_agreement(sheet: Sheet, row: int, position: Position) -> None:
    """Columns that repeat what the symbol says must say the same."""
    if sheet.text(row, "strike") and sheet.number(row, "strike") != position.strike:
        raise sheet.fault(row, "strike", f"is not the symbol's, {position.strike:g}")
    if sheet.text(row, "expiry") and _expiry(sheet, row) != position.expiry:
        raise sheet.fault(row, "expiry", f"is not the symbol's, {position.expiry}")
    right = sheet.choice(row, "right", ("C", "P"))
    if right and (right == "C") != position.is_call:
        raise sheet.fault(row, "right", f"is not the symbol's, {'C' if position.is_call else 'P'}")


def _option(sheet: Sheet, row: int, symbol: str) -> Position:
    strike = sheet.number(row, "strike")
    if strike < 0.0:
        raise sheet.fault(row, "strike", f"must not be negative, got {strike:g}")
    right = sheet.choice(row, "right", ("C", "P"))
    if not right:
        raise sheet.fault(row, "right", "is missing: C or P")
    underlying, expiry = _underlying(sheet, row, symbol), _expiry(sheet, row)
    if expiry is None:
        raise sheet.fault(row, "expiry", "is missing")
    return Position(
        **_common(sheet, row, symbol or f"{underlying} {expiry} {strike:g} {right}"),
        underlying=underlying,
        kind="option",
        multiplier=_multiplier(sheet, row, None),
        expiry=expiry,
        strike=strike,
        is_call=right == "C",
        american=_exercise(sheet, row),
        root=underlying,
        name_column="underlying" if sheet.text(row, "underlying") else "symbol",
    )


def _linear(sheet: Sheet, row: int, symbol: str, kind: str) -> Position:
    underlying, expiry = _underlying(sheet, row, symbol), _expiry(sheet, row)
    if kind == "future" and expiry is None:
        raise sheet.fault(row, "expiry", "is missing: a future has one")
    label = underlying if kind == "spot" else f"{underlying} future {expiry}"
    return Position(
        **_common(sheet, row, label),
        underlying=underlying,
        kind=kind,
        multiplier=_multiplier(sheet, row, 1.0 if kind == "spot" else None),
        expiry=expiry if kind == "future" else None,
        name_column="underlying" if sheet.text(row, "underlying") else "symbol",
    )


def _common(sheet: Sheet, row: int, label: str) -> dict[str, Any]:
    return {
        "place": f"{sheet.file}, {sheet.places[row]}",
        "label": " ".join(label.split()),
        "portfolio": sheet.text(row, "portfolio") or UNNAMED,
        "group": sheet.text(row, "group"),
        "quantity": sheet.number(row, "quantity"),
    }


def _underlying(sheet: Sheet, row: int, symbol: str) -> str:
    name = sheet.text(row, "underlying") or symbol
    if not name:
        raise sheet.fault(row, "underlying", "is missing, and so is symbol")
    return name


def _multiplier(sheet: Sheet, row: int, default: float | None) -> float:
    value = sheet.number(row, "multiplier", default)
    if not value > 0.0:
        raise sheet.fault(row, "multiplier", f"must be above 0, got {value:g}")
    return value


def _exercise(sheet: Sheet, row: int) -> bool | None:
    exercise = sheet.choice(row, "exercise", ("E", "A"))
    return exercise == "A" if exercise else None


def _expiry(sheet: Sheet, row: int) -> date | float | None:
    text = sheet.text(row, "expiry")
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        pass
    try:
        years = float(text)
    except ValueError:
        raise sheet.fault(row, "expiry", f"{text!r} is neither a date (YYYY-MM-DD) nor years") from None
    if not 0.0 <= years < 200.0:
        raise sheet.fault(row, "expiry", f"must lie between 0 and 200 years, got {text}")
    return years
