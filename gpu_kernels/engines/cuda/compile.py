"""How the CUDA engine's kernels come about: cupyx.jit makes CUDA C++ of Python, NVRTC machine code of that.

Transpiling needs no device and no header: pointers, numbers and the functions of `prelude.cu` are all that
the generated source uses. Launching compiles for the device at hand on first use; CuPy keeps the machine code
on disk. cupyx.jit is experimental: what touches its inner parts is in this file only, and CuPy is pinned.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, NamedTuple

import cupy
import numpy as np
from cupyx import jit
from cupyx.jit import _compile, _cuda_types
from cupyx.jit._internal_types import BuiltinFunc, Constant, Data

# NumPy's typing rules: a Python float is a float64. Under the rules of mode "cuda" it would be a float32.
MODE = "numpy"
# C++17 for the tuples of the prelude. Products and sums are contracted (NVRTC's default), as on the CPU.
OPTIONS = ("-std=c++17",)
THREADS_PER_BLOCK = 128

PRELUDE = (Path(__file__).parent / "prelude.cu").read_text()


class _Restricted(_cuda_types.Ptr):  # type: ignore[misc]
    """A pointer that no other argument overlaps, so that loads may be moved ahead of stores."""

    def __init__(self, dtype: Any, constant: bool) -> None:
        super().__init__(_cuda_types.Scalar(np.dtype(dtype)))
        self._constant = "const " if constant else ""

    def __str__(self) -> str:
        return f"{self._constant}{self.child_type}* __restrict__"


# Types of kernel arguments.
COUNT = _cuda_types.Scalar(np.dtype(np.int64))
NUMBER = _cuda_types.Scalar(np.dtype(np.float64))
FLOATS = _Restricted(np.float64, constant=True)
FLAGS = _Restricted(np.bool_, constant=True)
INTEGERS = _Restricted(np.int64, constant=True)
FLOATS_OUT = _Restricted(np.float64, constant=False)
BYTES_OUT = _Restricted(np.uint8, constant=False)
# Six columns of numbers and one of flags, then the numbers that stand in for columns that do not vary.
OPTION_COLUMNS = (*[FLOATS] * 6, FLAGS, *[NUMBER] * 7)


class _Primitive(BuiltinFunc):  # type: ignore[misc]
    """A function of CUDA C++ that formulas call by a Python name; numbers in, one float64 out."""

    def __init__(self, template: str, result: Any = NUMBER) -> None:
        self._template = template
        self._result = result

    def __call__(self, *arguments: Any) -> Any:
        raise TypeError("a CUDA primitive is transpiled, not called")

    def call(self, env: Any, *arguments: Any) -> Any:
        codes = [_as_float(argument, env).code for argument in arguments]
        return Data(self._template.format(*codes), self._result)


class _Where(BuiltinFunc):  # type: ignore[misc]
    """where(condition, yes, no) as one expression; both sides have the wider of their types."""

    def __init__(self) -> None:
        pass

    def __call__(self, *arguments: Any) -> Any:
        raise TypeError("a CUDA primitive is transpiled, not called")

    def call(self, env: Any, condition: Any, yes: Any, no: Any) -> Any:
        if isinstance(condition, Constant):
            return yes if condition.obj else no
        yes, no = Data.init(yes, env), Data.init(no, env)
        kind = _cuda_types.Scalar(np.result_type(yes.ctype.dtype, no.ctype.dtype))
        return Data(f"({condition.code} ? ({kind})({yes.code}) : ({kind})({no.code}))", kind)


def _as_float(argument: Any, env: Any) -> Any:
    if isinstance(argument, Constant):
        return Data.init(Constant(float(argument.obj)), env)
    return argument


def primitive(template: str, results: int = 1) -> Any:
    """A primitive from its CUDA C++ expression, in which {0}, {1}, ... are the arguments, each used once."""
    return _Primitive(template, NUMBER if results == 1 else _cuda_types.Tuple([NUMBER] * results))


where = _Where()
not_a_number = _Primitive("not_a_number()")
# Of integers that are not negative; Python's own // is not among the functions of the prelude.
quotient = _Primitive("({0} / {1})", _cuda_types.Scalar(np.dtype(np.int64)))
# Shared memory as what a device function can take.
as_pointer = _Primitive("((double*)({0}))", _cuda_types.Ptr(NUMBER))
as_byte = _Primitive("(unsigned char)({0})", _cuda_types.Scalar(np.dtype(np.uint8)))


def device(function: Callable[..., Any]) -> Any:
    """A function that kernels and other device functions call; formulas are compiled so."""
    with warnings.catch_warnings():
        # Said once for everyone at the top of this file.
        warnings.simplefilter("ignore", FutureWarning)
        return jit.rawkernel(mode=MODE, device=True)(function)


@device
def entry(column, scalar, varies, bit, row):  # type: ignore[no-untyped-def]
    """column[row], or the scalar where the column's bit in `varies` is 0: there is no column then."""
    return column[row] if ((varies >> bit) & 1) != 0 else scalar


