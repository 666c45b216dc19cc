"""Lines of plain numbers, read from their bytes all at once: whole numbers at the speed of a few passes.

Eight digits are one word: three multiplications make a number of it (the digits' pairs, fours and eights are
added up side by side). What is not plain (blanks, signs other than a minus, exponents, empty cells) is left
to a slower reader, which also knows what to say about it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_NEWLINE, _COMMA, _MINUS, _DOT, _ZERO, _NINE = b"\n,-.09"
_WORD: Final = 8  # digits
_DIGITS_MAX: Final = 16
_EXACT_DIGITS: Final = 15  # so many always fit into a double
_STEPS: Final = (
    (0x0F0F0F0F0F0F0F0F, 2_561, 8),
    (0x00FF00FF00FF00FF, 6_553_601, 16),
    (0x0000FFFF0000FFFF, 42_949_672_960_001, 32),
)

Words = NDArray[np.uint64]


def plain_numbers(
    text: bytes, lines: int, columns: int, *, decimals_first: bool = False
) -> NDArray[np.float64] | None:
    """The numbers of so many whole lines, each as `float` would read it; None if not all of it is plain.

    `decimals_first`: the first number of each line has a fraction, the others are whole.
    """
    if not text.endswith(b"\n"):
        text += b"\n"
    raw = np.frombuffer(text, np.uint8)
    if raw.max() > _NINE:
        return None
    other = np.flatnonzero(raw < _ZERO)
    minus = raw[other] == _MINUS
    ends = other[~minus]
    cells = columns + decimals_first
    if len(ends) != lines * cells or not _separated(raw[ends].reshape(lines, cells), decimals_first):
        return None
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    negative = raw[starts] == _MINUS
    if np.count_nonzero(negative) != np.count_nonzero(minus):
        return None
    width = ends - starts - negative
    if width.min() < 1 or width.max() > _DIGITS_MAX:
        return None
    values = _values(text, ends, width)
    if not decimals_first:
        return np.where(negative, -values, values).astype(np.float64).reshape(lines, columns)
    return _with_fraction(
        values.reshape(lines, cells), negative.reshape(lines, cells), width.reshape(lines, cells)
    )


def _separated(separators: NDArray[np.uint8], decimals_first: bool) -> bool:
    """Whether each line has commas between its cells, a newline at its end, its point where it belongs."""
    commas = separators[:, 1:-1] if decimals_first else separators[:, :-1]
    first = (separators[:, 0] == _DOT).all() if decimals_first else True
    return bool(first and (commas == _COMMA).all() and (separators[:, -1] == _NEWLINE).all())


def _values(text: bytes, ends: NDArray[np.intp], width: NDArray[np.intp]) -> NDArray[np.int64]:
    """The digits that end at these places as numbers."""
    padded = bytes(2 * _WORD) + text
    # Every place of the text as the beginning of a word.
    words: Words = np.ndarray((len(padded) - _WORD + 1,), "<u8", padded, strides=(1,))
    values = _word_values(words[ends + _WORD], np.minimum(width, _WORD)).astype(np.int64)
    long = np.flatnonzero(width > _WORD)
    if long.size:
        high = _word_values(words[ends[long]], width[long] - _WORD).astype(np.int64)
        values[long] += high * 10**_WORD
    return values


def _word_values(words: Words, digits: NDArray[np.intp]) -> Words:
    """The numbers in the last 1 to 8 digits of each word."""
    before = ((_WORD - digits) * 8).astype(np.uint64)
    values = (words >> before) << before  # what stands before the number becomes zeros
    for mask, factor, shift in _STEPS:
        values = ((values & np.uint64(mask)) * np.uint64(factor)) >> np.uint64(shift)
    return values


def _with_fraction(
    values: NDArray[np.int64], negative: NDArray[np.bool_], width: NDArray[np.intp]
) -> NDArray[np.float64] | None:
    """The first two cells of each line are one number."""
    if (width[:, 0] + width[:, 1]).max() > _EXACT_DIGITS or negative[:, 1].any():
        return None
    scale = 10 ** width[:, 1]
    # An exact quotient, rounded once: as the decimal number itself would be.
    first = (values[:, 0] * scale + values[:, 1]) / scale
    numbers = np.where(negative, -values, values).astype(np.float64)[:, 1:]
    numbers[:, 0] = np.where(negative[:, 0], -first, first)
    return numbers
