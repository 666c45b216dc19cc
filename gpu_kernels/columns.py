"""Columns of numbers as callers give them, checked and copied; faults name field and row."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_kernels.errors import InvalidInput

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def real_column(value: ArrayLike, field: str, count: int) -> Floats:
    """``value`` as ``count`` finite doubles of its own; a scalar or one entry holds for every row."""
    raw = np.asarray(value)
    if raw.dtype.kind not in "fiub":
        raise InvalidInput(field, f"must hold real numbers, got dtype {raw.dtype}")
    if raw.ndim > 1 or (raw.ndim == 1 and raw.shape[0] not in (1, count)):
        raise InvalidInput(field, f"must have shape ({count},) or be a scalar, got {raw.shape}")
    column = np.array(np.broadcast_to(raw, (count,)), dtype=np.float64, order="C")
    bad = np.flatnonzero(~np.isfinite(column))
    if bad.size:
        raise InvalidInput(field, f"is {column[bad[0]]}", int(bad[0]))
    return column


def index_column(value: ArrayLike, field: str, count: int) -> Integers:
    """``value`` as ``count`` integers of its own, not negative; a scalar holds for every row."""
    raw = np.asarray(value)
    if raw.dtype.kind not in "iu" and raw.size:
        raise InvalidInput(field, f"must hold integers, got dtype {raw.dtype}")
    if raw.ndim > 1 or (raw.ndim == 1 and raw.shape[0] not in (1, count)):
        raise InvalidInput(field, f"must have shape ({count},) or be a scalar, got {raw.shape}")
    column = np.array(np.broadcast_to(raw, (count,)), dtype=np.int64, order="C")
    bad = np.flatnonzero(column < 0)
    if bad.size:
        raise InvalidInput(field, f"must not be negative, got {column[bad[0]]}", int(bad[0]))
    return column


def common_length(**columns: ArrayLike | None) -> int:
    """The common number of rows of scalars and columns."""
    count = 1
    for name, value in columns.items():
        shape = np.shape(value) if value is not None else ()
        if len(shape) == 1 and shape[0] != 1:
            if count not in (1, shape[0]):
                raise InvalidInput(name, f"has {shape[0]} rows, other columns have {count}")
            count = shape[0]
    return count
