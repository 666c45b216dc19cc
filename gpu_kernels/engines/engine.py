"""What every engine does in the same way: checks, broadcasting, routing of American rows, chunks, `out=`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from gpu_kernels.engines import escrowed
from gpu_kernels.engines.columns import Columns as Columns
from gpu_kernels.errors import EngineUnavailable, InvalidInput
from gpu_kernels.options import FLAG_FIELDS, NUMERIC_FIELDS, Options, numbers
from gpu_kernels.results import GreeksResult, ImpliedVolResult, PriceResult, Result, check_apart, checked_out

if TYPE_CHECKING:
    from gpu_kernels.portfolio import Portfolio
    from gpu_kernels.scenarios import Scenarios

AmericanMethod = Literal["accurate", "fast"]
AMERICAN_METHODS = ("accurate", "fast")
FIELDS = (*NUMERIC_FIELDS, *FLAG_FIELDS)

ResultT = TypeVar("ResultT", bound=Result)


class Engine:
    """Prices batches of options on one device. Thread-safe; the same inputs give the same bits.

    `name` is "cuda", "cpu", "xla" or "reference"; `device` says what it runs on.
    """

    def __init__(self, name: str, device: str, backend: ModuleType) -> None:
        self.name = name
        self.device = device
        self._backend = backend

    def __repr__(self) -> str:
        return f"Engine({self.name!r}, device={self.device!r})"

    def price(
        self,
        options: Options,
        *,
        american_method: AmericanMethod = "accurate",
        out: PriceResult | None = None,
    ) -> PriceResult:
        """Value of each option, in the currency of its spot and strike."""
        _check_method(american_method)
        result = self._result(PriceResult, options, out)
        if options.dividends is not None:
            return escrowed.price(self, options, american_method, result)
        american = _american_rows(options)
        if american is not True:
            self._in_chunks(self._european, self._european.price, _columns(options), (), result)
        if american is not False:
            call = self._american.price
            self._american_part(self._american, call, options, american, (), american_method, result)
        return result

    def greeks(
        self,
        options: Options,
        *,
        american_method: AmericanMethod = "accurate",
        out: GreeksResult | None = None,
    ) -> GreeksResult:
        """Value and eight partial derivatives of each option, in one pass."""
        _check_method(american_method)
        result = self._result(GreeksResult, options, out)
        if options.dividends is not None:
            return escrowed.greeks(self, options, american_method, result)
        american = _american_rows(options)
        if american is not True:
            self._in_chunks(self._european, self._european.greeks, _columns(options), (), result)
        if american is not False:
            call = self._american.greeks
            self._american_part(self._american, call, options, american, (), american_method, result)
        return result

    def implied_vol(
        self,
        options: Options,
        price: Any,
        *,
        american_method: AmericanMethod = "accurate",
        out: ImpliedVolResult | None = None,
    ) -> ImpliedVolResult:
        """Annual volatility at which each option is worth `price`; `options.vol` is not read."""
        _check_method(american_method)
        prices = numbers("price", price)
        options = _joined(options, prices)
        if prices.shape != options.shape:
            prices = prices if prices.size == 1 else np.broadcast_to(prices, options.shape).copy()
        result = self._result(ImpliedVolResult, options, out, prices)
        prices = prices.reshape(-1)
        if options.dividends is not None:
            return escrowed.implied_vol(self, options, prices, american_method, result)
        american = _american_rows(options)
        if american is not True:
            module = self._implied_vol
            self._in_chunks(module, module.implied_vol, _columns(options), (prices,), result)
        if american is not False:
            call = self._american.implied_vol
            self._american_part(self._american, call, options, american, (prices,), american_method, result)
        return result

    def revalue(
        self,
        portfolio: Portfolio,
        scenarios: Scenarios,
        *,
        by: Literal["group"] | None = None,
        out: Any = None,
    ) -> Any:
        """Value under each scenario minus today's value, in currency: (S,), or (G, S) with by="group"."""
        return self._revaluation.revalue(self, portfolio, scenarios, by, out)

    def warm_up(self) -> None:
        """Compile or load every kernel now, so that the first request does not wait for it."""
        warm_up = getattr(self._backend, "warm_up", None)
        if warm_up is not None:
            warm_up()

    def module(self, name: str) -> ModuleType:
        """A module of this engine's backend folder; raises EngineUnavailable if the folder has none such."""
        path = f"{self._backend.__name__}.{name}"
        if find_spec(path) is None:
            raise EngineUnavailable(f"engine {self.name!r} has no {name}")
        return import_module(path)

    @cached_property
    def _european(self) -> ModuleType:
        return self.module("european")

    @cached_property
    def _implied_vol(self) -> ModuleType:
        return self.module("implied_vol")

    @cached_property
    def _american(self) -> ModuleType:
        return self.module("american")

    @cached_property
    def _revaluation(self) -> ModuleType:
        return self.module("revaluation")

    def _result(self, kind: type[ResultT], options: Options, out: ResultT | None, *more: Any) -> ResultT:
        if out is not None:
            checked_out(kind, out, options.shape)
            inputs = {name: getattr(options, name) for name in FIELDS}
            check_apart(inputs | dict(zip(("price",), more)), out)
            return out
        names = kind.COLUMNS
        empty = self._buffers(options, *more)
        return kind(*(empty(options.shape, np.uint8 if n == "status" else np.float64) for n in names))

    def _buffers(self, options: Options, *more: Any) -> Callable[[Any, Any], Any]:
        """What makes arrays for results: on the device where a column is, else in host memory."""
        for name in FIELDS:
            array = getattr(options, name)
            if type(array) is not np.ndarray and hasattr(array, "__cuda_array_interface__"):
                return self._device_buffers(name)
        if any(hasattr(array, "__cuda_array_interface__") for array in more):
            return self._device_buffers("price")
        return np.empty

    def _device_buffers(self, field: str) -> Callable[[Any, Any], Any]:
        empty = getattr(self._backend, "empty", None)
        if empty is None:
            raise InvalidInput(field, f"is on a CUDA device, engine {self.name!r} takes host memory only")
        return partial(empty, on_device=True)

    def _in_chunks(
        self,
        module: ModuleType,
        call: Callable[..., None],
        columns: Columns,
        extra: tuple[Any, ...],
        out: Result,
    ) -> None:
        """Call a backend's function on all rows, cut into pieces of at most its CHUNK_ROWS."""
        flat = _flat(out)
        size = flat.status.size  # type: ignore[attr-defined]
        step = getattr(module, "CHUNK_ROWS", size)
        if size <= step:
            call(columns, *extra, flat)
            return
        for start in range(0, size, step):
            stop = min(start + step, size)
            more = (array if array.size == 1 else array[start:stop] for array in extra)
            part = type(flat)(*(array[start:stop] for array in flat.columns()))
            call(columns.slice(start, stop), *more, part)

    def _american_part(
        self,
        module: ModuleType,
        call: Callable[..., None],
        options: Options,
        rows: Any,
        extra: tuple[Any, ...],
        method: AmericanMethod,
        out: Result,
    ) -> None:
        """Price the American rows on their own and put the results where they belong."""

        def with_method(columns: Columns, *rest: Any) -> None:
            call(columns, *rest[:-1], method, rest[-1])

        if rows is True:
            self._in_chunks(module, with_method, _columns(options), extra, out)
            return
        index = np.flatnonzero(rows)
        chosen = _columns(options.rows(index))
        more = tuple(array if array.size == 1 else array[index] for array in extra)
        empty = self._buffers(options, *extra)
        part = type(out)(*(empty((index.size,), array.dtype) for array in out.columns()))
        self._in_chunks(module, with_method, chosen, more, part)
        for target, source in zip(_flat(out).columns(), part.columns(), strict=True):
            target[index] = source


