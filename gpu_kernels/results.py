"""Named records of arrays that engines answer with; pass one back as `out=` to reuse its buffers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.errors import InvalidInput

# Device engines put their own array type here; it has shape, dtype and flags like NumPy's.
FloatArray = NDArray[np.float64]
StatusArray = NDArray[np.uint8]

ResultT = TypeVar("ResultT", bound="Result")


@dataclass(frozen=True, slots=True)
class Result:
    """A record of float64 columns and one column of `Status` numbers (uint8), all of the same shape."""

    COLUMNS: ClassVar[tuple[str, ...]] = ()

    def columns(self) -> tuple[Any, ...]:
        """The arrays, in the order of the fields."""
        return tuple(getattr(self, name) for name in self.COLUMNS)


@dataclass(frozen=True, slots=True)
class PriceResult(Result):
    """Value of one option each, in the currency of spot and strike."""

    price: FloatArray
    status: StatusArray
    COLUMNS: ClassVar[tuple[str, ...]] = ("price", "status")


@dataclass(frozen=True, slots=True)
class GreeksResult(Result):
    """Value and plain partial derivatives: per 1.00 of spot, vol and rate, per year of time passing."""

    price: FloatArray
    delta: FloatArray  # dV/dS
    gamma: FloatArray  # d2V/dS2
    vega: FloatArray  # dV/dvol
    theta: FloatArray  # -dV/dT
    rho: FloatArray  # dV/dr
    vanna: FloatArray  # d delta/dvol
    volga: FloatArray  # d vega/dvol
    charm: FloatArray  # -d delta/dT
    status: StatusArray
    COLUMNS: ClassVar[tuple[str, ...]] = (
        "price",
        "delta",
        "gamma",
        "vega",
        "theta",
        "rho",
        "vanna",
        "volga",
        "charm",
        "status",
    )


@dataclass(frozen=True, slots=True)
class ImpliedVolResult(Result):
    """Annual volatility that reprices each option; NaN wherever the status is not OK."""

    vol: FloatArray
    status: StatusArray
    COLUMNS: ClassVar[tuple[str, ...]] = ("vol", "status")


def checked_out(kind: type[ResultT], out: ResultT, shape: tuple[int, ...]) -> ResultT:
    """`out` itself if results of this shape fit in it; raises InvalidInput naming the column if not."""
    if not isinstance(out, kind):
        raise InvalidInput("out", f"expected a {kind.__name__}, got {type(out).__name__}")
    for name in kind.COLUMNS:
        array: Any = getattr(out, name)
        wanted = "uint8" if name == "status" else "float64"
        if getattr(array, "dtype", None) != wanted:
            raise InvalidInput(f"out.{name}", f"expected an array of {wanted}")
        if array.shape != shape:
            raise InvalidInput(f"out.{name}", f"expected shape {shape}, got {array.shape}")
        if not array.flags.c_contiguous:
            raise InvalidInput(f"out.{name}", "expected a C-contiguous array")
        if not getattr(array.flags, "writeable", True):
            raise InvalidInput(f"out.{name}", "the array is read-only")
    return out


def check_apart(inputs: dict[str, Any], out: Result) -> None:
    """Raise InvalidInput if a column of `out` shares memory with an input or with another of its columns."""
    arrays = (*inputs.values(), *out.columns())
    # Different arrays that own their memory have nothing in common: the usual case, found in little time.
    if all(array.base is None for array in arrays):
        places = [id(array) for array in arrays]
        if len(set(places[len(inputs) :]).difference(places[: len(inputs)])) == len(out.COLUMNS):
            return
    spans = [(*_span(array), name, False) for name, array in inputs.items()]
    spans += [(*_span(array), f"out.{name}", True) for name, array in zip(out.COLUMNS, out.columns())]
    spans.sort()
    # The input and the output that reach furthest of those that begin before.
    read, written = (0, ""), (0, "")
    for start, stop, name, is_out in spans:
        if start == stop:
            continue
        for end, other in (read, written) if is_out else (written,):
            if start < end:
                first, second = (name, other) if is_out else (other, name)
                raise InvalidInput(first, f"shares memory with {second}")
        if is_out:
            written = max(written, (stop, name))
        else:
            read = max(read, (stop, name))


def _span(array: Any) -> tuple[int, int]:
    """Where a contiguous array begins and ends, on its device."""
    seen = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    start = seen["data"][0]
    return start, start + array.nbytes
