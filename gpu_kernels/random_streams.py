"""Counter-based streams: a number is a function of seed, row and column, the same on every device.

Nothing is kept between calls, so any block can be made anywhere, in any order. All functions take the array
library as ``xp`` (NumPy unless said otherwise; CuPy as it is; jax.numpy with 64-bit types enabled) and use
integer arithmetic only, until one exact conversion to doubles of 52 bits: uniforms are identical to the bit.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.errors import InvalidInput
from gpu_kernels.formulas.inverse_normal import inverse_normal

Words = NDArray[np.uint64]

# A double holds k + 1/2 exactly for k below this, so that uniforms lie strictly between 0 and 1.
UNIFORM_BITS = 52
# Sobol points are numbered with so many bits.
SOBOL_INDEX_BITS = 32
SOBOL_DIMENSIONS_MAX = 1024
# Low bits of a point's number that share one table look-up.
TABLE_BITS = 10

MASK_32 = 0xFFFFFFFF
# Multipliers and key steps of Salmon, Moraes, Dror and Shaw, "Parallel random numbers" (2011).
PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
PHILOX_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
PHILOX_ROUNDS = 10


def philox_4x32(
    counter: tuple[Any, Any, Any, Any], key: tuple[int, int], xp: Any = np
) -> tuple[Any, Any, Any, Any]:
    """Philox4x32-10: four 32-bit words in uint64 arrays, from four words of counter and two of key."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    mask, half = xp.uint64(MASK_32), xp.uint64(32)
    m0, m1 = (xp.uint64(m) for m in PHILOX_MULTIPLIERS)
    for _ in range(PHILOX_ROUNDS):
        p0, p1 = c0 * m0, c2 * m1
        c0 = (p1 >> half) ^ c1 ^ xp.uint64(k0)
        c2 = (p0 >> half) ^ c3 ^ xp.uint64(k1)
        c1, c3 = p1 & mask, p0 & mask
        k0, k1 = (k0 + PHILOX_KEY_STEPS[0]) & MASK_32, (k1 + PHILOX_KEY_STEPS[1]) & MASK_32
    return c0, c1, c2, c3


