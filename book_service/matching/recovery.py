"""The logical state of an engine's memory, taken out for a snapshot and put back from one."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from book_service.matching import layout as at
from book_service.matching.kernel import SAVED_WORDS, Kernels
from book_service.matching.snapshot import Saved, SnapshotError, check_orders, number, table
from book_service.matching.storage import Storage, address

Words = NDArray[np.int64]

LARGEST_SYMBOLS: Final = 1 << 20  # four books take 768 bytes
_COUNTERS: Final = {"sequence": at.SEQUENCE, "next_age": at.NEXT_AGE}
_CLOCKS: Final = {
    "clock": at.CLOCK, "second": at.SECOND, "second_end": at.SECOND_END, "bucket": at.BUCKET,
    "killed": at.KILLED,
    "tripped": at.TRIPPED, "strict": at.STRICT, "breaker_ppm": at.BREAKER_PPM,
    "portfolio_capital": at.PORTFOLIO_CAPITAL, "portfolio_result": at.PORTFOLIO_RESULT, "turn": at.TURN,
}  # fmt: skip
_LAST: Final = [at.Y_LAST >> 3, at.Y_HAS_LAST >> 3]
# What the open orders add up to; rebuilt from them, then compared.
_OPEN: Final = [at.E_OPEN_BUY >> 3, at.E_OPEN_SELL >> 3]


def save(storage: Storage) -> Saved:
    """The logical state in an engine's memory."""
    symbols = storage.get(at.N_SYMBOLS)
    config: dict[str, Any] = {name: storage.get(offset) for name, offset in _COUNTERS.items()}
    config["symbols"] = symbols
    config["most_accounts"] = storage.get(at.MOST_ACCOUNTS)
    last = storage.symbols.reshape(symbols, -1)[:, _LAST]
    saved = Saved(config, {"last": last, "orders": storage.open_orders()})
    if config["most_accounts"]:
        config |= {name: storage.get(offset) for name, offset in _CLOCKS.items()}
        saved.tables |= {
            "limits": storage.limits,
            "accounts": storage.accounts(),
            "records": storage.records(),
        }
    return saved


def load(saved: Saved, kernels: Kernels) -> Storage:
    """New memory in a saved state; raises SnapshotError when no engine can be in it."""
    symbols = number(saved, "symbols", 1, LARGEST_SYMBOLS)
    next_age = number(saved, "next_age", 0, at.LARGEST)
    sequence = number(saved, "sequence", 0, at.LARGEST)
    most_accounts = number(saved, "most_accounts", 0, 1 << 24)
    last = table(saved, "last", 2, symbols)
    if not np.isin(last[:, 1], (0, 1)).all() or last[last[:, 1] == 0, 0].any():
        raise SnapshotError("snapshot: table 'last' holds an impossible flag")
    orders = np.ascontiguousarray(table(saved, "orders", SAVED_WORDS))
    check_orders(orders, symbols, next_age)
    storage = Storage(symbols, most_accounts)
    storage.symbols.reshape(symbols, -1)[:, _LAST] = last
    storage.set(at.SEQUENCE, sequence)
    if most_accounts:
        _load_controls(saved, storage)
    while storage.get(at.CAPACITY) <= len(orders):
        storage.set(at.LIVE, storage.get(at.CAPACITY))
        storage.grow()
    storage.set(at.LIVE, 0)
    kernels.reindex(storage.address)
    kernels.reopen(storage.address, address(orders), len(orders))
    storage.set(at.NEXT_AGE, next_age)
    if most_accounts:
        _compare_open(saved, storage)
    return storage


def _load_controls(saved: Saved, storage: Storage) -> None:
    for name, offset in _CLOCKS.items():
        # The portfolio's two sums are the bits of float64.
        low = -(1 << 63) if name.startswith("portfolio") else -1 if offset == at.BREAKER_PPM else 0
        storage.set(offset, number(saved, name, low, at.LARGEST))
    limits = table(saved, "limits", at.LIMITS_SIZE >> 3, storage.get(at.N_SYMBOLS))
    accounts = table(saved, "accounts", at.ACCOUNT_SIZE >> 3)
    records = table(saved, "records", at.RECORD_SIZE >> 3)
    _check_numbers(storage, limits, accounts, records)
    _check_links(accounts, records, storage.get(at.N_SYMBOLS))
    while (
        storage.get(at.ACCOUNT_CAPACITY) <= len(accounts)
        or storage.get(at.RECORD_CAPACITY) < len(records) + 2
    ):
        storage.set(at.ACCOUNTS, min(len(accounts), storage.get(at.ACCOUNT_CAPACITY)))
        storage.set(at.RECORDS, min(len(records), storage.get(at.RECORD_CAPACITY)))
        storage.grow()
    storage.set(at.ACCOUNTS, len(accounts))
    storage.set(at.RECORDS, len(records))
    storage.limits[:] = limits
    storage.accounts()[:] = accounts
    storage.accounts()[:, at.A_OPEN_VALUE >> 3] = 0
    storage.records()[:] = records
    storage.records()[:, _OPEN] = 0


