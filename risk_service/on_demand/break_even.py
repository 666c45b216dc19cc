"""From which size on an engine in a process of its own answers sooner than the CPU in this one: measured."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

import gpu_kernels as gk

# What is taken until it has been measured.
OPTIONS_UNMEASURED = 4_096
SIZES = (256, 1_024, 4_096, 16_384, 65_536, 262_144)  # options
ROUNDS = 5


def break_even_options(device: gk.Engine, cpu: gk.Engine) -> int:
    """The least number of options, of those tried, whose Greeks come sooner from the device."""
    for size in SIZES:
        options = _options(size)
        there = _least_s(lambda given=options: device.greeks(given))  # type: ignore[misc]
        here = _least_s(lambda given=options: cpu.greeks(given))  # type: ignore[misc]
        if there < here:
            return size
    return 2 * SIZES[-1]


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
