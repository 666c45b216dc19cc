"""How the XLA engine runs a function: in float64, compiled once for each size of batch out of a few.

JAX computes in float32 unless told otherwise, and compiles anew for every shape. So every call is made in
a local float64 scope, which leaves the caller's setting alone, and batches are padded to one of a few sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

# Batches up to this size share one program.
LEAST_BUCKET = 16
# Larger batches are cut, so that there are no more than thirty sizes, and memory stays bounded.
CHUNK_ROWS = 1 << 18


def float64() -> Any:
    """A scope, of this thread only, in which JAX computes in float64."""
    return jax.enable_x64(True)


def bucket(size: int) -> int:
    """The least size not below `size` that programs are compiled for: 2^k or 3·2^(k-1)."""
    if size <= LEAST_BUCKET:
        return LEAST_BUCKET
    power = 1 << (size - 1).bit_length()
    return power // 4 * 3 if size <= power // 4 * 3 else power


def coarse_bucket(size: int) -> int:
    """The least power of four not below `size`: few sizes, for programs that take seconds to compile."""
    width = LEAST_BUCKET
    while width < size:
        width *= 4
    return width


class Program:
    """A function of arrays, compiled for each set of shapes; `traces` counts how often."""

    def __init__(self, function: Callable[..., Any], static: tuple[int, ...] = ()) -> None:
        self.traces = 0

        def counted(*arguments: Any) -> Any:
            self.traces += 1
            return function(*arguments)

        self._compiled = jax.jit(counted, static_argnums=static)

    def __call__(self, *arguments: Any) -> Any:
        with float64():
            return self._compiled(*arguments)


def run_rows(
    program: Program,
    inputs: tuple[Any, ...],
    outputs: tuple[Any, ...],
    width_of: Callable[[int], int] = bucket,
) -> None:
    """Fill outputs with the program's results, row by row; inputs have all rows or one that holds for all."""
    size = outputs[0].size
    if size == 0:
        return
    width = width_of(size)
    results = program(*(padded(array, size, width) for array in inputs))
    for target, source in zip(outputs, results, strict=True):
        target[:] = np.asarray(source)[:size]


def padded(array: Any, size: int, width: int) -> Any:
    """A column of `width` rows; those beyond the first `size` repeat a value, their results are dropped."""
    if array.size == width and size == width:
        return array
    wide = np.empty(width, array.dtype)
    wide[:size] = array
    wide[size:] = array[0]
    return wide
