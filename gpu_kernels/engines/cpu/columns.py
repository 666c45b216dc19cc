"""Cuts columns into blocks of rows; a field that is the same in every row is spread over one block only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpu_kernels.engines.cpu.threads import BLOCK_ROWS
from gpu_kernels.engines.engine import Columns


def blocks(columns: Columns, *more: Any) -> Callable[[int, int], list[Any]]:
    """cut(start, stop): each column's rows start..stop, contiguous; at most BLOCK_ROWS of them."""
    arrays = (*columns, *more)
    size = max(array.size for array in arrays)
    # A scalar field fills one block that stays in the cache, instead of a column as long as the batch.
    prepared = [
        (array, False) if array.size == size else (np.full(min(size, BLOCK_ROWS), array[0]), True)
        for array in arrays
    ]

    def cut(start: int, stop: int) -> list[Any]:
        return [array[: stop - start] if spread else array[start:stop] for array, spread in prepared]

    return cut
