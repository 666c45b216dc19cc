"""OSI option symbols, one by one and by the million, and which listed roots have European exercise."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

CLOSE_UTC_S = 20 * 3_600  # of a day: contracts expire at the close
# When a day of the calendar is over in New York in winter: until then a contract of that day may expire.
_DAY_NS, _LATEST_NS = 86_400 * 10**9, 29 * 3_600 * 10**9
CONTRACT_SIZE = 100.0  # shares, or times the index, per listed option
_FORM = re.compile(r"([A-Z][A-Z0-9.^/]{0,5}) *(\d{6})([CP])(\d{8})", re.ASCII)
_LIKE = re.compile(r".*\d{6}[CPcp]\d*|\S+ +\d.*|.* ")

# Weekly and daily series trade under roots of their own; here by the index that they settle on.
INDEX_OF_ROOT = {
    **dict.fromkeys(("SPX", "SPXW"), "SPX"),
    **dict.fromkeys(("NDX", "NDXP"), "NDX"),
    **dict.fromkeys(("RUT", "RUTW"), "RUT"),
    **dict.fromkeys(("VIX", "VIXW"), "VIX"),
    **{root: root for root in ("XSP", "XND", "MRUT", "DJX", "XEO")},
}

_INDICES = frozenset(INDEX_OF_ROOT.values())

LENGTH = 21  # of a padded symbol
_ROOT, _TAIL = 6, 15  # characters of the root, and of yymmdd, right and strike behind it
_BLOCK = 1 << 17  # symbols that are taken apart at once: some 50 MB


@dataclass(frozen=True, slots=True)
class Contract:
    """What an OSI symbol says."""

    root: str
    expiry: date
    is_call: bool
    strike: float


@dataclass(frozen=True, slots=True)
class Contracts:
    """What many symbols say, by row; where `found` is False the rest of the row means nothing."""

    found: NDArray[np.bool_]
    root: NDArray[np.str_]
    expiry: NDArray[np.datetime64]  # days
    is_call: NDArray[np.bool_]
    strike: NDArray[np.float64]


def looks_like_option(symbol: str) -> bool:
    """Whether the symbol was meant as an option's: a date, a C or P, and digits, or blanks inside."""
    return _LIKE.fullmatch(symbol) is not None


def parse(symbol: str) -> Contract:
    """The contract of an OSI symbol, root padded or not, in any case; a ValueError says what is wrong."""
    found = _FORM.fullmatch(symbol.upper())
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


def parse_many(symbols: Sequence[str]) -> Contracts:
    """The contracts of symbols in the usual forms, padded to 21 characters or not padded at all.

    What is not `found` may still be one that `parse` reads, or tells the fault of.
    """
    parts = [_parsed(symbols[at : at + _BLOCK]) for at in range(0, len(symbols), _BLOCK)] or [_parsed(())]
    return Contracts(
        *(np.concatenate([getattr(one, name) for one in parts]) for name in Contracts.__dataclass_fields__)
    )


def _parsed(symbols: Sequence[str]) -> Contracts:
    # One character more than a symbol has: a longer one is then seen to be too long.
    text = np.array([*symbols, " " * (LENGTH + 1)], dtype=f"<U{LENGTH + 1}")[:-1]
    letters = text.view(np.uint32).reshape(len(text), LENGTH + 1)
    letters = np.where((letters >= ord("a")) & (letters <= ord("z")), letters - 32, letters)
    length = np.count_nonzero(letters, axis=1)
    found = (length > _TAIL) & (length <= LENGTH)
    start = np.where(found, length - _TAIL, 0)
    tail = np.take_along_axis(letters, start[:, None] + np.arange(_TAIL), axis=1)
    digits = np.delete(tail, 6, axis=1).astype(np.int64) - ord("0")
    found &= ((digits >= 0) & (digits <= 9)).all(axis=1)
    is_call = tail[:, 6] == ord("C")
    found &= is_call | (tail[:, 6] == ord("P"))
    head = np.where(np.arange(_ROOT) < start[:, None], letters[:, :_ROOT], 0)
    found &= _are_roots(head)
    head[head == ord(" ")] = 0
    root = np.ascontiguousarray(head.astype(np.uint32)).view(f"<U{_ROOT}").reshape(len(text))
    expiry, is_day = _days(digits[:, :6])
    thousandths = digits[:, 6:] @ (10 ** np.arange(7, -1, -1))
    found &= is_day & (thousandths > 0)
    return Contracts(found, root, expiry, is_call, thousandths / 1000.0)


def _are_roots(head: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """A capital letter, then capitals, digits and . ^ /, then nothing but blanks."""
    capital = (head >= ord("A")) & (head <= ord("Z"))
    inside = capital | ((head >= ord("0")) & (head <= ord("9"))) | np.isin(head, [ord(one) for one in ".^/"])
    blank = (head == 0) | (head == ord(" "))
    # Once blank, blank to the end.
    in_order = (~blank[:, 1:] <= ~blank[:, :-1]).all(axis=1)
    answer: NDArray[np.bool_] = capital[:, 0] & (inside | blank).all(axis=1) & in_order
    return answer


def _days(digits: NDArray[np.int64]) -> tuple[NDArray[np.datetime64], NDArray[np.bool_]]:
    """Dates of yymmdd in this century, and which of them are in the calendar."""
    year, month, day = (digits[:, at] * 10 + digits[:, at + 1] for at in (0, 2, 4))
    in_range = (month >= 1) & (month <= 12) & (day >= 1)
    months = (30 * 12 + 12 * year + np.where(in_range, month - 1, 0)).astype("datetime64[M]")
    first = months.astype("datetime64[D]")
    length = ((months + 1).astype("datetime64[D]") - first).astype(np.int64)
    return first + (day - 1), in_range & (day <= length)


def symbol_of(root: str, expiry: date, is_call: bool, strike: float) -> str:
    """The 21-character OSI symbol of a contract."""
    return f"{root:<6}{expiry:%y%m%d}{'C' if is_call else 'P'}{round(strike * 1000):08d}"


def is_american(root: str) -> bool:
    """How options of this root are exercised where nobody says: cash-settled indices only at expiry."""
    return root not in INDEX_OF_ROOT


def expiry_time_ns(day: date) -> int:
    """When contracts of that day expire: nanoseconds since 1970, UTC."""
    return ((day - date(1970, 1, 1)).days * 86_400 + CLOSE_UTC_S) * 1_000_000_000


def are_within(expiry_ns: NDArray[np.int64], days: NDArray[np.datetime64]) -> NDArray[np.bool_]:
    """Which moments (UTC) are of these days, in UTC or in New York: contracts do not all expire at the close.

    A midnight in UTC is how a date is written: it is of the day that begins.
    """
    since = expiry_ns - days.astype("datetime64[D]").astype(np.int64) * _DAY_NS
    within: NDArray[np.bool_] = (since >= 0) & (since < _LATEST_NS) & (since != _DAY_NS)
    return within


def underlying_of(root: str) -> str:
    """What options of a listed root are on, as far as the root tells it."""
    return INDEX_OF_ROOT.get(root, root)


def belies(root: str, underlying: str, others: Container[str]) -> bool:
    """Whether a root names another underlying than this one: one of `others`, or another index.

    A root that names neither may well be this underlying's: those of adjusted contracts, and of names with
    points in them, are spelt otherwise.
    """
    named = underlying_of(root)
    if underlying in (root, named):
        return False
    return named in others or (root in INDEX_OF_ROOT and underlying in _INDICES)
