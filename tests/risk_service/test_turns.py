"""Long computations take turns: no more at a time than there are turns, first come, first served."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from risk_service.on_demand.patience import NobodyWaits, Patience
from risk_service.on_demand.turns import Turns

WAIT_S = 30.0
THREADS, BLOCKS = 6, 50


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_compute_at_a_time_than_have_a_turn(most: int) -> None:
    turns, lock = Turns(most, turn_s=0.0), threading.Lock()
    inside, seen = 0, []

    def compute() -> int:
        nonlocal inside
        done = 0
        with turns.held():
            for _ in range(BLOCKS):
                with lock:
                    inside += 1
                    seen.append(inside)
                done += 1
                with lock:
                    inside -= 1
                turns.pass_on()
        return done

    with ThreadPoolExecutor(THREADS) as pool:
        found = [pool.submit(compute) for _ in range(THREADS)]
        assert [one.result(WAIT_S) for one in found] == [BLOCKS] * THREADS
    assert max(seen) <= most
    with turns.held():
        assert not turns.pass_on()


def test_who_waits_is_let_in_between_two_blocks_and_whoever_let_him_in_comes_back() -> None:
    turns, order = Turns(1, turn_s=0.0), []
    entered = threading.Event()

    def short() -> None:
        with turns.held():
            order.append("short")

    def long() -> None:
        with turns.held():
            entered.set()
            while not turns.pass_on():
                pass
            order.append("long")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(long)
        assert entered.wait(WAIT_S)
        second = pool.submit(short)
        first.result(WAIT_S)
        second.result(WAIT_S)
    assert order == ["short", "long"]


def test_a_turn_that_another_process_computes_in_is_free_meanwhile() -> None:
    patience = Patience(WAIT_S, Turns(1, turn_s=0.0))
    with ThreadPoolExecutor(1) as pool, patience.turn():

        def other() -> str:
            with patience.turn():
                return "computed"

        with patience.elsewhere():
            assert pool.submit(other).result(WAIT_S) == "computed"
        waits: Future[str] = pool.submit(other)
        patience.check()
        while not waits.done():
            patience.check()
        assert waits.result() == "computed"


def test_who_was_given_up_while_others_had_their_turn_ends_there() -> None:
    turns = Turns(1, turn_s=0.0)
    patience = Patience(WAIT_S, turns)

    def other() -> None:
        with turns.held():
            patience.cancel()

    def checks() -> None:
        while True:
            patience.check()

    with ThreadPoolExecutor(1) as pool:
        with patience.turn():
            given_up = pool.submit(other)
            with pytest.raises(NobodyWaits):
                checks()
        given_up.result(WAIT_S)
