"""The level book: by hand, and against one that is sorted anew after every event."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from book_service.depth import Level, LevelBook, Top


def many(book, deltas):
    side, price, quantity = zip(*deltas, strict=True)
    book.change_many(np.array(side, np.int32), np.array(price, float), np.array(quantity, float))


def snapshot(book, levels):
    for place, (side, price, quantity) in enumerate(levels):
        assert book.snapshot_row(side, price, quantity, first=place == 0, last=place == len(levels) - 1)


def test_deltas_by_hand():
    book = LevelBook()
    many(book, [(0, 99.0, 5.0), (0, 98.0, 7.0), (1, 101.0, 3.0), (1, 102.0, 1.0), (0, 99.0, 6.0)])
    assert book.top() == Top(99.0, 6.0, 101.0, 3.0)
    many(book, [(0, 99.0, 0.0), (1, 100.5, 2.0)])
    assert book.top() == Top(98.0, 7.0, 100.5, 2.0)
    assert book.depth(2) == ([Level(98.0, 7.0)], [Level(100.5, 2.0), Level(101.0, 3.0)])
    many(book, [(0, 98.0, 0.0), (0, 97.0, 0.0)])  # the last level, and one that is not there
    assert book.top() == Top(0.0, 0.0, 100.5, 2.0)


def test_a_lost_book_is_empty_until_a_whole_snapshot():
    book = LevelBook()
    book.change(0, 99.0, 5.0)
    book.lose()
    assert (book.live, book.top()) == (False, Top())
    book.change(0, 98.0, 1.0)  # of a book that we do not know
    assert not book.snapshot_row(0, 97.0, 1.0, first=False, last=True)
    assert book.snapshot_row(0, 97.0, 1.0, first=True, last=False)
    assert (book.live, book.receiving) == (False, True)
    book.snapshot_row(1, 101.0, 2.0, first=False, last=True)
    assert (book.live, book.receiving) == (True, False)
    assert book.top() == Top(97.0, 1.0, 101.0, 2.0)


def test_a_snapshot_replaces_what_was_there_only_when_it_is_whole():
    book = LevelBook()
    book.change(0, 99.0, 5.0)
    book.snapshot_row(0, 90.0, 1.0, first=True, last=False)
    assert book.top() == Top(99.0, 5.0)
    book.change(1, 101.0, 4.0)  # newer than the snapshot's rows: changes both
    assert book.top() == Top(99.0, 5.0, 101.0, 4.0)
    book.snapshot_row(0, 89.0, 1.0, first=False, last=True)
    assert book.top() == Top(90.0, 1.0, 101.0, 4.0)


def test_a_snapshot_begun_again_forgets_the_first_and_a_loss_forgets_both():
    book = LevelBook(live=False)
    book.snapshot_row(0, 90.0, 1.0, first=True, last=False)
    snapshot(book, [(0, 80.0, 1.0)])
    assert book.depth(9) == ([Level(80.0, 1.0)], [])
    book.snapshot_row(0, 90.0, 1.0, first=True, last=False)
    book.lose()
    assert not book.snapshot_row(0, 89.0, 1.0, first=False, last=True)


def test_an_empty_book_is_one_row_of_no_quantity():
    book = LevelBook(live=False)
    snapshot(book, [(0, 0.0, 0.0)])
    assert (book.live, book.top()) == (True, Top())


def test_levels_are_limited():
    book = LevelBook(levels_max=3)
    many(book, [(0, float(price), 1.0) for price in range(1, 4)])
    assert book.live
    book.change(0, 9.0, 1.0)
    assert not book.live
    snapshot(book, [(1, float(price), 1.0) for price in range(1, 4)])
    assert book.live
    book.snapshot_row(1, 1.0, 1.0, first=True, last=False)
    for price in range(2, 5):
        book.snapshot_row(1, float(price), 1.0, first=False, last=False)
    assert not book.live
    assert not book.receiving


events = st.lists(
    st.tuples(st.integers(0, 1), st.integers(1, 6).map(float), st.sampled_from([0.0, 0.0, 1.0, 2.0])),
    max_size=60,
)


@given(events, events, events)
def test_tops_are_those_of_a_book_sorted_anew(deltas, levels, more):
    book, plain = LevelBook(), ({}, {})
    rows = [*levels, (0, 3.0, 1.0)]
    sequence = [*(("delta", row) for row in deltas), ("snapshot", rows), *(("delta", row) for row in more)]
    for what, content in sequence:
        if what == "snapshot":
            snapshot(book, content)
            plain = ({}, {})
        for side, price, quantity in content if what == "snapshot" else [content]:
            plain[side][price] = quantity
            if what == "delta":
                book.change(side, price, quantity)
        buys = sorted((level for level in plain[0].items() if level[1]), reverse=True)
        sells = sorted(level for level in plain[1].items() if level[1])
        assert book.depth(10) == (buys, sells)
        assert book.top() == (*(buys or [(0.0, 0.0)])[0], *(sells or [(0.0, 0.0)])[0])


@given(st.lists(st.tuples(events.filter(bool), st.booleans()), max_size=8))
def test_many_deltas_at_once_are_the_same_as_one_by_one(batches):
    at_once, singly = LevelBook(), LevelBook()
    for deltas, look in batches:
        many(at_once, deltas)
        for delta in deltas:
            singly.change(*delta)
            singly.top()
        assert at_once.depth(100) == singly.depth(100)
        if look:
            assert at_once.top() == singly.top()