@device
def flag_entry(column, scalar, varies, bit, row):  # type: ignore[no-untyped-def]
    """The same for a column of flags, whose scalar is 0.0 or 1.0."""
    return column[row] if ((varies >> bit) & 1) != 0 else scalar != 0.0


@device
def option_row(  # type: ignore[no-untyped-def]
    varies, row, first, second, third, fourth, fifth, sixth, is_call,
    one_first, one_second, one_third, one_fourth, one_fifth, one_sixth, one_is_call,
):  # fmt: skip
    """The six numbers and the flag of one row of OPTION_COLUMNS."""
    return (
        entry(first, one_first, varies, 0, row),
        entry(second, one_second, varies, 1, row),
        entry(third, one_third, varies, 2, row),
        entry(fourth, one_fourth, varies, 3, row),
        entry(fifth, one_fifth, varies, 4, row),
        entry(sixth, one_sixth, varies, 5, row),
        flag_entry(is_call, one_is_call, varies, 6, row),
    )


class Kernel:
    """One `__global__` function: its source for anyone, its machine code where it is launched."""

    def __init__(
        self, function: Callable[..., Any], types: tuple[Any, ...], threads: int, blocks: int
    ) -> None:
        self.name = function.__name__
        self.threads = threads
        self.types = types
        self.blocks = blocks
        self._function = function
        self._source = ""
        self._compiled: Any = None
        self._lock = threading.Lock()

    def source(self) -> str:
        """CUDA C++ of the kernel and all that it calls."""
        with self._lock:
            if not self._source:
                self._source = PRELUDE + self._transpiled()
            return self._source

    def launch(self, blocks: int, arguments: tuple[Any, ...]) -> None:
        """Run on CuPy's current device and stream; returns before it is done."""
        self._function_on_device()((blocks,), (self.threads,), arguments)

    def registers(self) -> int:
        """Registers of one thread on the current device; compiles the kernel if that has not been done."""
        return int(self._function_on_device().num_regs)

    def _function_on_device(self) -> Any:
        if self._compiled is None:
            module = cupy.RawModule(code=self.source(), options=OPTIONS)
            self._compiled = module.get_function(self.name)
        return self._compiled

    def _transpiled(self) -> str:
        bounds = f"__launch_bounds__({self.threads}, {self.blocks})"
        attributes = ['extern "C"', "__global__", bounds]
        with warnings.catch_warnings():
            # It does not know our own decorators.
            warnings.simplefilter("ignore", RuntimeWarning)
            result = _compile.transpile(self._function, attributes, MODE, self.types, _cuda_types.void)
        code = result.code.replace('#include "cupy/float16.cuh"\n', "")
        # A call inside the kernel's loop would cost more than it saves.
        return re.sub(r"^__device__ ", "__device__ __forceinline__ ", code, flags=re.MULTILINE)


_kernels: dict[str, Kernel] = {}


def kernel(
    *types: Any, threads: int = THREADS_PER_BLOCK, blocks: int = 1
) -> Callable[[Callable[..., Any]], Kernel]:
    """Make and register a kernel; at least `blocks` of `threads` are to fit one multiprocessor."""

    def register(function: Callable[..., Any]) -> Kernel:
        one = Kernel(function, types, threads, blocks)
        if one.name in _kernels:
            raise ValueError(f"two CUDA kernels are called {one.name}")
        _kernels[one.name] = one
        return one

    return register


def every_kernel() -> tuple[Kernel, ...]:
    """All kernels of this package, whichever module they are in."""
    package = __name__.rpartition(".")[0]
    for module in iter_modules(import_module(package).__path__):
        import_module(f"{package}.{module.name}")
    return tuple(_kernels.values())


class Traffic(NamedTuple):
    """Bytes that a kernel must read and write for one row."""

    read: int
    written: int


def bytes_per_row(one: Kernel) -> Traffic:
    """What a kernel over rows moves for each, when no field is the same in every row."""
    arrays = [kind for kind in one.types if isinstance(kind, _Restricted)]
    sizes = [(kind._constant, kind.child_type.dtype.itemsize) for kind in arrays]
    return Traffic(sum(s for c, s in sizes if c), sum(s for c, s in sizes if not c))
