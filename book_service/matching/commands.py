"""Control commands, and the breaker on the portfolio's marked loss."""

from __future__ import annotations

from book_service.matching.accounts import (
    account_at,
    account_of,
    enter,
    limits_at,
    marked,
    move_mark,
    record_at,
)
from book_service.matching.cancels import (
    cancel_many,
)
from book_service.matching.codes import (
    BY_BREAKER,
    BY_KILL,
)
from book_service.matching.controls import ControlCommand
from book_service.matching.layout import (
    A_CAPITAL,
    A_FIRST,
    A_FLAGS,
    A_OPEN_VALUE,
    ACCOUNTS,
    BAND_STALE,
    BREAKER_PPM,
    C_BAND_STATE,
    C_HALTED,
    C_HAS_MARK,
    C_HAS_REFERENCE,
    C_MULTIPLIER,
    C_PORTFOLIO,
    C_REFERENCE,
    C_RESTRICTED,
    E_ACCOUNT,
    E_CASH,
    E_NEXT,
    E_POSITION,
    E_SYMBOL,
    EVERY_SYMBOL,
    FLAG_ALL_ACCOUNTS,
    FLAG_ALL_SYMBOLS,
    HALTED_BY_COMMAND,
    HIGHEST_POSITION,
    HIGHEST_PPM,
    HIGHEST_PRICE,
    HIGHEST_VALUE,
    IS_KILLED,
    IS_REDUCING,
    IS_THROTTLED,
    KILLED,
    LARGEST,
    M_PRICE,
    M_STOP,
    N_SYMBOLS,
    NONE,
    PORTFOLIO_CAPITAL,
    PORTFOLIO_RESULT,
    R_MAKER_LEAVES,
    R_PRICE,
    REPORTS,
    RUNNING,
    TRIPPED,
    TURN,
    Y_HAS_LAST,
)
from book_service.matching.memory import (
    compiled,
    fixed64,
    inlined,
    load64,
    load_real,
    store64,
    store_real,
    wire64,
)
from book_service.matching.orders import (
    symbol_at,
)

(SET_LIMIT, SET_REFERENCE, CLEAR_REFERENCE, KILL, REVIVE, RESTRICT, UNRESTRICT, HALT, RESUME, REDUCING_ONLY,
RELEASE,
 TRIP_BREAKER, RESET_BREAKER, SET_CAPITAL, SET_POSITION,
 RESET_THROTTLE, LOWER_LIMIT, RAISE_LIMIT) = (int(code) for code in ControlCommand)  # fmt: skip
SYMBOL_LIMITS, ACCOUNT_LIMITS, BREAKER_LIMIT = 7, 14, 14


@compiled
def _highest(limit: int) -> int:
    """The largest value of a limit, as controls.highest has it."""
    if limit == 0 or limit == 1 or limit == 5 or limit == 10 or limit == BREAKER_LIMIT:
        return HIGHEST_PPM
    if limit == 4 or limit == 9:
        return HIGHEST_POSITION
    if limit == 3 or limit == 11 or limit == 12:
        return HIGHEST_VALUE
    return LARGEST


@compiled
def _set_limit(s: int, limit: int, value: int, first: int, last: int, low: int, high: int) -> bool:
    """Sets a limit of symbols first..last-1, of account rows low..high-1, or of the partition."""
    if limit > BREAKER_LIMIT or value < -1 or value > _highest(limit):
        return False
    # These are compared with without asking whether they are on.
    if value < 0 and (limit == 2 or limit == 3 or limit == 4 or limit == 9 or limit == 11):
        value = _highest(limit)
    if limit == 6 and value < 0:
        value = 0
    if limit == BREAKER_LIMIT:
        store64(s + BREAKER_PPM, value)
        return True
    if limit < SYMBOL_LIMITS:
        for symbol in range(first, last):
            store64(limits_at(s, symbol) + limit * 8, value)
            store64(limits_at(s, symbol) + C_BAND_STATE, BAND_STALE)
        return last > first
    for row in range(low, high):
        store64(account_at(s, row) + (limit - SYMBOL_LIMITS) * 8, value)
    return high > low


@compiled
def _smaller(now: int, value: int) -> int:
    """The smaller of two limits, of which -1 is none."""
    return now if value < 0 or (now >= 0 and now <= value) else value


@compiled
def _limit_at(s: int, limit: int, row: int) -> int:
    """Address of the breaker's limit, or of one of an account row."""
    return s + BREAKER_PPM if limit == BREAKER_LIMIT else account_at(s, row) + (limit - SYMBOL_LIMITS) * 8


