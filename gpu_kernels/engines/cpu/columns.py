"""Columns as kernels take them: contiguous, and never marked read-only.

numba compiles a kernel anew for each mix of arguments that may and may not be written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.cpu.threads import BLOCK_ROWS
from gpu_kernels.engines.engine import Columns


def blocks(columns: Sequence[Any], size: int) -> Callable[[int, int], list[Any]]:
    """cut(start, stop): each column's rows start..stop of `size`, contiguous; at most BLOCK_ROWS of them.

    A field that is the same in every row is spread over one block only.
    """
    # A scalar field fills one block that stays in the cache, instead of a column as long as the batch.
    prepared = [
        (plain(array), False)
        if array.size == size
        else (np.full(min(size, BLOCK_ROWS), array[0] if size else 0), True)
        for array in columns
    ]

    def cut(start: int, stop: int) -> list[Any]:
        return [array[: stop - start] if spread else array[start:stop] for array, spread in prepared]

    return cut


def full(columns: Columns, size: int) -> Columns:
    """Every field spread over `size` rows."""
    return Columns(*map(plain, columns.full(size)))


def plain(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory, not marked read-only; kernels write only what they were given for it."""
    return array if array.flags.writeable else np.asarray(_Memory(array))


class _Memory:
    """Memory of an array, without its mark; keeps the array alive as long as others use it."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
        place, _ = array.__array_interface__["data"]
        self.__array_interface__ = array.__array_interface__ | {"data": (place, False)}
