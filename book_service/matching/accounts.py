"""What the controls know of accounts: their limits, and one record per account and symbol."""

from __future__ import annotations

from book_service.matching.layout import (
    A_ACCOUNT,
    A_CAPITAL,
    A_EXECUTIONS,
    A_FIRST,
    A_FLAGS,
    A_OPEN_VALUE,
    A_TRADE_SECOND,
    A_TRADES,
    ACCOUNT_SIZE,
    ACCOUNTS,
    BUCKETS,
    C_BUCKET,
    C_COUNTS,
    C_HAS_MARK,
    C_MARK,
    C_MULTIPLIER,
    C_PORTFOLIO,
    C_SUMS,
    E_ACCOUNT,
    E_CASH,
    E_LAST_TIME,
    E_NEXT,
    E_OPEN_BUY,
    E_OPEN_SELL,
    E_POSITION,
    E_SYMBOL,
    E_WHO,
    EVERY_SYMBOL,
    IS_REDUCING,
    IS_THROTTLED,
    LIMITS_SIZE,
    MOST_ACCOUNTS,
    NONE,
    P_ACCOUNTS,
    P_LIMITS,
    P_RECORD_INDEX,
    P_RECORDS,
    PORTFOLIO_RESULT,
    RECORD_MASK,
    RECORD_SIZE,
    RECORDS,
    SECOND,
)
from book_service.matching.levels import scramble
from book_service.matching.memory import compiled, fixed64, inlined, load64, load_real, store64, store_real

TAG = 0xFFFFFFFF


@inlined
def limits_at(s: int, symbol: int) -> int:
    """Address of a symbol's limits."""
    return fixed64(s + P_LIMITS) + symbol * LIMITS_SIZE


@inlined
def account_at(s: int, row: int) -> int:
    """Address of an account."""
    return fixed64(s + P_ACCOUNTS) + row * ACCOUNT_SIZE


@inlined
def record_at(s: int, row: int) -> int:
    """Address of a record."""
    return fixed64(s + P_RECORDS) + row * RECORD_SIZE


@inlined
def account_of(s: int, record: int) -> int:
    """Address of the account that a record belongs to."""
    return account_at(s, load64(record_at(s, record) + E_ACCOUNT))


@inlined
def find_record(s: int, symbol: int, account: int) -> int:
    """The record of an account in a symbol, or NONE."""
    table = fixed64(s + P_RECORD_INDEX)
    mask = fixed64(s + RECORD_MASK)
    tag = scramble(symbol | (account << 32)) & TAG
    at = tag & mask
    entry = load64(table + at * 8)
    while entry != NONE:
        if ((entry >> 32) & TAG) == tag:
            here = record_at(s, entry & TAG)
            if load64(here + E_SYMBOL) == symbol and load64(here + E_WHO) == account:
                return entry & TAG
        at = (at + 1) & mask
        entry = load64(table + at * 8)
    return NONE


@compiled
def index_record(s: int, row: int) -> None:
    """Enters a record into the index."""
    table = fixed64(s + P_RECORD_INDEX)
    mask = fixed64(s + RECORD_MASK)
    here = record_at(s, row)
    tag = scramble(load64(here + E_SYMBOL) | (load64(here + E_WHO) << 32)) & TAG
    at = tag & mask
    while load64(table + at * 8) != NONE:
        at = (at + 1) & mask
    store64(table + at * 8, (tag << 32) | row)


@compiled
def _add_record(s: int, symbol: int, account: int, owner: int) -> int:
    row = load64(s + RECORDS)
    store64(s + RECORDS, row + 1)
    here = record_at(s, row)
    for word in range(0, RECORD_SIZE, 8):
        store64(here + word, 0)
    store64(here + E_ACCOUNT, owner)
    store64(here + E_SYMBOL, symbol)
    store64(here + E_WHO, account)
    store64(here + E_LAST_TIME, NONE)
    store64(here + E_NEXT, NONE)
    if symbol != EVERY_SYMBOL:
        first = account_at(s, owner) + A_FIRST
        store64(here + E_NEXT, load64(first))
        store64(first, row)
    index_record(s, row)
    return row


@compiled
def _open_account(s: int, account: int) -> int:
    """A new account with the limits of row 0: its row, or NONE when there are too many."""
    row = load64(s + ACCOUNTS)
    if row > fixed64(s + MOST_ACCOUNTS):
        return NONE
    store64(s + ACCOUNTS, row + 1)
    pattern = account_at(s, 0)
    here = account_at(s, row)
    for word in range(0, ACCOUNT_SIZE, 8):
        store64(here + word, load64(pattern + word) if word < A_ACCOUNT else 0)
    store64(here + A_ACCOUNT, account)
    store64(here + A_FLAGS, load64(pattern + A_FLAGS) & IS_REDUCING)
    store64(here + A_CAPITAL, NONE)
    store64(here + A_FIRST, NONE)
    _add_record(s, EVERY_SYMBOL, account, row)
    return row


