"""Message and report records, their codes, and where the compiled core keeps what in memory.

Offsets are in bytes. Every size below is a multiple of eight, so that no word straddles a cache line.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np


class Action(IntEnum):
    """What a message asks for."""

    NEW = 0
    CANCEL = 1
    REPLACE = 2
    MASS_CANCEL = 3
    CONTROL = 4


class Kind(IntEnum):
    """Order kinds."""

    LIMIT = 0
    MARKET = 1
    STOP = 2
    STOP_LIMIT = 3


class TimeInForce(IntEnum):
    """How long an order lives; DAY is also good-till-cancelled."""

    DAY = 0
    IOC = 1
    FOK = 2
    POST_ONLY = 3
    GTD = 4


class SelfTrade(IntEnum):
    """What happens when an order meets one of its own account."""

    NONE = 0
    CANCEL_NEWEST = 1
    CANCEL_OLDEST = 2
    CANCEL_BOTH = 3
    DECREMENT = 4


class ReportKind(IntEnum):
    """What a report says."""

    ACCEPTED = 0
    TRADE = 1
    CANCELLED = 2
    REPLACED = 3
    CANCEL_REJECTED = 4
    REPLACE_REJECTED = 5
    REJECTED = 6
    TRIGGERED = 7
    EXPIRED = 8
    DECREMENTED = 9


FLAG_POST_ONLY: Final = 1
FLAG_ALL_SYMBOLS: Final = 2  # of a mass cancel or a control command: every symbol of the engine
FLAG_ALL_ACCOUNTS: Final = 4  # of a control command: every account, also those not seen yet


def _record(size: int, *fields: tuple[str, str, int]) -> np.dtype[np.void]:
    names, formats, offsets = zip(*fields, strict=True)
    return np.dtype(
        {"names": list(names), "formats": list(formats), "offsets": list(offsets), "itemsize": size}
    )


# Message: packed, in the order of docs/matching.md, because NumPy repacks any other layout when arrays are
# joined.
M_ACTION, M_SYMBOL, M_ID, M_ACCOUNT, M_CODES = 0, 1, 5, 13, 17
M_PRICE, M_STOP, M_QUANTITY, M_TIME, M_EXPIRE, M_STP = 21, 29, 37, 45, 53, 61
MESSAGE_SIZE: Final = 62
ORDER_DTYPE: Final = np.dtype(
    [
        ("action", "u1"), ("symbol", "<u4"), ("order_id", "<u8"), ("account", "<u4"), ("side", "u1"),
        ("kind", "u1"),
        ("tif", "u1"), ("flags", "u1"), ("price", "<i8"), ("stop_price", "<i8"), ("quantity", "<u8"),
        ("time", "<i8"), ("expire_time", "<i8"), ("stp", "u1"),
    ]
)  # fmt: skip

R_ID, R_MAKER, R_TAKER, R_PRICE, R_QUANTITY, R_LEAVES, R_MAKER_LEAVES, R_SEQUENCE, R_TIME = range(0, 72, 8)
R_SYMBOL_ACCOUNT, R_MAKER_ACCOUNT_CODES = 72, 80
REPORT_SIZE: Final = 88
REPORT_DTYPE: Final = _record(
    REPORT_SIZE,
    ("kind", "u1", 86),
    ("reason", "<u2", 84),
    ("symbol", "<u4", 72),
    ("order_id", "<u8", R_ID),
    ("maker_id", "<u8", R_MAKER),
    ("taker_id", "<u8", R_TAKER),
    ("account", "<u4", 76),
    ("maker_account", "<u4", 80),
    ("side", "u1", 87),
    ("price", "<i8", R_PRICE),
    ("quantity", "<u8", R_QUANTITY),
    ("leaves", "<u8", R_LEAVES),
    ("maker_leaves", "<u8", R_MAKER_LEAVES),
    ("sequence", "<u8", R_SEQUENCE),
    ("time", "<i8", R_TIME),
)
DEPTH_DTYPE: Final = np.dtype([("price", "<i8"), ("quantity", "<u8"), ("orders", "<u8")])

# Header: addresses (never written by compiled code), then counters.
(P_ORDERS, P_DATES, P_INDEX, P_BLOCKS, P_LEVELS, P_BOOKS, P_SYMBOLS, P_EXPIRY, P_TRIGGERED, P_REPORTS) = (
    range(0, 80, 8)
)
(P_SCRATCH, N_SYMBOLS, CAPACITY, INDEX_MASK, REPORT_CAPACITY) = range(80, 120, 8)
(LIVE, ORDERS_HIGH, ORDERS_FREE, BLOCKS_HIGH, BLOCKS_FREE, EXPIRIES, NEXT_EXPIRY, TRIGGERED) = range(
    192, 256, 8
)
(REPORTS, SEQUENCE, NEXT_AGE, TIME, TRADED, TRADE_LOW, TRADE_HIGH) = range(256, 312, 8)
# Of the controls. Room for accounts and records is checked between messages; times are in ns.
(
    P_LIMITS,
    P_ACCOUNTS,
    P_RECORDS,
    P_RECORD_INDEX,
    CONTROLS,
    ACCOUNT_CAPACITY,
    RECORD_CAPACITY,
    RECORD_MASK,
) = range(120, 184, 8)
(ACCOUNTS, RECORDS, CLOCK, SECOND, SECOND_END, BUCKET, KILLED, TRIPPED) = range(312, 376, 8)
(BREAKER_PPM, PORTFOLIO_CAPITAL, PORTFOLIO_RESULT, MOST_ACCOUNTS, STRICT, TURN) = range(384, 432, 8)
HEADER_WORDS: Final = 64

# Order: one cache line; what only dated or stop orders need lies apart.
O_ID, O_PRICE, O_LEAVES, O_AGE, O_PREV, O_NEXT, O_LEVEL, O_ACCOUNT = 0, 8, 16, 24, 32, 36, 40, 44
O_SYMBOL, O_RECORD, O_HEAP, O_BITS = 48, 52, 56, 60
ORDER_SIZE: Final = 64
D_EXPIRE, D_STOP = 0, 8
DATES_SIZE: Final = 16
# O_BITS: side, waiting (a stop not yet triggered), kind, time in force, post-only, self-trade prevention.
BIT_WAITING, KIND_SHIFT, TIF_SHIFT, FLAGS_SHIFT, STP_SHIFT = 2, 2, 4, 7, 9

# Level: the orders of one price, a doubly linked queue.
V_HEAD, V_TAIL, V_COUNT, V_TOTAL = 0, 4, 8, 16
LEVEL_SIZE: Final = 24
# Block: WIDTH neighbouring prices with a bit for each that has orders; a node of its book's tree.
BLOCK_SHIFT: Final = 5
BLOCK_WIDTH: Final = 1 << BLOCK_SHIFT
K_KEY, K_MASK, K_PREV, K_NEXT, K_LEFT, K_RIGHT, K_BOOK = 0, 8, 16, 20, 24, 28, 32
BLOCK_SIZE: Final = 64
# Book: four per symbol: bids, asks, waiting buy stops, waiting sell stops.
BOOKS_PER_SYMBOL: Final = 4
B_BEST, B_FIRST, B_ROOT, B_HINTS = 0, 8, 12, 64
HINTS: Final = 32
BOOK_SIZE: Final = B_HINTS + 4 * HINTS
# Symbol.
Y_LAST, Y_HAS_LAST, Y_OPEN = 0, 8, 16
SYMBOL_SIZE: Final = 64

# Limits and state of one symbol. The first seven are in the order of Limit.
(C_STATIC, C_MOVING, C_QUANTITY, C_VALUE, C_POSITION, C_BAND, C_PAUSE, C_MULTIPLIER) = range(0, 64, 8)
(C_REFERENCE, C_HAS_REFERENCE, C_MARK, C_HAS_MARK, C_RESTRICTED, C_HALTED, C_HALT_END, C_HALT_PRICE) = range(
    64, 128, 8
)
(C_REOPENED, C_BUCKET, C_BAND_STATE, C_BAND_LOW, C_BAND_HIGH, C_PORTFOLIO) = range(128, 176, 8)
C_SUMS, C_COUNTS = 192, 272
BUCKETS: Final = 10  # of BUCKET_NS each: the five minutes of the mean
BUCKET_NS: Final = 30_000_000_000
SECOND_NS: Final = 1_000_000_000
LIMITS_SIZE: Final = 384
BAND_STALE, BAND_SET, BAND_OFF = 0, 1, 2
RUNNING, PAUSED, HALTED_BY_COMMAND = 0, 1, 2
# Limits and state of one account; row 0 holds the limits that a new account starts with.
(A_RATE, A_EXECUTIONS, A_POSITION, A_CONCENTRATION, A_EXPOSURE, A_LOSS, A_DUPLICATE, A_ACCOUNT) = range(
    0, 64, 8
)
(A_FLAGS, A_SECOND, A_MESSAGES, A_TRADE_SECOND, A_TRADES, A_OPEN_VALUE, A_CAPITAL, A_FIRST) = range(
    64, 128, 8
)
ACCOUNT_SIZE: Final = 128
IS_KILLED, IS_REDUCING, IS_THROTTLED = 1, 2, 4
# One account in one symbol; the record of symbol EVERY_SYMBOL is the account's own and heads its list.
(E_ACCOUNT, E_SYMBOL, E_NEXT, E_POSITION, E_OPEN_BUY, E_OPEN_SELL, E_CASH) = range(0, 56, 8)
(E_LAST_TIME, E_LAST_PRICE, E_LAST_STOP, E_LAST_QUANTITY, E_LAST_CODES, E_WHO) = range(56, 104, 8)
RECORD_SIZE: Final = 128
EVERY_SYMBOL: Final = 0xFFFFFFFF
# Bounds that keep every sum of the controls inside int64, whatever the limits are set to.
HIGHEST_PRICE: Final = 1 << 32  # ticks
HIGHEST_MULTIPLIER: Final = 1 << 28
HIGHEST_POSITION: Final = 1 << 60
HIGHEST_VALUE: Final = 1 << 60
MILLION: Final = 1_000_000
HIGHEST_PPM: Final = 1000 * MILLION

NONE: Final = -1  # no order, no block, an empty index entry
NEVER: Final = (1 << 63) - 1
LARGEST: Final = (1 << 63) - 1
