"""Each pre-trade control, by example; agreement in the large is in test_against_reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from book_service.matching import (
    CancelReason,
    ControlCommand,
    Controls,
    Instrument,
    Limit,
    MatchingEngine,
    RejectReason,
)
from tests.book_service.matching.messages import (
    ALL_ACCOUNTS,
    ALL_SYMBOLS,
    BUY,
    MARKET,
    SELL,
    STOP,
    cancel,
    command,
    order,
    replace,
    row,
    send,
    set_limit,
    trades,
)

SECOND = 1_000_000_000
ACCEPTED, TRADE = (0, 0), (1, 0)
OPEN = Controls(moving_collar_ppm=None, volatility_band_ppm=None, breaker_loss_ppm=None)


def engine(controls: Controls = OPEN, **instrument: Any) -> MatchingEngine:
    return MatchingEngine([Instrument(**({"reference": 1000} | instrument))] * 2, controls)


def rejected(reason: RejectReason) -> list[tuple[int, int]]:
    return [(6, int(reason))]


def test_the_default_controls_let_ordinary_orders_pass() -> None:
    book = MatchingEngine(2, MatchingEngine.default_controls())
    assert send(book, order(1, SELL, 100, 5), order(2, BUY, 100, 5, 2)) == [ACCEPTED, ACCEPTED, TRADE]
    assert send(book, order(3, BUY, 200, 5)) == rejected(RejectReason.MOVING_COLLAR)
    assert send(book, order(3, BUY, 100, 2**40)) == rejected(RejectReason.MAXIMUM_QUANTITY)


def test_a_missing_reference_fails_closed() -> None:
    book = MatchingEngine(1, Controls())
    refused = rejected(RejectReason.MISSING_REFERENCE)
    assert send(book, order(1, BUY, 1000, 5)) == refused
    assert send(book, order(1, BUY, 0, 5, kind=MARKET)) == refused
    assert (
        send(book, command(ControlCommand.SET_REFERENCE, price=1000), order(1, BUY, 1000, 5))
        == [ACCEPTED] * 2
    )
    clear = command(ControlCommand.CLEAR_REFERENCE)
    assert send(book, clear, order(2, BUY, 1000, 5)) == [ACCEPTED, *refused]


def test_collars_hold_on_both_sides_and_to_the_tick() -> None:
    book = engine()
    send(book, set_limit(Limit.STATIC_COLLAR, 100_000))
    refused = rejected(RejectReason.STATIC_COLLAR)
    assert send(book, order(1, BUY, 1100, 5), order(2, BUY, 900, 5)) == [ACCEPTED] * 2
    assert send(book, order(3, BUY, 1101, 5)) == send(book, order(3, SELL, 899, 5)) == refused
    assert send(book, replace(2, 899, 5)) == [(5, RejectReason.STATIC_COLLAR)]


def test_the_moving_collar_follows_the_last_trade() -> None:
    book = engine()
    send(book, set_limit(Limit.MOVING_COLLAR, 50_000))
    assert send(book, order(1, SELL, 1050, 5), order(2, BUY, 1050, 5, 2)) == [ACCEPTED, ACCEPTED, TRADE]
    assert send(book, order(3, SELL, 1102, 5)) == [ACCEPTED]
    assert send(book, order(4, BUY, 997, 5)) == rejected(RejectReason.MOVING_COLLAR)


def test_a_market_order_stops_at_the_collar() -> None:
    book = engine()
    send(book, set_limit(Limit.STATIC_COLLAR, 100_000), order(1, SELL, 1100, 5))
    send(book, set_limit(Limit.STATIC_COLLAR, 10_000))
    sweep = order(2, BUY, 0, 9, 2, kind=MARKET)
    assert send(book, sweep) == [ACCEPTED, (2, CancelReason.PRE_TRADE_CONTROL)]


def test_quantity_and_value_cannot_overflow_their_limits() -> None:
    book = engine(multiplier=1 << 20)
    send(book, set_limit(Limit.MAXIMUM_QUANTITY, -1), set_limit(Limit.MAXIMUM_VALUE, 10 * 1000 << 20))
    assert send(book, order(1, BUY, 1000, 10)) == [ACCEPTED]
    # The product of the last is 0 modulo 2**64.
    for price, quantity in ((1000, 11), (1 << 32, 1 << 62), (1 << 32, 1 << 12)):
        assert send(book, order(2, BUY, price, quantity)) == rejected(RejectReason.MAXIMUM_VALUE)
    assert send(book, order(2, BUY, (1 << 32) + 1, 1)) == rejected(RejectReason.PRICE_OUT_OF_RANGE)
    send(book, set_limit(Limit.MAXIMUM_QUANTITY, 3))
    assert send(book, order(2, BUY, 1, 4)) == rejected(RejectReason.MAXIMUM_QUANTITY)


def test_the_message_rate_counts_everything_and_refuses_only_new_risk() -> None:
    book = engine()
    send(book, set_limit(Limit.MESSAGE_RATE, 3))
    assert send(book, *(order(i, BUY, 990, 5) for i in range(4))) == [ACCEPTED] * 3 + rejected(
        RejectReason.MESSAGE_RATE
    )
    assert send(book, replace(0, 991, 5)) == [(5, RejectReason.MESSAGE_RATE)]
    assert send(book, cancel(0), order(9, BUY, 990, 5, 2)) == [(2, 0), ACCEPTED]
    assert send(book, order(8, BUY, 990, 5, time=SECOND)) == [ACCEPTED]


def test_repeated_executions_stop_the_account_until_someone_lets_it_go_on() -> None:
    book = engine()
    send(book, set_limit(Limit.EXECUTION_RATE, 2), order(1, SELL, 1000, 99))
    hits = [order(10 + i, BUY, 1000, 1, 2) for i in range(4)]
    assert send(book, *hits) == [ACCEPTED, TRADE] * 3 + rejected(RejectReason.REPEATED_EXECUTION)
    later = order(20, BUY, 1000, 1, 2, time=9 * SECOND)
    assert send(book, later) == rejected(RejectReason.REPEATED_EXECUTION)
    assert send(book, command(ControlCommand.RESET_THROTTLE, account=2), later) == [ACCEPTED, ACCEPTED, TRADE]


def test_positions_count_every_open_order_at_once() -> None:
    book = engine()
    send(book, set_limit(Limit.ACCOUNT_POSITION, 10))
    too_much = rejected(RejectReason.POSITION_LIMIT)
    assert send(book, order(1, BUY, 990, 6), order(2, BUY, 990, 5)) == [ACCEPTED, *too_much]
    assert send(book, order(2, BUY, 990, 4), replace(2, 990, 5), cancel(2)) == [
        ACCEPTED,
        (5, RejectReason.POSITION_LIMIT),
        (2, 0),
    ]
    assert send(book, order(3, SELL, 990, 6, 2)) == [ACCEPTED, TRADE]
    assert send(book, order(4, BUY, 990, 5)) == too_much
    assert send(book, order(4, SELL, 1010, 16), order(5, SELL, 1010, 1)) == [ACCEPTED, *too_much]


def test_open_exposure_is_given_back_by_fills_and_cancels() -> None:
    book = engine(multiplier=10)
    send(book, set_limit(Limit.OPEN_EXPOSURE, 100_000))
    refused = rejected(RejectReason.OPEN_EXPOSURE_LIMIT)
    assert send(book, order(1, BUY, 1000, 6), order(2, BUY, 1000, 5, symbol=1)) == [ACCEPTED, *refused]
    send(book, order(3, SELL, 1000, 2, 2))
    assert send(book, order(2, BUY, 1000, 6, symbol=1), order(4, BUY, 1, 1)) == [ACCEPTED, *refused]
    assert send(book, cancel(1), order(4, BUY, 1000, 4)) == [(2, 0), ACCEPTED]


def test_concentration_is_a_share_of_the_accounts_capital() -> None:
    book = engine()
    send(book, set_limit(Limit.CONCENTRATION, 200_000))
    assert send(book, order(1, BUY, 1000, 1)) == rejected(RejectReason.MISSING_REFERENCE)
    send(book, command(ControlCommand.SET_CAPITAL, account=1, price=50_000))
    assert send(book, order(1, BUY, 1000, 10), order(2, BUY, 1000, 1)) == [
        ACCEPTED,
        *rejected(RejectReason.CONCENTRATION_LIMIT),
    ]


def test_the_same_order_again_is_refused_within_the_window() -> None:
    book = engine()
    send(book, set_limit(Limit.DUPLICATE_WINDOW, 100))
    assert send(book, order(1, BUY, 990, 5, time=10), order(2, BUY, 990, 5, time=109)) == [
        ACCEPTED,
        *rejected(RejectReason.DUPLICATE_ORDER),
    ]
    assert send(book, order(3, BUY, 991, 5, time=109), order(4, BUY, 990, 5, time=110)) == [ACCEPTED] * 2


def test_symbols_are_restricted_halted_and_opened_by_command() -> None:
    book = engine()
    for stop, start, reason in (
        (ControlCommand.RESTRICT, ControlCommand.UNRESTRICT, RejectReason.RESTRICTED_SYMBOL),
        (ControlCommand.HALT, ControlCommand.RESUME, RejectReason.SYMBOL_HALTED),
    ):
        send(book, order(1, BUY, 990, 5), command(stop))
        assert send(book, order(2, BUY, 990, 5)) == rejected(reason)
        assert send(book, order(2, BUY, 990, 5, symbol=1), cancel(2, symbol=1)) == [ACCEPTED, (2, 0)]
        assert send(book, replace(1, 990, 4), replace(1, 991, 4)) == [(3, 0), (5, reason)]
        assert send(book, command(start), order(2, BUY, 990, 5), cancel(1), cancel(2)) == [
            ACCEPTED,
            ACCEPTED,
            (2, 0),
            (2, 0),
        ]


def test_beyond_the_loss_limit_an_account_may_only_reduce() -> None:
    book = engine()
    send(book, set_limit(Limit.LOSS, 500), order(1, SELL, 1000, 10, 2), order(2, BUY, 1000, 10, 1))
    send(book, order(3, BUY, 949, 1, 3), order(4, SELL, 949, 1, 2))
    refused = rejected(RejectReason.LOSS_LIMIT)
    assert send(book, order(5, BUY, 900, 1)) == send(book, order(5, SELL, 1000, 11)) == refused
    assert send(book, order(5, SELL, 1000, 10), order(6, SELL, 1000, 1)) == [ACCEPTED, *refused]


def test_reducing_only() -> None:
    book = engine()
    send(book, command(ControlCommand.SET_POSITION, account=1, price=5, stop_price=1000))
    send(book, command(ControlCommand.REDUCING_ONLY, account=1))
    refused = rejected(RejectReason.REDUCING_ONLY)
    assert send(book, order(1, BUY, 990, 1)) == send(book, order(1, SELL, 990, 6)) == refused
    assert send(book, order(1, SELL, 990, 5), order(2, BUY, 900, 1, 2)) == [ACCEPTED] * 2
    assert send(book, command(ControlCommand.RELEASE, account=1), order(3, BUY, 900, 1)) == [ACCEPTED] * 2


def test_outside_the_band_a_symbol_pauses_and_reopens_where_it_stopped() -> None:
    book = engine()
    send(book, set_limit(Limit.VOLATILITY_BAND, 100_000), set_limit(Limit.VOLATILITY_PAUSE, 60 * SECOND))
    send(book, order(1, SELL, 1100, 5), order(2, SELL, 1101, 5))
    assert send(book, order(3, BUY, 1200, 7, 2)) == [ACCEPTED, TRADE, (2, CancelReason.SYMBOL_HALTED)]
    halted = rejected(RejectReason.SYMBOL_HALTED)
    assert send(book, order(4, BUY, 1101, 5, 2)) == halted
    assert send(book, order(4, BUY, 1101, 5, 2, time=60 * SECOND - 1)) == halted
    assert send(book, order(4, BUY, 1101, 5, 2, time=60 * SECOND)) == [ACCEPTED, TRADE]


def test_the_band_is_drawn_around_the_mean_of_five_minutes() -> None:
    book = engine()
    send(book, set_limit(Limit.VOLATILITY_BAND, 10_000))
    for i, (price, second) in enumerate(((1000, 0), (1004, 31), (1008, 61))):
        send(book, order(10 + i, SELL, price, 1, time=second * SECOND))
        assert send(book, order(20 + i, BUY, price, 1, 2, time=second * SECOND)) == [ACCEPTED, TRADE]
    # Mean 1004: to 1014.04, cut to 1014. After the first trades have left the five minutes: 1008, to 1018.
    send(book, order(1, SELL, 1014, 1, time=91 * SECOND), order(2, SELL, 1018, 1, time=91 * SECOND))
    assert send(book, order(3, BUY, 1014, 1, 2, time=91 * SECOND)) == [ACCEPTED, TRADE]
    send(book, command(ControlCommand.SET_REFERENCE, price=1))
    hit = order(4, BUY, 1018, 1, 2, time=365 * SECOND)  # 1008 and 1014: mean 1011, to 1021
    assert send(book, hit) == [ACCEPTED, TRADE]


def test_stops_triggered_while_the_symbol_pauses_are_cancelled() -> None:
    book = engine()
    send(book, set_limit(Limit.VOLATILITY_BAND, 100_000))
    send(
        book,
        order(1, SELL, 1050, 1),
        order(2, SELL, 1200, 5),
        order(3, BUY, 0, 1, 2, kind=STOP, stop_price=1050),
    )
    wanted = [ACCEPTED, TRADE, (2, CancelReason.SYMBOL_HALTED), (7, 0), (2, CancelReason.SYMBOL_HALTED)]
    assert send(book, order(4, BUY, 1200, 2, 3)) == wanted


def test_the_breaker_trips_at_its_share_of_the_capital() -> None:
    book = engine()
    send(
        book,
        set_limit(Limit.BREAKER_LOSS, 20_000),
        command(ControlCommand.SET_CAPITAL, account=1, price=10_000),
    )
    send(book, order(1, SELL, 1000, 10, 2), order(2, BUY, 1000, 10, 1), order(3, BUY, 500, 1, 3))
    send(book, order(4, BUY, 980, 1, 3), order(5, BUY, 979, 1, 3))
    assert send(book, order(6, SELL, 980, 1, 2)) == [ACCEPTED, TRADE]  # 200 of 10,000: just not
    assert send(book, order(7, SELL, 979, 1, 2)) == [ACCEPTED, TRADE, (2, CancelReason.CIRCUIT_BREAKER)]
    assert book.open_orders == 0
    assert send(book, order(8, SELL, 980, 1, 2)) == rejected(RejectReason.CIRCUIT_BREAKER)
    back = [set_limit(Limit.BREAKER_LOSS, 50_000), command(ControlCommand.RESET_BREAKER)]
    assert send(book, *back, order(8, SELL, 980, 1, 2)) == [ACCEPTED] * 3


def test_the_breaker_trips_by_command() -> None:
    book = engine()
    send(book, order(1, BUY, 990, 5))
    assert send(book, command(ControlCommand.TRIP_BREAKER)) == [ACCEPTED, (2, CancelReason.CIRCUIT_BREAKER)]


def test_kill_cancels_and_refuses_in_one_command() -> None:
    book = engine()
    orders = [order(i, BUY, 990, 5, 1 + i % 2, symbol=i // 2) for i in range(4)]
    send(book, *orders, order(9, BUY, 0, 1, 1, kind=STOP, stop_price=2000))
    one = book.process(command(ControlCommand.KILL, account=1, order_id=77))
    assert one["order_id"].tolist() == [77, 0, 2, 9]
    assert set(one["reason"].tolist()[1:]) == {CancelReason.KILLED}
    assert send(book, order(0, BUY, 990, 5)) == rejected(RejectReason.ACCOUNT_BLOCKED)
    everybody = command(ControlCommand.KILL, flags=ALL_ACCOUNTS)
    assert send(book, everybody) == [ACCEPTED] + [(2, CancelReason.KILLED)] * 2
    assert send(book, order(0, BUY, 990, 5, 3)) == rejected(RejectReason.KILLED)
    revive = [command(ControlCommand.REVIVE, flags=ALL_ACCOUNTS), command(ControlCommand.REVIVE, account=1)]
    assert send(book, *revive, order(0, BUY, 990, 5)) == [ACCEPTED] * 3


@pytest.mark.parametrize(
    "bad",
    [
        row(action=4, kind=16),
        set_limit(Limit.MESSAGE_RATE, -2),
        row(action=4, kind=0, tif=15),
        set_limit(Limit.STATIC_COLLAR, 10**9 + 1),
        set_limit(Limit.MAXIMUM_QUANTITY, 5, flags=0, symbol=2),
        command(ControlCommand.SET_REFERENCE, price=2**32 + 1),
        command(ControlCommand.HALT, symbol=2),
        command(ControlCommand.SET_CAPITAL, price=-2),
        command(ControlCommand.SET_CAPITAL, price=5, flags=ALL_ACCOUNTS),
        command(ControlCommand.SET_POSITION, price=2**61),
        command(ControlCommand.SET_POSITION, price=1, flags=ALL_SYMBOLS),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(bad: Any) -> None:
    assert send(engine(), bad) == rejected(RejectReason.BAD_CONTROL_COMMAND)


def test_accounts_are_bounded() -> None:
    book = engine(Controls(most_accounts=300, moving_collar_ppm=None, volatility_band_ppm=None))
    answers = [send(book, order(i, BUY, 990, 1, account=i)) for i in range(302)]
    assert answers[:300] == [[ACCEPTED]] * 300
    assert answers[300:] == [rejected(RejectReason.TOO_MANY_ACCOUNTS)] * 2


def test_limits_for_one_symbol_or_account_leave_the_others() -> None:
    book = engine()
    send(book, set_limit(Limit.MAXIMUM_QUANTITY, 1, flags=0, symbol=1))
    send(book, set_limit(Limit.ACCOUNT_POSITION, 2, flags=0, account=7))
    assert send(book, order(1, BUY, 990, 2, 1), order(2, BUY, 990, 2, 1, symbol=1)) == [
        ACCEPTED,
        *rejected(RejectReason.MAXIMUM_QUANTITY),
    ]
    assert send(book, order(3, BUY, 990, 3, 7)) == rejected(RejectReason.POSITION_LIMIT)


def test_a_trade_moves_the_positions_of_both_sides() -> None:
    book = engine()
    send(book, set_limit(Limit.ACCOUNT_POSITION, 5), order(1, SELL, 1000, 5, 1))
    assert trades(book.process(order(2, BUY, 1000, 5, 2))) == [(1, 2, 1000, 5)]
    assert send(book, order(3, SELL, 1000, 1, 1)) == rejected(RejectReason.POSITION_LIMIT)
    assert send(book, order(3, BUY, 1000, 1, 2)) == rejected(RejectReason.POSITION_LIMIT)
    assert send(book, order(4, BUY, 1000, 10, 1), order(5, SELL, 1000, 10, 2)) == [ACCEPTED, ACCEPTED, TRADE]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Instrument(multiplier=0),
        lambda: Instrument(reference=2**33),
        lambda: Controls(message_rate=-5),
        lambda: Controls(static_collar_ppm=10**10),
        lambda: Controls(most_accounts=0),
        lambda: MatchingEngine(0),
        lambda: MatchingEngine([]),
    ],
)
def test_bad_settings_raise(make: Any) -> None:
    with pytest.raises(ValueError, match="from"):
        make()


def test_a_replay_of_the_log_alone_gives_the_same_state() -> None:
    """Limits changed on the way are in the log, not beside it."""
    log = np.concatenate(
        [
            order(1, BUY, 990, 5),
            set_limit(Limit.MAXIMUM_QUANTITY, 4),
            order(2, BUY, 990, 5),
            order(3, BUY, 990, 4),
        ]
    )
    first, second = engine(), engine()
    reports = first.process(log)
    again = np.concatenate([second.process(log[i : i + 1]) for i in range(len(log))])
    assert np.array_equal(reports, again)
    assert first.state_hash() == second.state_hash()