def philox_uniforms(seed: int, start: int, rows: int, columns: int, *, stream: int = 0, xp: Any = np) -> Any:
    """Independent uniforms (rows, columns) in (0, 1), rows numbered from ``start``; streams never overlap."""
    key = _key(seed)
    _checked_block(start, rows, columns)
    index = xp.arange(start, start + rows, dtype=xp.uint64)[:, None]
    pair = xp.arange((columns + 1) // 2, dtype=xp.uint64)[None, :]
    counter = (
        index & xp.uint64(MASK_32),
        index >> xp.uint64(32),
        pair + xp.zeros_like(index),
        xp.full_like(index, stream & MASK_32),
    )
    w0, w1, w2, w3 = philox_4x32(counter, key, xp)
    high, low = xp.uint64(UNIFORM_BITS - 32), xp.uint64(64 - UNIFORM_BITS)
    words = xp.stack([(w0 << high) | (w1 >> low), (w2 << high) | (w3 >> low)], axis=-1)
    return _doubles(words.reshape(rows, -1)[:, :columns], xp)


def sobol_uniforms(seed: int, start: int, rows: int, columns: int, *, xp: Any = np) -> Any:
    """Scrambled Sobol points (rows, columns) in (0, 1), numbered from ``start``.

    Directions of Joe and Kuo (2008), scrambled by random lower-triangular matrices and a digital shift
    (Matoušek 1998): every net property stays, each point is uniform. Best from 0 and in powers of 2.
    """
    _checked_block(start, rows, columns)
    directions, shift = sobol_state(seed, columns)
    table = _low_table(seed, columns)
    index = np.arange(start, start + rows, dtype=np.uint64)
    words = xp.asarray(table)[xp.asarray((index & np.uint64((1 << TABLE_BITS) - 1)).astype(np.int64))]
    first, last = start >> TABLE_BITS, (start + max(rows, 1) - 1) >> TABLE_BITS
    blocks = np.arange(first, last + 1, dtype=np.uint64)
    high = _xor_of_bits(blocks, directions[:, TABLE_BITS:])
    place = (index >> np.uint64(TABLE_BITS)).astype(np.int64) - first
    words = words ^ xp.asarray(high)[xp.asarray(place)] ^ xp.asarray(shift)[None, :]
    return _doubles(words, xp)


def normals(uniforms: Any, ops: Any | None = None) -> Any:
    """Standard normals of uniforms in (0, 1), by inversion; within 4 ulp for uniforms of 52 bits."""
    return inverse_normal(_reference_ops() if ops is None else ops)(uniforms)


def sobol_state(seed: int, columns: int) -> tuple[Words, Words]:
    """Scrambled directions (columns, SOBOL_INDEX_BITS) and digital shift (columns,), of 52 bits each."""
    key = _key(seed)
    if not 1 <= columns <= SOBOL_DIMENSIONS_MAX:
        raise InvalidInput(
            "columns", f"Sobol points have 1 to {SOBOL_DIMENSIONS_MAX} dimensions, got {columns}"
        )
    return _scrambled(key, columns)


@cache
def _scrambled(key: tuple[int, int], columns: int) -> tuple[Words, Words]:
    plain = _directions(columns)
    # Row i of a dimension's matrix: which bits of a direction make up bit i of the scrambled one.
    words = np.arange(UNIFORM_BITS + 1, dtype=np.uint64)[None, :]
    column = np.arange(columns, dtype=np.uint64)[:, None]
    # Streams 0 and up are the caller's; this one is out of their way.
    counter = (words + np.zeros_like(column), column + np.zeros_like(words), np.zeros_like(words + column))
    w0, w1, _, _ = philox_4x32((*counter, np.full_like(words + column, MASK_32)), key)
    bits = (w0 << np.uint64(UNIFORM_BITS - 32)) | (w1 >> np.uint64(64 - UNIFORM_BITS))
    scrambled = np.zeros_like(plain)
    for i in range(UNIFORM_BITS):
        place = np.uint64(UNIFORM_BITS - 1 - i)
        above = np.uint64(((1 << i) - 1) << (UNIFORM_BITS - i)) if i else np.uint64(0)
        row = (bits[:, i] & above) | (np.uint64(1) << place)
        parity = np.bitwise_count(plain & row[:, None]).astype(np.uint64) & np.uint64(1)
        scrambled |= parity << place
    shift = bits[:, UNIFORM_BITS]
    scrambled.setflags(write=False)
    shift.setflags(write=False)
    return scrambled, shift


@cache
def _low_table(seed: int, columns: int) -> Words:
    directions, _ = sobol_state(seed, columns)
    return _xor_of_bits(np.arange(1 << TABLE_BITS, dtype=np.uint64), directions[:, :TABLE_BITS])


def _xor_of_bits(numbers: Words, directions: Words) -> Words:
    """For each number the exclusive or of the directions of its set bits, (numbers, columns)."""
    answer = np.zeros((len(numbers), len(directions)), dtype=np.uint64)
    for bit in range(directions.shape[1]):
        chosen = np.flatnonzero((numbers >> np.uint64(bit)) & np.uint64(1))
        if len(chosen):
            answer[chosen] ^= directions[:, bit]
    return answer


@cache
def _directions(columns: int) -> Words:
    """Plain directions as 52-bit fractions (columns, SOBOL_INDEX_BITS), by the recurrence of Sobol."""
    lines = (Path(__file__).parent / "sobol_directions.csv").read_text().split()
    answer = np.zeros((columns, SOBOL_INDEX_BITS), dtype=np.uint64)
    for column, line in enumerate(lines[:columns]):
        polynomial, *initial = (int(number) for number in line.split(","))
        answer[column] = _direction_row(polynomial, initial, first=column == 0)
    return answer


def _direction_row(polynomial: int, initial: list[int], *, first: bool) -> list[int]:
    if first:
        return [1 << (UNIFORM_BITS - 1 - bit) for bit in range(SOBOL_INDEX_BITS)]
    degree = polynomial.bit_length() - 1
    odd = list(initial)
    for bit in range(degree, SOBOL_INDEX_BITS):
        value = odd[bit - degree] ^ (odd[bit - degree] << degree)
        for step in range(1, degree):
            if polynomial >> (degree - step) & 1:
                value ^= odd[bit - step] << step
        odd.append(value)
    return [number << (UNIFORM_BITS - 1 - bit) for bit, number in enumerate(odd[:SOBOL_INDEX_BITS])]


def _doubles(words: Any, xp: Any) -> Any:
    return (words.astype(xp.float64) + 0.5) * 2.0**-UNIFORM_BITS


def _key(seed: int) -> tuple[int, int]:
    if not isinstance(seed, (int, np.integer)) or not 0 <= int(seed) < 1 << 64:
        raise InvalidInput("seed", f"must be an integer from 0 to 2^64 − 1, got {seed!r}")
    return int(seed) & MASK_32, int(seed) >> 32


def _checked_block(start: int, rows: int, columns: int) -> None:
    if rows < 0 or start < 0 or start + rows > 1 << SOBOL_INDEX_BITS:
        raise InvalidInput("rows", f"must lie within 0..2^{SOBOL_INDEX_BITS}, got {start}..{start + rows}")
    if columns < 1:
        raise InvalidInput("columns", f"must be at least 1, got {columns}")


def _reference_ops() -> Any:
    from gpu_kernels.engines.reference import ops

    return ops