@compiled
def _set_budget(s: int, answer: int, message: int, account: int, codes: int) -> bool:
    """Lowers or raises a limit that is split over partitions, and says what it is now."""
    lower = ((codes >> 16) & 0xFF) == LOWER_LIMIT
    limit = (codes >> 24) & 0xFF
    everybody = ((codes >> 32) & FLAG_ALL_ACCOUNTS) != 0
    value, turn = wire64(message + M_PRICE), wire64(message + M_STOP)
    if limit < SYMBOL_LIMITS or limit > BREAKER_LIMIT or value < -1 or value > _highest(limit):
        return False
    tell = lower and value < 0 and turn == 0
    if not tell and (turn < 1 or turn < load64(s + TURN) or (not lower and turn != load64(s + TURN))):
        return False
    low, high = 0, 1
    if limit != BREAKER_LIMIT and everybody:
        high = load64(s + ACCOUNTS)
    elif limit != BREAKER_LIMIT:
        head = enter(s, EVERY_SYMBOL, account)
        if head == NONE:
            return False
        low = load64(record_at(s, head) + E_ACCOUNT)
        high = low + 1
        store64(answer + R_MAKER_LEAVES, load64(account_at(s, low) + A_OPEN_VALUE))
    if not tell:
        store64(s + TURN, turn)
    for row in range(low, high):
        now = load64(_limit_at(s, limit, row))
        _set_limit(s, limit, _smaller(now, value) if lower else value, 0, 0, row, row + 1)
    store64(answer + R_PRICE, load64(_limit_at(s, limit, low)))
    return True


@compiled
def _set_reference(s: int, price: int, first: int, last: int) -> bool:
    if price > HIGHEST_PRICE or price < -HIGHEST_PRICE:
        return False
    for symbol in range(first, last):
        at = limits_at(s, symbol)
        store64(at + C_REFERENCE, price)
        store64(at + C_HAS_REFERENCE, 1)
        store64(at + C_BAND_STATE, BAND_STALE)
        if load64(symbol_at(s, symbol) + Y_HAS_LAST) == 0:
            move_mark(s, symbol, price)
    return last > first


@compiled
def _clear_reference(s: int, first: int, last: int) -> bool:
    for symbol in range(first, last):
        at = limits_at(s, symbol)
        store64(at + C_HAS_REFERENCE, 0)
        store64(at + C_REFERENCE, 0)
        store64(at + C_BAND_STATE, BAND_STALE)
        if load64(symbol_at(s, symbol) + Y_HAS_LAST) == 0:
            store64(at + C_HAS_MARK, 0)
    return last > first


@compiled
def _set_state(s: int, command: int, first: int, last: int) -> bool:
    """Restricts, halts or reopens symbols."""
    for symbol in range(first, last):
        at = limits_at(s, symbol)
        if command in (RESTRICT, UNRESTRICT):
            store64(at + C_RESTRICTED, 1 if command == RESTRICT else 0)
        else:
            store64(at + C_HALTED, HALTED_BY_COMMAND if command == HALT else RUNNING)
    return last > first


@compiled
def _set_flag(s: int, flag: int, on: bool, low: int, high: int) -> bool:
    for row in range(low, high):
        flags = account_at(s, row) + A_FLAGS
        store64(flags, (load64(flags) | flag) if on else (load64(flags) & ~flag))
    return high > low


@compiled
def _kill(s: int, answer: int, on: bool, account: int, everybody: bool, low: int, high: int) -> bool:
    """The kill switch and cancel-all in one; the answer's maker_leaves is the number of orders cancelled."""
    if everybody:
        store64(s + KILLED, 1 if on else 0)
    elif not _set_flag(s, IS_KILLED, on, low, high):
        return False
    if on:
        before = load64(s + REPORTS)
        cancel_many(s, 0, fixed64(s + N_SYMBOLS), account, 1 if everybody else 0, BY_KILL)
        store64(answer + R_MAKER_LEAVES, load64(s + REPORTS) - before)
    return True


@compiled
def _weigh_portfolio(s: int, owner: int, sign: int) -> None:
    """Takes an account into the breaker's portfolio, or out of it."""
    capital = load64(owner + A_CAPITAL)
    store_real(s + PORTFOLIO_CAPITAL, load_real(s + PORTFOLIO_CAPITAL) + float(sign) * float(capital))
    record = load64(owner + A_FIRST)
    while record != NONE:
        here = record_at(s, record)
        held = limits_at(s, load64(here + E_SYMBOL)) + C_PORTFOLIO
        store64(held, load64(held) + sign * load64(here + E_POSITION))
        store_real(s + PORTFOLIO_RESULT, load_real(s + PORTFOLIO_RESULT) + float(sign) * marked(s, record))
        record = load64(here + E_NEXT)


