"""The portfolios that the service holds: checked once when they come in, versioned, in columns."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import osi, packing
from protos.risk.v1.risk_pb2 import (
    INSTRUMENT_KIND_OPTION,
    INSTRUMENT_KIND_SPOT,
    InstrumentKind,
    Limits,
    Portfolio,
)
from risk_service.held_dividends import HeldDividends
from service_kit.errors import AlreadyChanged, InvalidRequest, NotFound

POSITIONS_MAX = 1_000_000  # in one portfolio; more would not fit one record of the log
MULTIPLIER_MAX = 1e9  # beyond these it is a mistake of units
STRIKE_MAX = 1e12  # currency
QUANTITY_MAX = 1e12  # of one position, either way; sums and squares of such books stay finite
NAME_LENGTH_MAX = 200  # characters of a portfolio's name, which is its key on Kafka, and of every other name
STRIKE_STEP = 1e-3  # an OSI symbol has a strike's first three decimals

_COLUMNS = (
    "underlying_index",
    "kind",
    "quantity",
    "multiplier",
    "expiry_time_ns",
    "strike",
    "is_call",
    "american",
    "group_index",
)


@dataclass(frozen=True, slots=True)
class HeldPortfolio:
    """A portfolio that passed every check. Arrays have one entry per position and are not written to."""

    name: str
    version: int
    owner: str
    underlyings: tuple[str, ...]
    groups: tuple[str, ...]
    symbols: tuple[str, ...]
    underlying_index: NDArray[np.int64]
    kind: NDArray[np.int32]
    quantity: NDArray[np.float64]
    multiplier: NDArray[np.float64]
    expiry_time_ns: NDArray[np.int64]
    strike: NDArray[np.float64]
    is_call: NDArray[np.bool_]
    american: NDArray[np.bool_]
    group_index: NDArray[np.int64]
    limits: Limits
    dividends: HeldDividends = field(default_factory=HeldDividends)

    @property
    def is_option(self) -> NDArray[np.bool_]:
        """Which positions are options."""
        options: NDArray[np.bool_] = self.kind == INSTRUMENT_KIND_OPTION
        return options

    def rows_of_fills(self) -> dict[str, int]:
        """The position that fills in each symbol add to; those in an underlying never to its future."""
        named, kinds = frozenset(self.underlyings), self.kind.tolist()
        return {
            symbol: row
            for row, symbol in reversed(list(enumerate(self.symbols)))
            if symbol not in named or kinds[row] == INSTRUMENT_KIND_SPOT
        }

    def __len__(self) -> int:
        return len(self.symbols)


def check(message: Portfolio) -> HeldPortfolio:
    """Reads a portfolio; anything wrong raises InvalidRequest naming field and row."""
    name = message.portfolio
    if not name or len(name) > NAME_LENGTH_MAX or not name.isprintable():
        raise InvalidRequest("portfolio", f"needs a printable name of 1 to {NAME_LENGTH_MAX} characters")
    if name != name.strip():
        raise InvalidRequest("portfolio", "must not begin or end with a blank: nobody could see it")
    _check_table("underlyings", message.underlyings)
    _check_table("groups", message.groups)
    positions = message.positions
    rows = len(positions.symbol)
    if rows > POSITIONS_MAX:
        raise InvalidRequest("positions.symbol", f"{rows} positions are more than {POSITIONS_MAX}")
    _check_names("positions.symbol", positions.symbol)
    columns = _read_columns(positions, rows)
    held = HeldPortfolio(
        name=name,
        version=message.version,
        owner=message.owner,
        underlyings=tuple(message.underlyings),
        groups=tuple(message.groups),
        symbols=tuple(positions.symbol),
        limits=message.limits,
        dividends=HeldDividends.read(message.dividends, len(message.underlyings)),
        **columns,
    )
    _check_places(held)
    _check_numbers(held)
    _check_option_symbols(held)
    _check_limits(message.limits)
    return held


def _read_columns(positions: Any, rows: int) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {}
    for name in _COLUMNS:
        try:
            default = 1.0 if name == "multiplier" else None
            columns[name] = packing.column(positions, name, rows, default)
        except packing.PackingError as fault:
            raise InvalidRequest(f"positions.{name}", fault.why) from fault
    # Left out they would be a book of nothing, or of puts.
    if rows and not positions.quantity:
        raise InvalidRequest("positions.quantity", "is missing")
    if INSTRUMENT_KIND_OPTION in columns["kind"] and not positions.is_call:
        raise InvalidRequest("positions.is_call", "is missing, and there are options")
    for name in ("underlying_index", "group_index"):
        columns[name] = columns[name].astype(np.int64)
    return columns


def _check_table(field_name: str, names: Any) -> None:
    _check_names(field_name, names)
    seen: set[str] = set()
    for row, name in enumerate(names):
        if name in seen:
            raise InvalidRequest(field_name, f"names {name!r} twice", row)
        seen.add(name)


def _check_names(field_name: str, names: Any) -> None:
    for row, name in enumerate(names):
        if not name:
            raise InvalidRequest(field_name, "is empty", row)
        if len(name) > NAME_LENGTH_MAX or not name.isprintable():
            raise InvalidRequest(
                field_name, f"must be printable and at most {NAME_LENGTH_MAX} characters", row
            )


def _check_places(held: HeldPortfolio) -> None:
    _refuse(
        "positions.underlying_index", held.underlying_index >= len(held.underlyings), "is outside underlyings"
    )
    # A portfolio without groups may leave the column out; then every index is 0 and means nothing.
    if held.groups or held.group_index.any():
        _refuse("positions.group_index", held.group_index >= len(held.groups), "is outside groups")


def _check_numbers(held: HeldPortfolio) -> None:
    kinds = (held.kind < 0) | (held.kind >= len(InstrumentKind.keys()))
    _refuse("positions.kind", kinds, "is no kind of instrument")
    # Written so that NaN is refused too.
    too_many = ~(np.abs(held.quantity) <= QUANTITY_MAX)
    _refuse("positions.quantity", too_many, f"must be finite and at most {QUANTITY_MAX:g} either way")
    bad_multiplier = ~((held.multiplier > 0.0) & (held.multiplier <= MULTIPLIER_MAX))
    _refuse("positions.multiplier", bad_multiplier, f"must be positive and at most {MULTIPLIER_MAX:g}")
    bad_strike = held.is_option & ~((held.strike > 0.0) & (held.strike <= STRIKE_MAX))
    _refuse("positions.strike", bad_strike, f"must be positive and at most {STRIKE_MAX:g}")
    dated = held.kind != INSTRUMENT_KIND_SPOT
    _refuse("positions.expiry_time_ns", dated & (held.expiry_time_ns <= 0), "is missing")


def _check_option_symbols(held: HeldPortfolio) -> None:
    """Quotes are found by the symbol and values worked out from the columns: both must say the same."""
    options = np.flatnonzero(held.is_option)
    said = osi.parse_many([held.symbols[row] for row in options.tolist()])
    found = said.found
    options = options[found]
    off_right = said.is_call[found] != held.is_call[options]
    off_strike = np.abs(said.strike[found] - held.strike[options]) > STRIKE_STEP
    off_day = ~osi.are_within(held.expiry_time_ns[options], said.expiry[found])
    off_underlying = _belied(held, said.root[found], held.underlying_index[options])
    what = "is not what the symbol says"
    for field_name, off, why in (
        ("is_call", off_right, what),
        ("strike", off_strike, what),
        ("expiry_time_ns", off_day, "is not of the day that the symbol says"),
        ("underlying_index", off_underlying, what),
    ):
        wrong = np.zeros(len(held), np.bool_)
        wrong[options] = off
        _refuse(f"positions.{field_name}", wrong, why)


def _belied(held: HeldPortfolio, root: NDArray[np.str_], underlying: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the listed root of each option names another underlying than its own."""
    others, count = frozenset(held.underlyings), max(1, len(held.underlyings))
    roots, place = np.unique(root, return_inverse=True)
    pairs, at = np.unique(place * count + underlying, return_inverse=True)
    found = [osi.belies(str(roots[one // count]), held.underlyings[one % count], others) for one in pairs]
    return np.array(found, np.bool_)[at]


def _check_limits(limits: Limits) -> None:
    for descriptor, value in limits.ListFields():
        if not (np.isfinite(value) and value >= 0.0):
            raise InvalidRequest(f"limits.{descriptor.name}", "must be a number that is not negative")
    if limits.hysteresis >= 1.0:
        raise InvalidRequest("limits.hysteresis", "must be below 1, or a breach would never end")


def _refuse(field_name: str, bad: NDArray[np.bool_], why: str) -> None:
    rows = np.flatnonzero(bad)
    if rows.size:
        raise InvalidRequest(field_name, why, int(rows[0]))


@dataclass(slots=True)
class PortfolioStore:
    """The portfolios by name. Safe to use from several threads; what it hands out never changes."""

    _held: dict[str, HeldPortfolio] = field(default_factory=dict)
    _messages: dict[str, Portfolio] = field(default_factory=dict)
    # A version goes on after a delete: a watcher must not take a new portfolio for an old one.
    _versions: dict[str, int] = field(default_factory=dict)
    # The loop reads back what a call has logged and applied, perhaps after the next change of that name.
    _offsets: dict[str, int] = field(default_factory=dict)
    _all: tuple[HeldPortfolio, ...] | None = ()
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def prepare(self, message: Portfolio, expected_version: int, owner: str) -> Portfolio:
        """The portfolio as it is to be logged: checked, with its new version and owner. Changes nothing."""
        check(message)
        with self._lock:
            self.expect(message.portfolio, expected_version)
            logged = Portfolio()
            logged.CopyFrom(message)
            logged.version = self._versions.get(message.portfolio, 0) + 1
            logged.owner = owner
            return logged

    def expect(self, name: str, version: int) -> None:
        """Refuses with AlreadyChanged where another version is held; 0 expects nothing."""
        with self._lock:
            current = self._held[name].version if name in self._held else 0
            if version and version != current:
                raise AlreadyChanged("portfolio", name, f"version {current} is there, not {version}")

    def apply(self, message: Portfolio, offset: int | None = None) -> None:
        """Takes in what the log says at `offset`; what is older than the record held changes nothing.

        Without an offset the version tells which is older. The log's last record counts, whoever wrote it:
        where its writer had not read the one before, it gets the next version, so that none is seen twice.
        """
        held = check(message)
        with self._lock:
            known = self._versions.get(held.name, 0)
            if self._is_late(held.name, offset) if offset is not None else held.version < known:
                return
            if held.version < known:
                held, message = replace(held, version=known + 1), _with_version(message, known + 1)
            self._held[held.name] = held
            self._messages[held.name] = message
            self._versions[held.name] = held.version
            self._all = None

    def apply_delete(self, name: str, offset: int | None = None) -> None:
        """Takes in a deletion that the log holds at `offset`."""
        with self._lock:
            if (offset is None or not self._is_late(name, offset)) and name in self._held:
                self._versions[name] += 1
                del self._held[name], self._messages[name]
                self._all = None

    def _is_late(self, name: str, offset: int) -> bool:
        """Whether a record of this offset, or a later one, has been taken in; a name has one partition."""
        late = offset <= self._offsets.get(name, -1)
        if not late:
            self._offsets[name] = offset
        return late

    def get(self, name: str) -> HeldPortfolio:
        """The portfolio of that name, or NotFound."""
        with self._lock:
            if name not in self._held:
                raise NotFound("portfolio", name)
            return self._held[name]

    def message(self, name: str) -> Portfolio:
        """The portfolio as it was put, with its version."""
        with self._lock:
            self.get(name)
            return self._messages[name]

    def all(self) -> tuple[HeldPortfolio, ...]:
        """Every portfolio, by name; the very same until one changes."""
        with self._lock:
            if self._all is None:
                self._all = tuple(self._held[name] for name in sorted(self._held))
            return self._all


def _with_version(message: Portfolio, version: int) -> Portfolio:
    changed = Portfolio()
    changed.CopyFrom(message)
    changed.version = version
    return changed
