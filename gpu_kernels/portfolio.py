"""Positions in columns: options, and beside them spot and futures positions (``linear``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_kernels.columns import common_length, index_column, real_column
from gpu_kernels.dividend_schedules import CashDividends
from gpu_kernels.errors import InvalidInput
from gpu_kernels.linear_positions import LinearPositions
from gpu_kernels.options import Options

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Group numbers may leave out so many beyond the rows there are: each number is a row of the sums by group.
EMPTY_GROUPS_MAX = 1 << 16


LinearLike = LinearPositions | Mapping[str, Any]


class Portfolio:
    """A book of positions, validated; rows keep their order, options first, then linear positions.

    ``underlying`` counts the columns of the scenarios; ``group`` is a number 0..G-1 per row (desk, book or
    strategy). ``linear`` is a LinearPositions or a mapping of its columns (underlying, quantity, multiplier,
    spot; when ``group`` is given, group; of futures also expiry, rate, dividend_yield, dividends). The
    columns are copies and cannot be changed afterwards. ``dividends`` are those of the options that carry
    some before their expiry, None where none does.
    """

    dividends: CashDividends | None
    paying: NDArray[np.bool_]  # option rows with dividends before their expiry

    def __init__(
        self,
        options: Options | None = None,
        quantity: ArrayLike = (),
        multiplier: ArrayLike = 1.0,
        underlying: ArrayLike = 0,
        group: ArrayLike | None = None,
        linear: LinearLike | None = None,
    ) -> None:
        self.linear = _linear(linear)
        count = _option_rows(options, quantity, multiplier, underlying)
        self.quantity = real_column(quantity, "quantity", count)
        self.multiplier = real_column(multiplier, "multiplier", count)
        self.underlying = index_column(underlying, "underlying", count)
        self._take_options(options, count)
        self.group = self._groups(group, count)
        self.groups = _group_count(self.group)
        self.underlyings = self._highest_underlying() + 1
        self.carry = self._carry()
        for column in self._columns():
            column.setflags(write=False)

    def _take_options(self, options: Options | None, count: int) -> None:
        given = _option_fields(options)
        self.spot = _positive(given, "spot", count)
        self.strike = _positive(given, "strike", count)
        self.expiry = _positive(given, "expiry", count)
        self.vol = _positive(given, "vol", count)
        self.rate = real_column(given["rate"], "rate", count)
        self.dividend_yield = real_column(given["dividend_yield"], "dividend_yield", count)
        self.is_call = _flags(given, "is_call", count)
        self.american = _flags(given, "american", count)
        self._take_dividends(None if options is None else options.dividends)

    def _take_dividends(self, dividends: CashDividends | None) -> None:
        """Keeps a schedule for each row, and which rows have dividends that count."""
        count = len(self.quantity)
        if dividends is not None:
            self.paying = np.diff(dividends.within(self.expiry).offsets) > 0
            if self.paying.any():
                self.dividends = dividends.rows(slice(None), count)
                return
        self.dividends, self.paying = None, np.zeros(count, np.bool_)

    def _groups(self, group: ArrayLike | None, count: int) -> Integers | None:
        """One group number per row, options first, then linear positions."""
        extra = len(self.linear)
        if group is None:
            if self.linear.group is not None and count:
                raise InvalidInput("group", "is missing, while linear has groups")
            return self.linear.group
        if (
            np.ndim(group) == 1
            and np.shape(group)[0] == count + extra
            and extra
            and self.linear.group is None
        ):
            return index_column(group, "group", count + extra)
        own = index_column(group, "group", count)
        if not extra:
            return own
        if self.linear.group is None:
            raise InvalidInput("linear.group", "is missing, while the options have groups")
        return np.concatenate([own, self.linear.group])

    def _carry(self) -> Floats:
        """What every linear position's price gains per unit that its underlying's spot gains.

        Of a future with terms the cost of carry says it. Else it is the price over the spot of the
        underlying's options, and 1 where there are none.
        """
        spot, linear = np.zeros(self.underlyings), self.linear
        spot[self.underlying] = self.spot
        known = spot[linear.underlying]
        over_spot = np.divide(linear.spot, known, out=np.ones(len(linear)), where=known > 0.0)
        return np.where(linear.expiry > 0.0, linear.growth, over_spot)

    def _highest_underlying(self) -> int:
        return int(max(self.underlying.max(initial=-1), self.linear.underlying.max(initial=-1)))

    def _columns(self) -> list[NDArray[np.generic]]:
        held = [*vars(self).values(), *vars(self.linear).values()]
        return [column for column in held if isinstance(column, np.ndarray)]

    @property
    def apart(self) -> NDArray[np.bool_]:
        """Option rows for which Black-Scholes at the spot will not do: American, or with dividends."""
        return self.american if self.dividends is None else self.american | self.paying

    @property
    def options(self) -> int:
        """Number of option rows."""
        return len(self.quantity)

    def __len__(self) -> int:
        return len(self.quantity) + len(self.linear)

    @property
    def position_underlying(self) -> Integers:
        """Underlying of every row, options first, then linear positions."""
        return np.concatenate([self.underlying, self.linear.underlying])

    def with_spots(self, spots: ArrayLike) -> Portfolio:
        """The same positions with every row's spot taken from ``spots`` (U,) by its underlying.

        A future without terms keeps its ``carry``: it stays as far above its spot as it was.
        """
        values = np.asarray(spots, dtype=np.float64)
        if values.ndim != 1 or len(values) < self.underlyings:
            raise InvalidInput(
                "spots", f"must have one entry per underlying ({self.underlyings}), got shape {values.shape}"
            )
        bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0.0)))
        if bad.size:
            raise InvalidInput("spots", f"is {values[bad[0]]}", int(bad[0]))
        moved = object.__new__(Portfolio)
        moved.__dict__.update(self.__dict__)
        moved.spot = values[self.underlying]
        moved.linear = self.linear.at_spots(values[self.linear.underlying], self.carry)
        return moved

    def ungrouped(self) -> Portfolio:
        """The same positions without groups."""
        return self if self.group is None else self._changed(group=None, groups=0)

    def with_vols(self, vols: Floats) -> Portfolio:
        """The same positions at other vols, one per option row."""
        return self._changed(vol=real_column(vols, "vols", self.options))

    def europeans(self) -> Portfolio:
        """The same positions without the right of early exercise."""
        return self._changed(american=np.zeros(self.options, dtype=bool))

    def without_dividends(self) -> Portfolio:
        """The same positions on stocks that pay nothing."""
        return self._changed(dividends=None, paying=np.zeros(self.options, np.bool_))

    def _changed(self, **columns: object) -> Portfolio:
        other = object.__new__(Portfolio)
        other.__dict__.update(self.__dict__)
        other.__dict__.update(columns)
        return other

    def rows(self, chosen: NDArray[np.bool_] | Integers) -> Portfolio:
        """The positions in ``chosen`` (mask or row numbers over options, then linear), in their order."""
        numbers: Integers = np.arange(len(self), dtype=np.int64)[chosen]
        numbers.sort()
        options = numbers[numbers < self.options]
        linear = numbers[numbers >= self.options] - self.options
        part = object.__new__(Portfolio)
        part.__dict__.update(self.__dict__)
        for name in _OPTION_COLUMNS:
            setattr(part, name, getattr(self, name)[options])
        if self.dividends is not None:
            some = bool(part.paying.any())
            part.dividends = self.dividends.rows(options, self.options) if some else None
        part.group = None if self.group is None else self.group[numbers]
        part.carry = self.carry[linear]
        part.linear = self.linear.rows(linear)
        part.underlyings = part._highest_underlying() + 1
        return part


_OPTION_COLUMNS = (
    *("quantity", "multiplier", "underlying", "spot", "strike", "expiry", "vol"),
    *("rate", "dividend_yield", "is_call", "american", "paying"),
)


def _linear(linear: LinearLike | None) -> LinearPositions:
    if linear is None:
        empty = np.empty(0)
        return LinearPositions.of(underlying=np.empty(0, np.int64), quantity=empty, spot=empty)
    if isinstance(linear, LinearPositions):
        return linear
    if not isinstance(linear, Mapping):
        raise InvalidInput(
            "linear", f"must be LinearPositions or a mapping of its columns, got {type(linear).__name__}"
        )
    unknown = set(linear) - {field.name for field in fields(LinearPositions)}
    missing = {"underlying", "quantity", "spot"} - set(linear)
    if unknown or missing:
        what = f"has no column {min(missing)!r}" if missing else f"has an unknown column {min(unknown)!r}"
        raise InvalidInput("linear", f"{what}")
    return LinearPositions.of(**linear)


def _group_count(group: Integers | None) -> int:
    """G of groups 0..G-1; some may be empty, but not so many that sums by group would fill the memory."""
    if group is None:
        return 0
    most = len(group) + EMPTY_GROUPS_MAX
    bad = np.flatnonzero(group >= most)
    if bad.size:
        raise InvalidInput(
            "group",
            f"is {group[bad[0]]}: groups count from 0, below {most} for {len(group)} rows",
            int(bad[0]),
        )
    return int(group.max(initial=-1)) + 1


def _option_rows(
    options: Options | None, quantity: ArrayLike, multiplier: ArrayLike, underlying: ArrayLike
) -> int:
    if options is None:
        if np.size(quantity):
            raise InvalidInput("quantity", "is given without options")
        return 0
    if np.shape(quantity) == (0,):
        if len(options) == 0:
            return 0
        raise InvalidInput("quantity", "is missing or empty")
    if len(options) != 1:
        return len(options)
    return common_length(quantity=quantity, multiplier=multiplier, underlying=underlying)


def _option_fields(options: Options | None) -> dict[str, ArrayLike]:
    names = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield", "is_call", "american")
    if options is None:
        return {name: False if name in ("is_call", "american") else 0.0 for name in names}
    return {name: np.asarray(options.column(name)) for name in names}


def _positive(given: dict[str, ArrayLike], field: str, count: int) -> Floats:
    """A column that may be zero but not negative."""
    column = real_column(given[field], field, count)
    bad = np.flatnonzero(column < 0.0)
    if bad.size:
        raise InvalidInput(field, f"must not be negative, got {column[bad[0]]}", int(bad[0]))
    return column


def _flags(given: dict[str, ArrayLike], field: str, count: int) -> NDArray[np.bool_]:
    raw = np.asarray(given[field])
    if raw.ndim > 1 or (raw.ndim == 1 and raw.shape[0] not in (1, count)):
        raise InvalidInput(field, f"must have shape ({count},) or be a scalar, got {raw.shape}")
    return np.array(np.broadcast_to(raw, (count,)), dtype=np.bool_, order="C")