@compiled
def _set_capital(s: int, row: int, capital: int) -> bool:
    if capital < -1 or capital > HIGHEST_VALUE:
        return False
    owner = account_at(s, row)
    if load64(owner + A_CAPITAL) >= 0:
        _weigh_portfolio(s, owner, -1)
    store64(owner + A_CAPITAL, capital)
    if capital >= 0:
        _weigh_portfolio(s, owner, 1)
    return True


@compiled
def _set_position(s: int, symbol: int, account: int, position: int, cost: int) -> bool:
    if (
        position > HIGHEST_POSITION
        or position < -HIGHEST_POSITION
        or cost > HIGHEST_PRICE
        or cost < -HIGHEST_PRICE
    ):
        return False
    at = limits_at(s, symbol)
    if load64(at + C_HAS_MARK) == 0:
        return False
    record = enter(s, symbol, account)
    if record == NONE:
        return False
    owner = account_of(s, record)
    counted = load64(owner + A_CAPITAL) >= 0
    if counted:
        _weigh_portfolio(s, owner, -1)
    here = record_at(s, record)
    store64(here + E_POSITION, position)
    store_real(here + E_CASH, -(float(position) * float(cost) * float(load64(at + C_MULTIPLIER))))
    if counted:
        _weigh_portfolio(s, owner, 1)
    return True


@compiled
def apply_command(s: int, answer: int, message: int, symbol: int, account: int, codes: int) -> bool:
    """Carries out a control command; False if it makes no sense, and then nothing has changed.

    `answer` is the address of its report.
    """
    command = (codes >> 16) & 0xFF
    limit = (codes >> 24) & 0xFF
    flags = (codes >> 32) & 0xFF
    value = wire64(message + M_PRICE)
    symbols = fixed64(s + N_SYMBOLS)
    first, last = symbol, symbol + 1
    if flags & FLAG_ALL_SYMBOLS:
        first, last = 0, symbols
    elif symbol >= symbols:
        first, last = 0, 0
    if command == SET_REFERENCE:
        return _set_reference(s, value, first, last)
    if command == CLEAR_REFERENCE:
        return _clear_reference(s, first, last)
    if command >= RESTRICT and command <= RESUME:
        return _set_state(s, command, first, last)
    if command == TRIP_BREAKER:
        before = load64(s + REPORTS)
        _trip(s)
        store64(answer + R_MAKER_LEAVES, load64(s + REPORTS) - before)
        return True
    if command == RESET_BREAKER:
        store64(s + TRIPPED, 0)
        return True
    if command in (LOWER_LIMIT, RAISE_LIMIT):
        return _set_budget(s, answer, message, account, codes)
    if command > RESET_THROTTLE:
        return False
    everybody = (flags & FLAG_ALL_ACCOUNTS) != 0
    if command == SET_POSITION:
        return first == symbol and last == symbol + 1 and not everybody and _set_position(
            s, symbol, account, value, wire64(message + M_STOP)
        )  # fmt: skip
    if command == SET_LIMIT and (limit < SYMBOL_LIMITS or limit >= ACCOUNT_LIMITS):
        return _set_limit(s, limit, value, first, last, 0, 0)
    low, high = 0, load64(s + ACCOUNTS)
    if not everybody:
        head = enter(s, EVERY_SYMBOL, account)
        low = 0 if head == NONE else load64(record_at(s, head))
        high = low if head == NONE else low + 1
    if command == SET_LIMIT:
        return _set_limit(s, limit, value, 0, 0, low, high)
    if command in (KILL, REVIVE):
        return _kill(s, answer, command == KILL, account, everybody, low, high)
    if command in (REDUCING_ONLY, RELEASE):
        return _set_flag(s, IS_REDUCING, command == REDUCING_ONLY, low, high)
    if command == SET_CAPITAL:
        return high == low + 1 and not everybody and _set_capital(s, low, value)
    return _set_flag(s, IS_THROTTLED, False, low, high)


@compiled
def _trip(s: int) -> None:
    store64(s + TRIPPED, 1)
    cancel_many(s, 0, fixed64(s + N_SYMBOLS), 0, 1, BY_BREAKER)


@inlined
def watch_breaker(s: int) -> None:
    """Trips the breaker when the portfolio has lost its share of the capital."""
    ppm = load64(s + BREAKER_PPM)
    if ppm >= 0 and load64(s + TRIPPED) == 0:
        capital = load_real(s + PORTFOLIO_CAPITAL)
        if capital > 0.0 and load_real(s + PORTFOLIO_RESULT) < -(capital * float(ppm) / 1e6):
            _trip(s)
