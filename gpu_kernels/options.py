"""Options as columns: one validated array per field, broadcast together, rows in the caller's order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpu_kernels.dividend_schedules import CashDividends
from gpu_kernels.errors import InvalidInput

NUMERIC_FIELDS = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield")
FLAG_FIELDS = ("is_call", "american")


class Options:
    """Columns of options. Expiry in years; vol, rate and yield per year, continuous; any mix of scalars and
    arrays.

    Every field is kept as a float64 (or bool) array of either the full shape or one element; `shape` is the
    broadcast shape and `size` its number of rows. Arrays that already live on a CUDA device stay there.
    Values are not judged here: a NaN or a negative spot is a bad row, and gets its status when priced.

    `dividends` are cash dividends, one schedule per row or one for all (`CashDividends`). The options are
    then valued in the escrowed model: what is left of the spot when the dividends until expiry, discounted at
    rate less yield, are taken out of it is log-normal with this vol.
    """

    __slots__ = (
        "american",
        "dividend_yield",
        "dividends",
        "expiry",
        "is_call",
        "rate",
        "shape",
        "size",
        "spot",
        "strike",
        "vol",
    )

    spot: Any
    strike: Any
    expiry: Any
    vol: Any
    rate: Any
    dividend_yield: Any
    is_call: Any
    american: Any
    dividends: CashDividends | None
    shape: tuple[int, ...]
    size: int

    def __init__(
        self,
        *,
        spot: Any,
        strike: Any,
        expiry: Any,
        vol: Any = math.nan,
        rate: Any = 0.0,
        dividend_yield: Any = 0.0,
        is_call: Any = True,
        american: Any = False,
        dividends: CashDividends | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "spot", _numbers("spot", spot))
        put(self, "strike", _numbers("strike", strike))
        put(self, "expiry", _numbers("expiry", expiry))
        put(self, "vol", _numbers("vol", vol))
        put(self, "rate", _numbers("rate", rate))
        put(self, "dividend_yield", _numbers("dividend_yield", dividend_yield))
        put(self, "is_call", _flags("is_call", is_call))
        put(self, "american", _flags("american", american))
        shape: tuple[int, ...] = ()
        for name in (*NUMERIC_FIELDS, *FLAG_FIELDS):
            one = getattr(self, name).shape
            if one != shape and one != ():
                shape = _joined(name, shape, one)
        put(self, "shape", shape)
        put(self, "size", math.prod(shape))
        for name in (*NUMERIC_FIELDS, *FLAG_FIELDS):
            array = getattr(self, name)
            if array.shape != shape and array.size != 1:
                put(self, name, _spread(array, shape))
        put(self, "dividends", dividends if dividends is None else _schedules(dividends, self.size))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Options is read-only: {name}")

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"Options(shape={self.shape})"

    def rows(self, index: Any) -> Options:
        """The options of some rows (integer or boolean index into the flattened rows), one dimension."""
        fields = {name: self.column(name)[index] for name in (*NUMERIC_FIELDS, *FLAG_FIELDS)}
        if self.dividends is not None:
            fields["dividends"] = self.dividends.rows(index, self.size)
        return Options(**fields)

    def column(self, name: str) -> Any:
        """One field as a flat array of `size` elements; a one-element field comes as a broadcast view."""
        array = getattr(self, name)
        if array.size == self.size:
            return array.reshape(-1)
        return _spread_view(array.reshape(-1), (self.size,))

    def replace(self, **changes: Any) -> Options:
        """A copy with some fields changed."""
        fields = {name: getattr(self, name) for name in (*NUMERIC_FIELDS, *FLAG_FIELDS, "dividends")}
        unknown = changes.keys() - fields.keys()
        if unknown:
            raise InvalidInput(min(unknown), "no such field of Options")
        if self.dividends is None or "dividends" in changes:
            return Options(**(fields | changes))
        plain = Options(**(fields | changes | {"dividends": None}))
        return plain.replace(dividends=self._spread_dividends(plain.shape))

    def _spread_dividends(self, shape: tuple[int, ...]) -> CashDividends | None:
        """The dividends for these options spread to another shape."""
        held = self.dividends
        if held is None or shape == self.shape or len(held) == 1:
            return held
        place = np.arange(self.size).reshape(self.shape)
        return held.rows(np.broadcast_to(place, shape).reshape(-1), self.size)


def _schedules(dividends: Any, size: int) -> CashDividends:
    if not isinstance(dividends, CashDividends):
        raise InvalidInput("dividends", f"expected CashDividends, got {type(dividends).__name__}")
    if len(dividends) not in (1, size):
        raise InvalidInput("dividends", f"for {len(dividends)} options, but there are {size}")
    return dividends


def numbers(field: str, value: Any) -> Any:
    """`value` as a C-contiguous float64 array on its device; raises InvalidInput naming the field."""
    return _numbers(field, value)


def _numbers(field: str, value: Any) -> Any:
    if type(value) is float:
        return np.array(value)
    array = value if _is_device_array(value) else _host_array(field, value)
    if array.dtype != np.float64:
        if array.dtype.kind not in "iuf":
            raise InvalidInput(field, f"expected numbers, got {array.dtype}")
        array = array.astype(np.float64)
    return array if array.flags.c_contiguous else array.copy(order="C")


def _flags(field: str, value: Any) -> Any:
    if value is True:
        return _TRUE
    if value is False:
        return _FALSE
    array = value if _is_device_array(value) else _host_array(field, value)
    if array.dtype != np.bool_:
        raise InvalidInput(field, f"expected booleans, got {array.dtype}")
    return array if array.flags.c_contiguous else array.copy(order="C")


def _host_array(field: str, value: Any) -> Any:
    if value is None:
        raise InvalidInput(field, "missing")
    if isinstance(value, np.ma.MaskedArray):
        return _unmasked(field, value)
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InvalidInput(field, f"not an array: {error}") from error


def _unmasked(field: str, value: Any) -> Any:
    """A masked number is NaN: its row is a bad one. A flag has no such value."""
    if not np.ma.is_masked(value):
        return value.data
    if value.dtype.kind not in "iuf":
        raise InvalidInput(field, "has masked elements")
    return value.astype(np.float64).filled(np.nan)


def _is_device_array(value: Any) -> bool:
    return hasattr(value, "__cuda_array_interface__")


def _joined(field: str, shape: tuple[int, ...], one: tuple[int, ...]) -> tuple[int, ...]:
    if not shape:
        return one
    try:
        return np.broadcast_shapes(shape, one)
    except ValueError as error:
        raise InvalidInput(field, f"shape {one} does not broadcast with {shape}") from error


def _spread_view(array: Any, shape: tuple[int, ...]) -> Any:
    # NumPy hands device arrays on to their own library (__array_function__).
    return np.broadcast_to(array, shape)


def _spread(array: Any, shape: tuple[int, ...]) -> Any:
    return _spread_view(array, shape).copy(order="C")


_TRUE = np.array(True)
_FALSE = np.array(False)
