"""A CUDA engine without a device: host memory in place of the device's, g++ in place of NVRTC.

What the engine itself does is all real: kernels, chunks, layout of buffers, books and shocks that stay "on
the device". Copies are immediate here, so what depends on the order of streams is not checked by this.
"""

from __future__ import annotations

import ctypes
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda_on_host import HostKernel

from gpu_kernels.engines.engine import Engine
from gpu_kernels.engines.held_books import HeldBooks


class DeviceArray(np.ndarray):  # type: ignore[type-arg]
    """A NumPy array that says it is on a device."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"version": 3, "data": (self.ctypes.data, False)}

    def get(self) -> Any:
        return np.array(self).view(np.ndarray)


def on_device(array: Any) -> Any:
    """A copy of the array "on the device"."""
    return np.array(array).view(DeviceArray)


class OutOfMemoryError(MemoryError):
    pass


class _Memory:
    """A block of device memory, or a place in one."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __add__(self, offset: int) -> _Memory:
        return _Memory(self._array[offset:])

    @property
    def ptr(self) -> int:
        return int(self._array.ctypes.data)

    def copy_from_host_async(self, source: ctypes.c_void_p, size: int, stream: Any) -> None:
        assert size <= len(self._array)
        ctypes.memmove(self.ptr, source, size)

    def copy_to_host_async(self, target: ctypes.c_void_p, size: int, stream: Any) -> None:
        assert size <= len(self._array)
        ctypes.memmove(target, self.ptr, size)

    def view(self, count: int, dtype: Any) -> Any:
        return self._array[: count * np.dtype(dtype).itemsize].view(dtype).view(DeviceArray)


class _Stream:
    def __init__(self, non_blocking: bool = False) -> None:
        pass

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def record(self) -> None:
        pass

    def wait_event(self, event: Any) -> None:
        pass


class StandIn:
    """The part of CuPy that the engine uses. Counts copies to the device; a test may limit its memory."""

    def __init__(self) -> None:
        self.uploads = 0
        self.largest_block = 1 << 62
        self.cuda = SimpleNamespace(
            Stream=_Stream,
            get_current_stream=_Stream,
            alloc=self._alloc,
            # Pinned memory is found through the buffer protocol and has an address.
            alloc_pinned_memory=lambda size: _pinned(size),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=SimpleNamespace(getDevice=lambda: 0),
        )

    def _alloc(self, size: int) -> _Memory:
        if size > self.largest_block:
            raise OutOfMemoryError(f"{size} bytes")
        return _Memory(np.full(size, 0xAB, np.uint8))

    def asarray(self, array: Any) -> Any:
        if isinstance(array, DeviceArray):
            return array
        self.uploads += 1
        return on_device(array)

    def empty(self, shape: Any, dtype: Any = np.float64) -> Any:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self._alloc(size).view(int(np.prod(shape)), dtype).reshape(shape)

    def full(self, shape: Any, value: Any, dtype: Any) -> Any:
        return on_device(np.full(shape, value, dtype))

    def ndarray(self, shape: tuple[int], dtype: Any, memptr: _Memory) -> Any:
        return memptr.view(shape[0], dtype)

    def get_default_memory_pool(self) -> Any:
        return SimpleNamespace(free_all_blocks=lambda: None)


class _Pinned(np.ndarray):  # type: ignore[type-arg]
    @property
    def ptr(self) -> int:
        return int(self.ctypes.data)


def _pinned(size: int) -> Any:
    return np.full(size, 0xCD, np.uint8).view(_Pinned)


@cache
def compiled(kernel: Any) -> HostKernel:
    """The kernel for the host, compiled once per process."""
    return HostKernel(kernel)


def install(monkeypatch: pytest.MonkeyPatch) -> tuple[Engine, StandIn]:
    """The CUDA engine over a stand-in for its device."""
    from gpu_kernels.engines import cuda
    from gpu_kernels.engines.cuda import cash_dividends, revaluation, rows
    from gpu_kernels.engines.cuda import compile as cuda_compile

    stand_in = StandIn()

    def launch(kernel: Any, blocks: int, arguments: tuple[Any, ...]) -> None:
        assert len(arguments) == len(kernel.types)
        assert blocks >= 1
        for argument in arguments:
            assert isinstance(argument, DeviceArray | np.generic), "host memory given to a kernel"
        compiled(kernel)(blocks, kernel.threads, *arguments)

    monkeypatch.setattr(cuda_compile.Kernel, "launch", launch)
    monkeypatch.setattr(cuda_compile.Kernel, "registers", lambda kernel: len(kernel.source()))
    for module in (rows, revaluation, cash_dividends):
        monkeypatch.setattr(module, "cupy", stand_in)
    monkeypatch.setattr(rows, "_pipelines", rows._Pipelines())
    monkeypatch.setattr(rows, "_tables", rows._Tables())
    monkeypatch.setattr(revaluation, "_books", HeldBooks(revaluation._Book))
    monkeypatch.setattr(revaluation, "_shock_arrays", revaluation._ShockArrays())
    return Engine("cuda", "stand-in", cuda), stand_in