@compiled
def _new_record(s: int, symbol: int, account: int) -> int:
    head = find_record(s, EVERY_SYMBOL, account)
    owner = _open_account(s, account) if head == NONE else load64(record_at(s, head) + E_ACCOUNT)
    if owner == NONE or symbol == EVERY_SYMBOL:
        return find_record(s, symbol, account)
    return _add_record(s, symbol, account, owner)


@inlined
def enter(s: int, symbol: int, account: int) -> int:
    """The record of an account in a symbol, made if need be; NONE when there are too many accounts."""
    record = find_record(s, symbol, account)
    return _new_record(s, symbol, account) if record == NONE else record


@inlined
def count_open(s: int, record: int, symbol: int, side: int, price: int, quantity: int) -> None:
    """Adds to (or takes from) what an account has open: quantity of a side, and its value."""
    if record == NONE:
        return
    here = record_at(s, record)
    opened = here + (E_OPEN_SELL if side else E_OPEN_BUY)
    store64(opened, load64(opened) + quantity)
    value = account_at(s, load64(here + E_ACCOUNT)) + A_OPEN_VALUE
    unit = abs(price) * load64(limits_at(s, symbol) + C_MULTIPLIER)
    store64(value, load64(value) + unit * quantity)


@inlined
def move_mark(s: int, symbol: int, price: int) -> None:
    """A new mark price: the result of the breaker's portfolio moves with it."""
    at = limits_at(s, symbol)
    held = load64(at + C_PORTFOLIO)
    if held != 0:
        move = float(held) * float(price - load64(at + C_MARK)) * float(load64(at + C_MULTIPLIER))
        store_real(s + PORTFOLIO_RESULT, load_real(s + PORTFOLIO_RESULT) + move)
    store64(at + C_MARK, price)
    store64(at + C_HAS_MARK, 1)


@inlined
def note_in_mean(s: int, symbol: int, price: int) -> None:
    """Counts a trade price in the mean that the volatility band is drawn around."""
    at = limits_at(s, symbol)
    slot = load64(at + C_BUCKET) % BUCKETS * 8
    store64(at + C_SUMS + slot, load64(at + C_SUMS + slot) + price)
    store64(at + C_COUNTS + slot, load64(at + C_COUNTS + slot) + 1)


@inlined
def book_fill(s: int, record: int, symbol: int, price: int, bought: int) -> None:
    """One side of a trade: position and cash of the account, position of the portfolio if it is in it."""
    here = record_at(s, record)
    at = limits_at(s, symbol)
    store64(here + E_POSITION, load64(here + E_POSITION) + bought)
    paid = float(bought) * float(price) * float(load64(at + C_MULTIPLIER))
    store_real(here + E_CASH, load_real(here + E_CASH) - paid)
    if load64(account_at(s, load64(here + E_ACCOUNT)) + A_CAPITAL) >= 0:
        store64(at + C_PORTFOLIO, load64(at + C_PORTFOLIO) + bought)


@inlined
def count_execution(s: int, record: int) -> None:
    """An order of this account has traded: above the rate the account is stopped."""
    here = account_of(s, record)
    now = load64(s + SECOND)
    if load64(here + A_TRADE_SECOND) != now:
        store64(here + A_TRADE_SECOND, now)
        store64(here + A_TRADES, 0)
    count = load64(here + A_TRADES) + 1
    store64(here + A_TRADES, count)
    most = load64(here + A_EXECUTIONS)
    if most >= 0 and count > most:
        store64(here + A_FLAGS, load64(here + A_FLAGS) | IS_THROTTLED)


@inlined
def marked(s: int, record: int) -> float:
    """Result of one record at the mark price: cash and position together."""
    here = record_at(s, record)
    at = limits_at(s, load64(here + E_SYMBOL))
    value = float(load64(here + E_POSITION)) * float(load64(at + C_MARK)) * float(load64(at + C_MULTIPLIER))
    return load_real(here + E_CASH) + value


@compiled
def loses_more_than(s: int, account: int, limit: int) -> int:
    """1 if an account (by address) has lost more than a limit, 2 if a position of it has no mark, else 0."""
    total = 0.0
    record = load64(account + A_FIRST)
    while record != NONE:
        here = record_at(s, record)
        if load64(here + E_POSITION) != 0 and load64(limits_at(s, load64(here + E_SYMBOL)) + C_HAS_MARK) == 0:
            return 2
        total += marked(s, record)
        record = load64(here + E_NEXT)
    return 1 if total < -float(limit) else 0