def _check_method(method: str) -> None:
    if method not in AMERICAN_METHODS:
        raise InvalidInput("american_method", f'expected "accurate" or "fast", got {method!r}')


def _columns(options: Options) -> Columns:
    o = options
    fields = (o.spot, o.strike, o.expiry, o.vol, o.rate, o.dividend_yield, o.is_call)
    return Columns(*[array if array.ndim == 1 else array.reshape(-1) for array in fields])


def _flat(out: ResultT) -> ResultT:
    # Flat already, as of any request over gRPC: of one row a copy of the record costs more than the kernel.
    if len(out.status.shape) == 1:  # type: ignore[attr-defined]
        return out
    return type(out)(*(array.reshape(-1) for array in out.columns()))


def _american_rows(options: Options) -> Any:
    """False: none is American; True: all are; else a flat mask."""
    flags = options.american
    if flags.size == 1:
        return bool(flags.reshape(-1)[0]) and options.size > 0
    if not flags.any():
        return False
    return True if flags.all() else flags.reshape(-1)


def _joined(options: Options, prices: Any) -> Options:
    """`options`, spread to the common shape of options and prices."""
    if prices.size == 1 and len(prices.shape) <= len(options.shape):
        return options
    if prices.shape == options.shape:
        return options
    try:
        shape = np.broadcast_shapes(options.shape, prices.shape)
    except ValueError as error:
        raise InvalidInput(
            "price", f"shape {prices.shape} does not broadcast with {options.shape}"
        ) from error
    if shape == options.shape:
        return options
    return options.replace(spot=np.broadcast_to(options.spot, shape))
