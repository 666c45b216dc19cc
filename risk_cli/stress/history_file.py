"""Daily closes, and if there are any implied vols, from a CSV: `date`, a column per symbol, `SYMBOL.vol`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from risk_cli.refusals import BadInput
from risk_cli.sheets import Sheet, read_sheet

VOL_SUFFIX = ".vol"
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class History:
    """Days down, symbols across; a missing close is NaN. `vols` has NaN for a symbol without a vol column."""

    file: str
    dates: tuple[date, ...]
    symbols: tuple[str, ...]
    closes: Floats
    vols: Floats

    def of(self, symbols: Sequence[str]) -> History:
        """The same for these symbols, in this order."""
        for symbol in symbols:
            if symbol not in self.symbols:
                raise BadInput(f"{self.file}: has no column {symbol!r}, which the portfolio holds")
        places = [self.symbols.index(symbol) for symbol in symbols]
        return History(self.file, self.dates, tuple(symbols), self.closes[:, places], self.vols[:, places])

    def between(self, first: date | None, last: date | None) -> History:
        """The days from `first` to `last`, both included."""
        days = np.array(
            [(first is None or day >= first) and (last is None or day <= last) for day in self.dates]
        )
        kept = tuple(day for day, inside in zip(self.dates, days, strict=True) if inside)
        return History(self.file, kept, self.symbols, self.closes[days], self.vols[days])


def read_history(path: Path) -> History:
    """The whole file, oldest day first."""
    sheet = read_sheet(path, None, "stress")
    if "date" not in sheet.columns:
        raise BadInput(f"{path.name}: has no column 'date'")
    dates = _dates(sheet)
    names = [name for name in sheet.columns if name != "date"]
    symbols = tuple(name for name in names if not name.endswith(VOL_SUFFIX))
    for name in names:
        if name.endswith(VOL_SUFFIX) and name.removesuffix(VOL_SUFFIX) not in symbols:
            raise BadInput(f"{path.name}: column {name!r} has no column of closes beside it")
    empty = np.full(len(dates), np.nan)
    vols = [
        _numbers(sheet, symbol + VOL_SUFFIX) if symbol + VOL_SUFFIX in sheet.columns else empty
        for symbol in symbols
    ]
    closes = [_numbers(sheet, symbol) for symbol in symbols]
    return History(path.name, dates, symbols, np.stack(closes, axis=1), np.stack(vols, axis=1))


def _dates(sheet: Sheet) -> tuple[date, ...]:
    dates: list[date] = []
    said = sheet.texts("date")
    for row in range(len(sheet)):
        text = said[row]
        try:
            day = date.fromisoformat(text)
        except ValueError:
            raise sheet.fault(row, "date", f"{text!r} is no date (YYYY-MM-DD)") from None
        if dates and day <= dates[-1]:
            raise sheet.fault(row, "date", f"{text} is not after the row before it")
        dates.append(day)
    return tuple(dates)


def _numbers(sheet: Sheet, column: str) -> Floats:
    values = sheet.numbers(column, np.nan)
    bad = np.flatnonzero(values <= 0.0)
    if bad.size:
        raise sheet.fault(int(bad[0]), column, f"must be above 0, got {values[bad[0]]:g}")
    return values
