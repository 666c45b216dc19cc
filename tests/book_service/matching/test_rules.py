"""Rules of the book that are easiest to read as examples; docs/matching.md states them."""

from __future__ import annotations

import numpy as np
import pytest

from book_service.matching import ORDER_DTYPE, REPORT_DTYPE, CancelReason, MatchingEngine, RejectReason
from tests.book_service.matching.messages import (
    ALL_SYMBOLS,
    BUY,
    GTD,
    MARKET,
    POST_ONLY,
    SELL,
    STOP,
    STOP_LIMIT,
    cancel,
    order,
    replace,
    row,
    send,
    trades,
)


@pytest.fixture
def book() -> MatchingEngine:
    return MatchingEngine(2)


def test_the_fields_of_a_trade(book: MatchingEngine) -> None:
    book.process(order(1, SELL, 100, 5, 7))
    accepted, trade, *rest = book.process(order(2, BUY, 105, 3, 8, time=42))
    assert not rest
    assert accepted["leaves"] == 3
    wanted = {
        "kind": 1, "reason": 0, "symbol": 0, "order_id": 2, "maker_id": 1, "taker_id": 2, "account": 8,
        "maker_account": 7, "side": BUY, "price": 100, "quantity": 3, "leaves": 0, "maker_leaves": 2,
        "sequence": 1,
        "time": 42,
    }  # fmt: skip
    assert dict(zip(REPORT_DTYPE.names or (), trade.tolist())) == wanted


def test_less_at_the_same_price_keeps_the_place_and_more_loses_it(book: MatchingEngine) -> None:
    send(book, order(1, SELL, 100, 5), order(2, SELL, 100, 5), order(3, SELL, 100, 5))
    send(book, replace(1, 100, 4), replace(2, 100, 6))
    assert trades(book.process(order(9, BUY, 100, 99, 2))) == [(1, 9, 100, 4), (3, 9, 100, 5), (2, 9, 100, 6)]


def test_post_only_is_refused_when_it_would_match(book: MatchingEngine) -> None:
    refused = [(6, RejectReason.POST_ONLY_WOULD_MATCH)]
    send(book, order(1, SELL, 100, 5))
    assert send(book, order(2, BUY, 100, 5, 2, tif=POST_ONLY)) == refused
    assert send(book, order(2, BUY, 100, 5, 2, tif=GTD, flags=1, expire_time=9)) == refused
    assert send(book, order(2, BUY, 99, 5, 2, tif=GTD, flags=1, expire_time=9)) == [(0, 0)]


def test_expiry_follows_message_time_and_comes_first(book: MatchingEngine) -> None:
    send(
        book, order(1, SELL, 100, 5, tif=GTD, expire_time=50), order(2, SELL, 100, 5, tif=GTD, expire_time=40)
    )
    reports = book.process(order(3, BUY, 100, 5, 2, time=50))
    assert list(zip(reports["kind"].tolist(), reports["order_id"].tolist())) == [(8, 2), (8, 1), (0, 3)]
    late = order(4, BUY, 100, 5, tif=GTD, expire_time=50, time=50)
    assert send(book, late) == [(6, RejectReason.EXPIRY_IN_THE_PAST)]


def test_stops_trigger_oldest_first_after_the_message_and_reach_each_other(book: MatchingEngine) -> None:
    send(book, *(order(10 + i, SELL, 100 + i, 1) for i in range(5)))
    send(book, order(1, BUY, 0, 1, 2, kind=STOP, stop_price=102))  # reached by the trade of 2
    send(book, order(2, BUY, 0, 2, 2, kind=STOP, stop_price=100))
    send(book, order(3, BUY, 100, 1, 2, kind=STOP_LIMIT, stop_price=100))
    reports = book.process(order(9, BUY, 100, 1, 3))
    wanted = [(0, 9), (1, 9), (7, 2), (1, 2), (1, 2), (7, 1), (1, 1), (7, 3)]
    assert list(zip(reports["kind"].tolist(), reports["order_id"].tolist())) == wanted
    assert set(reports["sequence"].tolist()) == {8}
    assert book.best(0) == (100, 104)


@pytest.mark.parametrize(
    ("stp", "kinds", "leaves"),
    [
        (0, [(0, 2), (1, 2)], (6, None)),
        (1, [(0, 2), (2, 2)], (10, None)),
        (2, [(0, 2), (2, 1)], (None, 4)),
        (3, [(0, 2), (2, 1), (2, 2)], (None, None)),
        (4, [(0, 2), (9, 1), (9, 2), (2, 2)], (6, None)),
    ],
)
def test_self_trade_prevention(
    book: MatchingEngine, stp: int, kinds: list[tuple[int, int]], leaves: tuple[int | None, int | None]
) -> None:
    send(book, order(1, BUY, 100, 10))
    reports = book.process(order(2, SELL, 100, 4, stp=stp))
    assert list(zip(reports["kind"].tolist(), reports["order_id"].tolist())) == kinds
    sides = book.depth(0, 1)
    assert tuple(int(side["quantity"][0]) if len(side) else None for side in sides) == leaves


