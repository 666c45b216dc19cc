"""Cuts columns into blocks of rows; a field that is the same in every row is spread over one block only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpu_kernels.engines.cpu.threads import BLOCK_ROWS


def blocks(columns: Sequence[Any], size: int) -> Callable[[int, int], list[Any]]:
    """cut(start, stop): each column's rows start..stop of `size`, contiguous; at most BLOCK_ROWS of them."""
    # A scalar field fills one block that stays in the cache, instead of a column as long as the batch.
    prepared = [
        (array, False)
        if array.size == size
        else (np.full(min(size, BLOCK_ROWS), array[0] if size else 0), True)
        for array in columns
    ]

    def cut(start: int, stop: int) -> list[Any]:
        return [array[: stop - start] if spread else array[start:stop] for array, spread in prepared]

    return cut
