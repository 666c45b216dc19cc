"""The parts behind on-demand calls: patience, blocks, the queue for snapshots."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from worlds import option, portfolio, priced_market, quotes

import gpu_kernels as gk
from risk_service.live_snapshot import LiveSnapshot, SnapshotDesk
from risk_service.on_demand.blocks import Revaluer
from risk_service.on_demand.books import book_at
from risk_service.on_demand.patience import NobodyWaits, Patience
from risk_service.on_demand.patient_engine import Limits
from risk_service.portfolios import check
from risk_service.vol_marks import VolMarks
from service_kit.errors import DeadlinePassed, QuotaExceeded, TooLarge, Unavailable


@pytest.fixture(scope="module")
def engine():
    return gk.engine("auto")


@pytest.fixture(scope="module")
def book(engine):
    market = priced_market()
    rows = [option(strike, call, 7.0, group=place % 3) for place, (strike, call) in enumerate(CHAIN)]
    held = check(portfolio(rows=rows, groups=("a", "b", "c")))
    return book_at(engine, market, market.snapshot_id(), held).portfolio


CHAIN = [(strike, call) for strike in (80.0, 90.0, 100.0, 110.0, 120.0) for call in (True, False)]


def scenarios(seed, count=1_003):
    random = np.random.default_rng(seed)
    return gk.Scenarios(
        0.03 * random.standard_normal((count, 1)),
        0.02 * random.standard_normal((count, 1)),
        elapsed=random.choice([0.0, 0.01, 0.02], count),
    )


@pytest.mark.parametrize("block", [1, 10, 170, 10_000_000])
def test_blocks_change_no_bit(engine, book, block, seed):
    given, limits = scenarios(seed), Limits(block_revaluations=block)
    revaluer = Revaluer.of(engine, limits, Patience(60.0))
    whole = engine.revalue(book, given)
    np.testing.assert_array_equal(revaluer.pnl(book, given), whole)
    by_group = revaluer.pnl_by_group(book, given)
    np.testing.assert_array_equal(by_group, engine.revalue(book, given, by="group"))
    by_position = revaluer.pnl_by_position(book, given)
    np.testing.assert_allclose(by_position.sum(axis=0), whole, rtol=1e-10, atol=1e-10)


def test_patience_ends_work_between_blocks(engine, book, seed):
    given, limits = scenarios(seed), Limits(block_revaluations=1)
    late = Revaluer.of(engine, limits, Patience(0.0))
    with pytest.raises(DeadlinePassed):
        late.pnl(book, given)
    left = Revaluer.of(engine, limits, Patience(60.0))
    left.patience.cancel()
    with pytest.raises(NobodyWaits):
        left.pnl(book, given)


def test_what_costs_too_much_is_refused_before_it_begins(engine, book, seed):
    limits = Limits(request_revaluations_max=10 * 1_003 - 1)
    with pytest.raises(TooLarge):
        Revaluer.of(engine, limits, Patience(60.0)).pnl(book, scenarios(seed))
    limits = Limits(request_revaluations_max=10 * 1_003)
    assert len(Revaluer.of(engine, limits, Patience(60.0)).pnl(book, scenarios(seed))) == 1_003


def snapshot():
    return LiveSnapshot(priced_market(), VolMarks(), {}, {})


def test_everybody_who_waits_gets_the_same_snapshot():
    desk = SnapshotDesk(10)
    first, second = desk.ask(), desk.ask()
    assert desk.asked()
    desk.answer(snapshot)
    assert first.result(0) is second.result(0)
    assert not desk.asked()


def test_the_queue_has_an_end_and_who_left_takes_no_place():
    desk = SnapshotDesk(2)
    waiting = [desk.ask(), desk.ask()]
    with pytest.raises(QuotaExceeded) as refused:
        desk.ask()
    assert refused.value.retry_after_s > 0
    waiting[0].cancel()
    third = desk.ask()
    desk.answer(snapshot)
    assert third.result(0) is waiting[1].result(0)


def test_no_snapshot_is_made_for_nobody():
    desk = SnapshotDesk(2)
    desk.ask().cancel()
    desk.answer(lambda: pytest.fail("made for nobody"))


def test_a_loop_that_ends_or_fails_refuses_who_waits():
    desk = SnapshotDesk(2)
    waiting = desk.ask()

    def fail():
        raise RuntimeError("poisoned")

    with pytest.raises(RuntimeError):
        desk.answer(fail)
    with pytest.raises(Unavailable):
        waiting.result(0)
    waiting = desk.ask()
    desk.close()
    with pytest.raises(Unavailable):
        waiting.result(0)
    with pytest.raises(Unavailable):
        desk.ask()


def test_a_copy_of_the_market_does_not_move():
    market = priced_market()
    copy = market.copy()
    slots = copy.find(["IDX", "never heard of"])
    market.slots(["new"])
    market.apply(quotes(["IDX"], [50.0]), "IDX", 0, 9)
    assert copy.find(["new"]).tolist() == [-1]
    assert copy.spots(slots)[0] == 100.0
    assert np.isnan(copy.spots(slots)[1])


def test_asking_is_safe_from_many_threads():
    desk, answers = SnapshotDesk(1_000), []

    def ask():
        answers.extend(desk.ask() for _ in range(100))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        desk.answer(snapshot)
    desk.answer(snapshot)
    assert len(answers) == 400
    assert all(one.result(0).market.snapshot_id() == "0:4" for one in answers)
