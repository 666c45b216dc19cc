"""Why a message was refused, and why an order was cancelled that its owner did not cancel."""

from __future__ import annotations

from enum import IntEnum


class RejectReason(IntEnum):
    """`reason` of a report of kind rejected, cancel-rejected or replace-rejected; 0 elsewhere."""

    NONE = 0
    # The row itself is bad.
    BAD_ACTION = 1
    BAD_SIDE = 2
    BAD_KIND = 3
    BAD_TIME_IN_FORCE = 4
    BAD_FLAGS = 5
    BAD_SELF_TRADE_PREVENTION = 6
    UNKNOWN_SYMBOL = 7
    ZERO_QUANTITY = 8
    QUANTITY_OVERFLOW = 9
    MISSING_STOP_PRICE = 10
    EXPIRY_IN_THE_PAST = 11
    # The book refuses it.
    DUPLICATE_ORDER_ID = 20
    UNKNOWN_ORDER = 21
    NOT_THE_OWNER = 22
    POST_ONLY_WOULD_MATCH = 23
    # A pre-trade control refuses it.
    KILLED = 40
    ACCOUNT_BLOCKED = 41
    SYMBOL_HALTED = 42
    CIRCUIT_BREAKER = 43
    RESTRICTED_SYMBOL = 44
    REDUCING_ONLY = 45
    MISSING_REFERENCE = 46
    STATIC_COLLAR = 47
    MOVING_COLLAR = 48
    MAXIMUM_QUANTITY = 49
    MAXIMUM_VALUE = 50
    MESSAGE_RATE = 51
    REPEATED_EXECUTION = 52
    POSITION_LIMIT = 53
    CONCENTRATION_LIMIT = 54
    OPEN_EXPOSURE_LIMIT = 55
    DUPLICATE_ORDER = 56
    LOSS_LIMIT = 57
    BAD_CONTROL_COMMAND = 58
    CONTROLS_ARE_OFF = 59
    PRICE_OUT_OF_RANGE = 60
    TOO_MANY_ACCOUNTS = 61


class CancelReason(IntEnum):
    """`reason` of a report of kind cancelled; 0 when the owner asked for it by a cancel message."""

    REQUESTED = 0
    IMMEDIATE_OR_CANCEL = 100
    MARKET_REMAINDER = 101
    CANNOT_FILL_WHOLLY = 102
    SELF_TRADE = 103
    POST_ONLY_WOULD_MATCH = 104
    MASS_CANCEL = 105
    KILLED = 106
    CIRCUIT_BREAKER = 107
    SYMBOL_HALTED = 108
    PRE_TRADE_CONTROL = 109
