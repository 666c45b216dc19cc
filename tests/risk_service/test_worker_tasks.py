"""The ladder when memory gives out, and what a failure of the device is told from."""

from __future__ import annotations

import numpy as np
import pytest

import gpu_kernels as gk
from gpu_kernels.engines.engine import Engine
from risk_service.worker.arena import Arena, large_arrays, pack, unpack
from risk_service.worker.tasks import Answer, BookTask, Ended, Hold, Kept, OptionTask, answer, in_parts


class Small(Engine):
    """The reference engine on a device that has room for so many rows, or scenarios, at once."""

    def __init__(self, room: int) -> None:
        inner = gk.engine("reference")
        super().__init__(inner.name, inner.device, inner._backend)
        self.room, self.refused = room, 0

    def _take(self, size: int) -> None:
        if size > self.room:
            self.refused += 1
            raise MemoryError("out of device memory")

    def greeks(self, options, **keywords):
        self._take(options.size)
        return super().greeks(options, **keywords)

    def revalue(self, portfolio, scenarios, **keywords):
        self._take(len(scenarios))
        return super().revalue(portfolio, scenarios, **keywords)


class CUDARuntimeError(RuntimeError):
    """Named as CuPy's."""


def task(rows):
    strike = np.linspace(80.0, 120.0, rows)
    names = ("spot", "expiry", "vol", "rate", "dividend_yield")
    fields = dict(zip(names, map(np.array, (100.0, 1.0, 0.2, 0.0, 0.0)), strict=True))
    flags = {"is_call": np.array(True), "american": np.array(False)}
    return OptionTask("greeks", {**fields, **flags, "strike": strike}, "accurate")


def test_rows_are_halved_until_they_fit_and_no_bit_changes():
    engine = Small(3_000)
    made = answer(engine, Kept(), task(10_000))
    assert made.ended is Ended.DONE
    assert engine.refused == 2  # 10,000 and 5,000; 2,500 fits
    whole = gk.engine("reference").greeks(gk.Options(**task(10_000).fields))
    for got, expected in zip(made.value, whole.columns(), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_scenarios_are_halved_down_to_one():
    engine, kept = Small(1), Kept()
    strikes = np.linspace(80.0, 120.0, 4)
    book = gk.Portfolio(gk.Options(spot=100.0, strike=strikes, expiry=1.0, vol=0.2), quantity=np.ones(4))
    given = gk.Scenarios(np.linspace(-0.1, 0.1, 7)[:, None])
    assert answer(engine, kept, Hold({1: book, 2: given})).ended is Ended.DONE
    made = answer(engine, kept, BookTask(1, 2, None, {}))
    np.testing.assert_array_equal(made.value, gk.engine("reference").revalue(book, given))


def test_what_fits_in_no_part_is_given_up():
    assert answer(Small(0), Kept(), task(10_000)).ended is Ended.NO_MEMORY
    freed = ["the pool"]
    with pytest.raises(MemoryError):
        in_parts(4, 1, lambda start, stop: Small(0)._take(1), lambda: Small(0)._take(1), freed.clear)
    assert not freed


def test_missing_books_are_named():
    book = gk.Portfolio(gk.Options(spot=100.0, strike=100.0, expiry=1.0, vol=0.2), quantity=np.ones(1))
    made = answer(gk.engine("reference"), Kept(), BookTask(1, 2, None, {1: book}))
    assert made == Answer(Ended.MISSING, [2])


@pytest.mark.parametrize(
    ("failure", "ended"),
    [
        (CUDARuntimeError("cudaErrorIllegalAddress"), Ended.POISONED),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), Ended.NO_MEMORY),
        (ZeroDivisionError("a mistake of ours"), Ended.FAILED),
        (gk.InvalidInput("spot", "is wrong", 3), Ended.INVALID),
        (gk.EngineUnavailable("not here"), Ended.UNAVAILABLE),
    ],
)
def test_failures_are_told_apart(failure, ended):
    class Failing(Small):
        def greeks(self, options, **keywords):
            raise failure

    made = answer(Failing(1), Kept(), task(2_000))
    assert made.ended is ended
    if ended is Ended.FAILED:
        assert "ZeroDivisionError" in made.value


def test_only_the_newest_are_kept():
    kept = Kept(most=2)
    for key in (1, 2, 3):
        kept.put(key, np.array([float(key)]))
    assert kept.get(1) is None
    assert kept.get(3) == 3.0


@pytest.mark.parametrize("room", [0, 1 << 20])
def test_arrays_pass_through_the_arena_or_beside_it(room, seed):
    sent = {"large": np.random.default_rng(seed).random(100_000), "small": np.arange(3), "word": "x"}
    body, arrays = large_arrays(sent)
    assert len(arrays) == 1
    arena = Arena.create(room) if room else None
    try:
        data, end = pack(body, arrays, arena, 64)
        assert (len(data) < 2_000) == bool(room)
        got, same_end = unpack(data, arena, copied=True)
    finally:
        if arena is not None:
            arena.close()
    assert end == same_end
    np.testing.assert_array_equal(got["large"], sent["large"])
    np.testing.assert_array_equal(got["small"], sent["small"])
    got["large"][0] = 1.0  # outlives the arena, and is its reader's own