def _require(good: Any, what: str) -> None:
    if not np.all(good):
        raise SnapshotError(f"snapshot: {what}")


def _check_numbers(storage: Storage, limits: Words, accounts: Words, records: Words) -> None:
    def column(rows: Words, offset: int) -> Words:
        found: Words = rows[:, offset >> 3]
        return found

    def within(rows: Words, offsets: tuple[int, ...], low: int, high: int, what: str) -> None:
        for offset in offsets:
            _require(
                (column(rows, offset) >= low) & (column(rows, offset) <= high), f"{what} is out of range"
            )

    within(limits, (at.C_STATIC, at.C_MOVING, at.C_BAND), -1, at.HIGHEST_PPM, "a share of a price")
    within(limits, (at.C_POSITION,), 0, at.HIGHEST_POSITION, "a position limit")
    within(limits, (at.C_VALUE,), 0, at.HIGHEST_VALUE, "a value limit")
    within(limits, (at.C_PAUSE, at.C_BUCKET, at.C_QUANTITY), 0, at.LARGEST, "a limit of a symbol")
    within(limits, (at.C_MULTIPLIER,), 1, at.HIGHEST_MULTIPLIER, "a multiplier")
    within(
        limits, (at.C_REFERENCE, at.C_MARK, at.C_HALT_PRICE), -at.HIGHEST_PRICE, at.HIGHEST_PRICE, "a price"
    )
    within(limits, (at.C_HALTED, at.C_BAND_STATE), 0, 2, "a state of a symbol")
    counts = limits[:, at.C_COUNTS >> 3 : (at.C_COUNTS >> 3) + at.BUCKETS]
    _require((counts >= 0) & (counts <= 1 << 56), "a count of trades is out of range")
    within(accounts, (at.A_POSITION,), 0, at.HIGHEST_POSITION, "a position limit")
    within(accounts, (at.A_EXPOSURE,), 0, at.HIGHEST_VALUE, "an exposure limit")
    within(accounts, (at.A_ACCOUNT,), 0, (1 << 32) - 1, "an account")
    within(records, (at.E_POSITION,), -2 * at.HIGHEST_POSITION, 2 * at.HIGHEST_POSITION, "a position")
    cash = np.ascontiguousarray(column(records, at.E_CASH)).view(np.float64)
    sums = storage.header[[at.PORTFOLIO_CAPITAL >> 3, at.PORTFOLIO_RESULT >> 3]].view(np.float64)
    _require(np.isfinite(cash), "the cash of an account is no number")
    _require(np.isfinite(sums), "the capital or the result of the portfolio is no number")


def _check_links(accounts: Words, records: Words, symbols: int) -> None:
    """Every record belongs to an account, once, and the lists are those that the order of creation makes."""
    _require(len(accounts) >= 1, "there is no account row 0")
    first = np.full(len(accounts), at.NONE)
    seen: set[tuple[int, int]] = set()
    wanted = np.full(len(records), at.NONE)
    for row, (owner, symbol, who) in enumerate(
        records[:, [at.E_ACCOUNT >> 3, at.E_SYMBOL >> 3, at.E_WHO >> 3]].tolist()
    ):
        _require(1 <= owner < len(accounts), f"record {row} belongs to no account")
        _require(0 <= symbol < symbols or symbol == at.EVERY_SYMBOL, f"record {row} has an unknown symbol")
        _require(accounts[owner, at.A_ACCOUNT >> 3] == who, f"record {row} has the wrong account")
        _require((symbol, who) not in seen, f"record {row} is there twice")
        seen.add((symbol, who))
        if symbol != at.EVERY_SYMBOL:
            wanted[row], first[owner] = first[owner], row
    heads = sum(symbol == at.EVERY_SYMBOL for symbol, _ in seen)
    _require(heads == len(accounts) - 1, "an account has no record of its own")
    _require(records[:, at.E_NEXT >> 3] == wanted, "the records are linked wrongly")
    _require(accounts[:, at.A_FIRST >> 3] == first, "the records are linked wrongly")


def _compare_open(saved: Saved, storage: Storage) -> None:
    live = storage.arrays["orders"][: storage.get(at.ORDERS_HIGH) * at.ORDER_SIZE].view(np.int32)
    _require(live.reshape(-1, at.ORDER_SIZE >> 2)[:, at.O_RECORD >> 2] != at.NONE, "an order has no account")
    _require(storage.records() == saved.tables["records"], "open quantities do not add up")
    _require(storage.accounts() == saved.tables["accounts"], "open values do not add up")
