"""Which engine a request goes to: by name, or by its size against the measured break-even."""

from __future__ import annotations

import threading

import pytest

import gpu_kernels as gk
from risk_service import engines as module
from risk_service.engines import Engines
from risk_service.on_demand import break_even
from service_kit.errors import InvalidRequest


class Timed(gk.Engine):
    """An engine that takes so long for a call and so long for a row, by a clock of the test's."""

    def __init__(self, clock, call_s, row_s):
        inner = gk.engine("reference")
        super().__init__(inner.name, inner.device, inner._backend)
        self._clock, self._call_s, self._row_s = clock, call_s, row_s
        self._one_at_a_time = threading.Lock()

    def greeks(self, options, **keywords):
        with self._one_at_a_time:
            self._clock[0] += self._call_s + self._row_s * options.size


@pytest.mark.parametrize(
    ("call_s", "row_s", "expected"),
    [
        (0.0, 1e-9, break_even.SIZES[0]),
        (1e-4, 1e-9, 16_384),  # 10 ns a row here: even at 11,112
        (1e-3, 1e-9, 262_144),  # even at 111,112
        (1e-3, 2e-8, 2 * break_even.SIZES[-1]),  # never
    ],
)
def test_the_break_even_is_the_least_size_that_comes_sooner_from_the_device(
    monkeypatch, call_s, row_s, expected
):
    clock = [0.0]
    monkeypatch.setattr(break_even.time, "perf_counter", lambda: clock[0])
    device, cpu = Timed(clock, call_s, row_s), Timed(clock, 0.0, 1e-8)
    assert break_even.break_even_options(device, cpu) == expected


@pytest.mark.parametrize(
    ("call_s", "row_s", "expected"),
    [
        (1e-4, 1e-8, 8_192),  # 8 of 8,192: 1.5 ms apart, 0.76 ms together
        (1e-6, 1e-8, 128),  # 8 of 1,024: 90 us apart, 83 us together
        (0.0, 1e-8, 0),  # never
    ],
)
def test_requests_are_gathered_up_to_the_size_that_gains_by_it(monkeypatch, call_s, row_s, expected):
    clock = [0.0]
    monkeypatch.setattr(break_even.time, "perf_counter", lambda: clock[0])
    assert break_even.gathered_options(Timed(clock, call_s, row_s)) == expected


def test_what_is_measured_is_known_by_the_engine(monkeypatch):
    engines = Engines(gk.engine("reference"), "for the test")
    assert engines.gathered_up_to("reference") == break_even.GATHERED_UNMEASURED
    monkeypatch.setattr(module, "gathered_options", lambda engine: 128)
    engines._measure(engines.serving)
    assert engines.gathered_up_to("reference") == 128
    assert engines.break_even == 0  # not measured of an engine that everything goes to


def test_small_work_goes_to_the_cpu_unless_an_engine_is_named():
    engines = Engines(gk.engine("reference"), "for the test", break_even=1_000)
    assert engines.for_cost("", 999) is engines.cpu
    assert engines.for_cost("", 1_000) is engines.serving
    assert engines.for_cost("reference", 1) is engines.serving
    assert engines.for_cost("cpu", 10**9) is engines.cpu
    with pytest.raises(InvalidRequest, match="unknown engine"):
        engines.for_cost("abacus", 1)
