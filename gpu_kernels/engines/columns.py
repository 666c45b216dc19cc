"""Flat columns of options, as formulas and backends take them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Columns(NamedTuple):
    """Flat columns of options as a backend takes them: n rows, or one element that holds for every row."""

    spot: Any
    strike: Any
    expiry: Any
    vol: Any
    rate: Any
    dividend_yield: Any
    is_call: Any

    def slice(self, start: int, stop: int) -> Columns:
        """The rows start..stop; one-element columns stay as they are."""
        return Columns(*(column if column.size == 1 else column[start:stop] for column in self))

    def full(self, size: int) -> Columns:
        """The same columns with every one-element field spread over `size` rows."""
        return Columns(*(c if c.size == size else np.broadcast_to(c, (size,)).copy() for c in self))
