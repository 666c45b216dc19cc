"""One test for each kind of mistake that fast public order books have made."""

from __future__ import annotations

import numpy as np
import pytest

from book_service.matching import (
    CancelReason,
    Controls,
    Instrument,
    MatchingEngine,
    RejectReason,
    SnapshotError,
)
from tests.book_service.matching.messages import (
    BUY,
    FOK,
    IOC,
    MARKET,
    SELL,
    STOP,
    cancel,
    order,
    replace,
    send,
    trades,
)

ACCEPTED, TRADE, CANCELLED, REPLACED, CANCEL_REJECTED, REJECTED = (0, 0), (1, 0), (2, 0), (3, 0), 4, 6


@pytest.fixture
def book() -> MatchingEngine:
    return MatchingEngine(2)


def test_a_filled_maker_cannot_be_cancelled(book: MatchingEngine) -> None:
    send(book, order(1, SELL, 100, 5), order(2, BUY, 100, 5, 2))
    assert send(book, cancel(1)) == [(CANCEL_REJECTED, RejectReason.UNKNOWN_ORDER)]


def test_removing_a_level_leaves_its_siblings(book: MatchingEngine) -> None:
    prices = [100, 101, 131, 132, 163, 164, 100_000]
    send(book, *(order(i, BUY, price, 5) for i, price in enumerate(prices)))
    for i in (3, 0, 5):
        send(book, cancel(i))
    assert book.depth(0, 9)[0]["price"].tolist() == [100_000, 163, 131, 101]


@pytest.mark.parametrize(("side", "sign"), [(BUY, 1), (SELL, -1)])
def test_cancelling_the_last_order_of_the_best_level_moves_the_best(
    book: MatchingEngine, side: int, sign: int
) -> None:
    for i, price in enumerate((100, 90, 40)):
        send(book, order(i, side, sign * price, 5))
    for i, wanted in enumerate((90, 40, None)):
        send(book, cancel(i))
        assert book.best(0)[side] == (None if wanted is None else sign * wanted)


def test_a_trade_prints_at_the_makers_price(book: MatchingEngine) -> None:
    send(book, order(1, SELL, 100, 5), order(2, SELL, 101, 5))
    assert trades(book.process(order(3, BUY, 200, 7, 2))) == [(1, 3, 100, 5), (2, 3, 101, 2)]


def test_a_replace_that_crosses_matches_and_does_not_rest(book: MatchingEngine) -> None:
    send(book, order(1, SELL, 100, 5), order(2, BUY, 90, 8, 2, tif=3))
    assert send(book, replace(2, 100, 8, 2)) == [REPLACED, TRADE]
    assert book.best(0) == (100, None)
    assert book.depth(0, 1)[0]["quantity"].tolist() == [3]


@pytest.mark.parametrize("stp", [1, 3, 4])
def test_fill_or_kill_does_not_count_what_lies_behind_its_own_order(book: MatchingEngine, stp: int) -> None:
    send(book, order(1, SELL, 100, 5, 2), order(2, SELL, 100, 5, 1), order(3, SELL, 101, 50, 2))
    before = book.depth(0, 9)[1].tolist()
    wanted = [ACCEPTED, (2, CancelReason.CANNOT_FILL_WHOLLY)]
    assert send(book, order(4, BUY, 101, 20, 1, tif=FOK, stp=stp)) == wanted
    assert book.depth(0, 9)[1].tolist() == before


def test_fill_or_kill_skips_its_own_order_when_the_oldest_is_cancelled(book: MatchingEngine) -> None:
    send(book, order(1, SELL, 100, 5, 1), order(2, SELL, 101, 20, 2))
    wanted = [ACCEPTED, (2, CancelReason.SELF_TRADE), TRADE]
    assert send(book, order(4, BUY, 101, 20, 1, tif=FOK, stp=2)) == wanted


def test_an_id_is_free_again_after_a_fill(book: MatchingEngine) -> None:
    send(book, order(1, SELL, 100, 5), order(2, BUY, 100, 5, 2))
    assert send(book, order(1, BUY, 90, 5), order(1, BUY, 91, 5)) == [
        ACCEPTED,
        (REJECTED, RejectReason.DUPLICATE_ORDER_ID),
    ]
    assert send(book, order(1, BUY, 90, 5, symbol=1)) == [ACCEPTED]


def test_an_immediate_or_cancel_remainder_is_cancelled(book: MatchingEngine) -> None:
    wanted = [ACCEPTED, ACCEPTED, TRADE, (2, CancelReason.IMMEDIATE_OR_CANCEL)]
    assert send(book, order(1, SELL, 100, 5), order(2, BUY, 100, 8, 2, tif=IOC)) == wanted
    assert book.best(0) == (None, None)
    assert book.open_orders == 0


def test_a_snapshot_keeps_the_order_of_a_queue(book: MatchingEngine) -> None:
    send(book, *(order(i, SELL, 100, 5) for i in (7, 3, 9, 1)), replace(3, 100, 6))
    again = MatchingEngine.restore(book.snapshot())
    wanted = [(7, 20, 100, 5), (9, 20, 100, 5), (1, 20, 100, 5), (3, 20, 100, 6)]
    assert trades(again.process(order(20, BUY, 100, 99, 2))) == wanted


def test_a_snapshot_keeps_the_last_trade_price(book: MatchingEngine) -> None:
    send(book, order(1, SELL, 100, 5), order(2, BUY, 100, 5, 2))
    again = MatchingEngine.restore(book.snapshot())
    stop = order(3, BUY, 0, 5, kind=STOP, stop_price=99)
    assert send(again, stop) == send(book, stop) == [ACCEPTED, (7, 0), (2, CancelReason.MARKET_REMAINDER)]


def test_indexes_are_rebuilt_the_same_whatever_the_history() -> None:
    """Two engines in one state by different ways give one hash, one snapshot and the same reports."""
    direct, detour = MatchingEngine(1), MatchingEngine(1)
    send(direct, *(order(i, BUY, 50 + i % 7, 5) for i in range(3_000)))
    for start in range(0, 3_000, 500):
        send(detour, *(order(i, BUY, 50 + i % 7, 5) for i in range(start, start + 500)))
        detour = MatchingEngine.restore(detour.snapshot())
    assert direct.state_hash() == detour.state_hash()
    assert direct.snapshot() == detour.snapshot()
    sweep = order(9_999, SELL, 0, 10_000, 2, kind=MARKET)
    assert np.array_equal(direct.process(sweep), detour.process(sweep))


def test_a_failed_restore_leaves_the_live_book_alone(book: MatchingEngine) -> None:
    send(book, order(1, SELL, 100, 5))
    before, blob = book.state_hash(), bytearray(book.snapshot())
    blob[-1] ^= 1
    with pytest.raises(SnapshotError, match="hash"):
        MatchingEngine.restore(bytes(blob))
    assert book.state_hash() == before
    assert send(book, cancel(1)) == [CANCELLED]


def test_a_snapshot_brings_its_configuration() -> None:
    controls = Controls(maximum_quantity=10, strict_reference=False)
    engine = MatchingEngine([Instrument(multiplier=100, reference=1000)], controls)
    again = MatchingEngine.restore(engine.snapshot())
    assert send(again, order(1, BUY, 1000, 11)) == [(REJECTED, RejectReason.MAXIMUM_QUANTITY)]
    assert again.state_hash() != MatchingEngine(1).state_hash()