def test_a_mass_cancel_takes_the_orders_and_stops_of_one_account_oldest_first(book: MatchingEngine) -> None:
    send(
        book, order(1, BUY, 90, 5), order(2, SELL, 110, 5, 2), order(3, BUY, 95, 5),
        order(4, BUY, 0, 5, kind=STOP, stop_price=120), order(5, BUY, 90, 5, symbol=1),
    )  # fmt: skip
    here = book.process(row(action=3, account=1))
    assert here["order_id"].tolist() == [1, 3, 4]
    assert set(here["reason"].tolist()) == {CancelReason.MASS_CANCEL}
    assert book.process(row(action=3, account=1, flags=ALL_SYMBOLS))["order_id"].tolist() == [5]
    assert book.open_orders == 1


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (row(action=9), (6, RejectReason.BAD_ACTION)),
        (row(action=4), (6, RejectReason.CONTROLS_ARE_OFF)),
        (order(1, 2, 100, 5), (6, RejectReason.BAD_SIDE)),
        (order(1, BUY, 100, 5, kind=4), (6, RejectReason.BAD_KIND)),
        (order(1, BUY, 100, 5, tif=5), (6, RejectReason.BAD_TIME_IN_FORCE)),
        (order(1, BUY, 100, 5, flags=2), (6, RejectReason.BAD_FLAGS)),
        (order(1, BUY, 100, 5, stp=5), (6, RejectReason.BAD_SELF_TRADE_PREVENTION)),
        (order(1, BUY, 100, 5, symbol=2), (6, RejectReason.UNKNOWN_SYMBOL)),
        (order(1, BUY, 100, 5, symbol=2**32 - 1), (6, RejectReason.UNKNOWN_SYMBOL)),
        (order(1, BUY, 100, 0), (6, RejectReason.ZERO_QUANTITY)),
        (order(1, BUY, 100, 2**63), (6, RejectReason.QUANTITY_OVERFLOW)),
        (order(1, BUY, 100, 5, kind=STOP), (6, RejectReason.MISSING_STOP_PRICE)),
        (cancel(1, symbol=2), (4, RejectReason.UNKNOWN_SYMBOL)),
        (cancel(8, account=2), (4, RejectReason.NOT_THE_OWNER)),
        (replace(8, 100, 5, account=2), (5, RejectReason.NOT_THE_OWNER)),
        (replace(8, 100, 0), (5, RejectReason.ZERO_QUANTITY)),
        (replace(1, 100, 5), (5, RejectReason.UNKNOWN_ORDER)),
    ],
)
def test_a_bad_message_is_refused_with_its_reason(
    book: MatchingEngine, message: np.ndarray, wanted: tuple[int, int]
) -> None:
    send(book, order(8, BUY, 90, 5))
    before = book.depth(0, 9)[0].tolist()
    assert send(book, message) == [wanted]
    assert book.depth(0, 9)[0].tolist() == before
    assert book.sequence == 2


def test_the_open_quantity_of_a_symbol_cannot_overflow(book: MatchingEngine) -> None:
    large = 2**63 - 1
    assert send(book, order(1, BUY, 100, large)) == [(0, 0)]
    assert send(book, order(2, BUY, 100, 1)) == [(6, RejectReason.QUANTITY_OVERFLOW)]
    assert send(book, order(2, BUY, 100, large, symbol=1)) == [(0, 0)]
    assert book.depth(0, 1)[0]["quantity"].tolist() == [large]


def test_market_orders_never_rest(book: MatchingEngine) -> None:
    wanted = [(0, 0), (2, CancelReason.MARKET_REMAINDER)]
    assert send(book, order(1, BUY, 0, 5, kind=MARKET)) == wanted
    assert send(book, order(1, BUY, 0, 5, kind=MARKET, tif=GTD)) == wanted


def test_prices_at_both_ends_of_int64(book: MatchingEngine) -> None:
    ends = (-(2**63), -1, 0, 2**63 - 1)
    send(book, *(order(i, SELL, price, 1) for i, price in enumerate(ends)))
    assert book.depth(0, 9)[1]["price"].tolist() == list(ends)
    assert [price for *_, price, _ in trades(book.process(order(9, BUY, 2**63 - 1, 9, 2)))] == list(ends)
    assert book.best(0) == (2**63 - 1, None)


@pytest.mark.parametrize("name", ORDER_DTYPE.names or ())
def test_a_wrong_dtype_raises_and_names_the_field(book: MatchingEngine, name: str) -> None:
    fields = {field: kind for field, (kind, *_) in (ORDER_DTYPE.fields or {}).items()}
    wrong = np.zeros(1, [(field, "f4" if field == name else kind) for field, kind in fields.items()])
    missing = np.zeros(1, [(field, kind) for field, kind in fields.items() if field != name])
    for messages in (wrong, missing):
        with pytest.raises(TypeError, match=f"'{name}'"):
            book.process(messages)
    packed = np.zeros(1, list(fields.items()))
    packed["order_id"], packed["quantity"] = 1, 5
    assert book.process(packed)["order_id"].tolist() == [1]


def test_no_messages_give_no_reports(book: MatchingEngine) -> None:
    reports = book.process(np.zeros(0, ORDER_DTYPE))
    assert reports.dtype == REPORT_DTYPE
    assert len(reports) == 0
