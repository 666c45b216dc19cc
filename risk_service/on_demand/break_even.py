"""What is measured of an engine in a process of its own: from which size on it answers sooner than the CPU in
this one, and up to which size requests are answered sooner together than apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

import gpu_kernels as gk

# What is taken until it has been measured.
OPTIONS_UNMEASURED = 4_096
SIZES = (256, 1_024, 4_096, 16_384, 65_536, 262_144)  # options
ROUNDS = 5
# Requests that arrive side by side, and sizes of each; together they must take clearly less time than apart:
# they also wait for each other.
SIDE_BY_SIDE = 8
REQUEST_SIZES = (16, 128, 1_024, 8_192)  # options
GAIN_LEAST = 1.25
GATHERED_UNMEASURED = 1_024


def break_even_options(device: gk.Engine, cpu: gk.Engine) -> int:
    """The least number of options, of those tried, whose Greeks come sooner from the device."""
    for size in SIZES:
        options = _options(size)
        there = _least_s(lambda given=options: device.greeks(given))  # type: ignore[misc]
        here = _least_s(lambda given=options: cpu.greeks(given))  # type: ignore[misc]
        if there < here:
            return size
    return 2 * SIZES[-1]


class Gathered(NamedTuple):
    """How long requests that arrive side by side take, of so many options each."""

    options: int
    apart_s: float
    together_s: float


def gathered_options(device: gk.Engine) -> int:
    """Up to how many options, of the sizes tried, requests are answered sooner together; 0: never."""
    largest = 0
    for one in gathering_times(device):
        if one.apart_s < GAIN_LEAST * one.together_s:
            break
        largest = one.options
    return largest


def gathering_times(device: gk.Engine) -> Iterator[Gathered]:
    """What `gathered_options` goes by, measured size by size."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as callers:
        for size in REQUEST_SIZES:
            one, all_of_them = _options(size), _options(SIDE_BY_SIDE * size)
            apart_s = _least_s(lambda given=one: list(callers.map(device.greeks, [given] * SIDE_BY_SIDE)))  # type: ignore[misc]
            yield Gathered(size, apart_s, _least_s(lambda given=all_of_them: device.greeks(given)))  # type: ignore[misc]


def _options(size: int) -> gk.Options:
    strike = np.linspace(50.0, 150.0, size)
    return gk.Options(spot=100.0, strike=strike, expiry=0.5, vol=0.2, rate=0.01)


def _least_s(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
