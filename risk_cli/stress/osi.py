"""OSI option symbols, and which listed roots are options of European exercise."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

CONTRACT_SIZE = 100.0  # shares, or times the index, per listed option
_FORM = re.compile(r"([A-Z][A-Z0-9.^/]{0,5}) *(\d{6})([CP])(\d{8})")
_LIKE = re.compile(r".*\d{6}[CPcp]\d*|\S+ +\d.*|.* ")

# Weekly and daily series trade under roots of their own; here by the index that they settle on.
INDEX_OF_ROOT = {
    **dict.fromkeys(("SPX", "SPXW"), "SPX"),
    **dict.fromkeys(("NDX", "NDXP"), "NDX"),
    **dict.fromkeys(("RUT", "RUTW"), "RUT"),
    **dict.fromkeys(("VIX", "VIXW"), "VIX"),
    **{root: root for root in ("XSP", "XND", "MRUT", "DJX", "XEO")},
}


@dataclass(frozen=True, slots=True)
class Contract:
    """What an OSI symbol says."""

    root: str
    expiry: date
    is_call: bool
    strike: float


def looks_like_option(symbol: str) -> bool:
    """Whether the symbol was meant as an option's: a date, a C or P, and digits, or blanks inside."""
    return _LIKE.fullmatch(symbol) is not None


def parse(symbol: str) -> Contract:
    """The contract of an OSI symbol, root padded or not; raises ValueError saying what is wrong."""
    found = _FORM.fullmatch(symbol)
    if found is None:
        raise ValueError(f"{symbol!r} is no OSI symbol (root, yymmdd, C or P, strike in 8 digits)")
    root, day, right, strike = found.groups()
    try:
        expiry = date(2000 + int(day[:2]), int(day[2:4]), int(day[4:]))
    except ValueError:
        raise ValueError(f"{symbol!r}: {day} is no date (yymmdd)") from None
    if int(strike) == 0:
        raise ValueError(f"{symbol!r}: the strike is zero")
    return Contract(root, expiry, right == "C", int(strike) / 1000.0)


def symbol_of(root: str, expiry: date, is_call: bool, strike: float) -> str:
    """The 21-character OSI symbol of a contract."""
    return f"{root:<6}{expiry:%y%m%d}{'C' if is_call else 'P'}{round(strike * 1000):08d}"


def is_american(root: str) -> bool:
    """How options of this root are exercised where nobody says: cash-settled indices only at expiry."""
    return root not in INDEX_OF_ROOT
