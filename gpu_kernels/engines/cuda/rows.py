"""Runs a kernel over rows: in place where columns are on the device, else through pinned host buffers.

Host rows go in chunks over two slots in turn, each with a stream and buffers of its own: while one slot
copies and computes, the processor fills or empties the other. Memory on the device stays bounded whatever the
batch.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any, NamedTuple

import cupy
import numpy as np

from gpu_kernels.engines.cuda.compile import Kernel
from gpu_kernels.errors import InvalidInput

# Rows in one chunk of host data: 30 MB for Greeks, long enough to hide what a copy and a launch cost.
CHUNK_ROWS = 1 << 18
# When the device has no room for chunks of this many rows it has none to work with.
LEAST_CHUNK_ROWS = 1 << 12
SLOTS = 2
# Pipelines kept when nobody uses them, up to 200 MB of pinned memory each.
IDLE_MAX = 4
# More rows than this many blocks have threads are taken in strides.
BLOCKS_MAX = 1 << 20
# A column of numbers in a slot begins at a multiple of this many bytes.
ALIGNMENT = 256


class Launch(NamedTuple):
    """What a kernel takes besides rows, between `varies` and its columns; and how many rows a block has."""

    numbers: tuple[Any, ...] = ()
    tables: tuple[Any, ...] = ()  # host arrays; their copies on the device are kept
    rows_per_block: int = 0  # 0: as many as it has threads


PLAIN = Launch()


def run_rows(
    kernel: Kernel, inputs: tuple[Any, ...], outputs: tuple[Any, ...], launch: Launch = PLAIN
) -> None:
    """Launch kernel(size, varies, *more, *columns, *scalars, *outputs) on all rows.

    Inputs have all rows, or one that holds for all.
    """
    size = outputs[0].size
    on_device = [is_on_device(array) for array in outputs]
    if size == 0:
        return
    if launch.tables:
        launch = launch._replace(tables=_tables.on_device(launch.tables))
    if all(on_device):
        columns = tuple(_for_device(array, size) for array in inputs)
        _launch(kernel, size, columns, outputs, launch)
    elif any(on_device):
        raise InvalidInput("out", "columns must be all on the device or all in host memory")
    else:
        columns = tuple(_spread(array, size) if is_on_device(array) else array for array in inputs)
        _run_in_chunks(kernel, size, columns, outputs, launch)


def is_on_device(array: Any) -> bool:
    """True for arrays in the memory of a CUDA device."""
    return hasattr(array, "__cuda_array_interface__")


def empty_on_device(shape: Any, dtype: Any) -> Any:
    """An array on the current device, its contents undefined."""
    return cupy.empty(shape, dtype)


def on_host(array: Any) -> Any:
    """The array in host memory."""
    return array.get() if is_on_device(array) else array


def store(targets: tuple[Any, ...], sources: tuple[Any, ...]) -> None:
    """Copy host arrays into arrays that may be on the device."""
    for target, source in zip(targets, sources, strict=True):
        target[:] = cupy.asarray(source) if is_on_device(target) else source


def _for_device(array: Any, size: int) -> Any:
    if is_on_device(array):
        return _spread(array, size)
    return array if array.size == 1 else cupy.asarray(array)


def _spread(array: Any, size: int) -> Any:
    """A device column of all rows: kernels take single numbers from the host only."""
    array = cupy.asarray(array)
    return array if array.size == size else cupy.full(size, array[0], array.dtype)


def _launch(
    kernel: Kernel, size: int, columns: tuple[Any, ...], outputs: tuple[Any, ...], more: Launch
) -> None:
    varies = sum(1 << bit for bit, array in enumerate(columns) if is_on_device(array))
    pointers = (array if is_on_device(array) else np.intp(0) for array in columns)
    scalars = (np.float64(0.0 if is_on_device(array) else array[0]) for array in columns)
    blocks = min(-(-size // (more.rows_per_block or kernel.threads)), BLOCKS_MAX)
    first = (np.int64(size), np.int64(varies), *more.numbers, *more.tables)
    kernel.launch(blocks, (*first, *pointers, *scalars, *outputs))


def _run_in_chunks(
    kernel: Kernel, size: int, columns: tuple[Any, ...], outputs: tuple[Any, ...], more: Launch
) -> None:
    pipeline = _pipelines.take()
    try:
        pipeline.run(kernel, size, columns, outputs, more)
    except BaseException:
        # What the device still has to do with the buffers is not known: they are not used again.
        pipeline.abandon()
        raise
    _pipelines.give_back(pipeline)


class _Slot:
    """A stream with buffers on both sides, and the results of a chunk that are still to be copied out."""

    def __init__(self) -> None:
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self._capacity = (0, 0)
        self._host: list[Any] = [None, None]
        self._device: list[Any] = [None, None]
        self._waiting: list[tuple[Any, Any]] = []

    def reserve(self, *sizes: int) -> None:
        """Make room for inputs and outputs of these many bytes."""
        for side, size in enumerate(sizes):
            if size > self._capacity[side]:
                room = 1 << (size - 1).bit_length()
                self._host[side] = self._device[side] = None
                self._device[side] = cupy.cuda.alloc(room)
                self._host[side] = cupy.cuda.alloc_pinned_memory(room)
                self._capacity = (room, self._capacity[1]) if side == 0 else (self._capacity[0], room)

    def begin(self, kernel: Kernel, columns: tuple[Any, ...], outputs: tuple[Any, ...], more: Launch) -> None:
        """Start a chunk: inputs to the device, the kernel, results back to this slot's host buffer."""
        moved = [array for array in columns if not is_on_device(array) and array.size > 1]
        ins, in_bytes = _places(moved)
        outs, out_bytes = _places(outputs)
        self.reserve(in_bytes, out_bytes)
        for array, place in zip(moved, ins, strict=True):
            self._host_view(0, array, place)[:] = array
        with self.stream:
            if in_bytes:
                source = ctypes.c_void_p(self._host[0].ptr)
                self._device[0].copy_from_host_async(source, in_bytes, self.stream)
            arrived = iter([self._device_view(0, *pair) for pair in zip(moved, ins, strict=True)])
            given = tuple(next(arrived) if any(one is m for m in moved) else one for one in columns)
            results = tuple(self._device_view(1, *pair) for pair in zip(outputs, outs, strict=True))
            _launch(kernel, outputs[0].size, given, results, more)
            target = ctypes.c_void_p(self._host[1].ptr)
            self._device[1].copy_to_host_async(target, out_bytes, self.stream)
        pairs = zip(outputs, outs, strict=True)
        self._waiting = [(array, self._host_view(1, array, place)) for array, place in pairs]

    def finish(self) -> None:
        """Wait for the chunk and hand its results over."""
        self.stream.synchronize()
        for target, source in self._waiting:
            target[:] = source
        self._waiting = []

    def _host_view(self, side: int, like: Any, place: int) -> Any:
        return np.frombuffer(self._host[side], like.dtype, like.size, place)

    def _device_view(self, side: int, like: Any, place: int) -> Any:
        return cupy.ndarray((like.size,), like.dtype, memptr=self._device[side] + place)


class _Pipeline:
    """Two slots that take chunks in turn. Used by one call at a time."""

    def __init__(self) -> None:
        self.device = cupy.cuda.runtime.getDevice()
        self._slots = [_Slot() for _ in range(SLOTS)]

    def run(
        self, kernel: Kernel, size: int, columns: tuple[Any, ...], outputs: tuple[Any, ...], more: Launch
    ) -> None:
        """All rows, in chunks; when the device has no room, in smaller ones."""
        step = min(CHUNK_ROWS, size)
        while not self._has_room(step, columns, outputs):
            if step <= LEAST_CHUNK_ROWS:
                raise MemoryError(f"no room on the CUDA device for {step} rows")
            step = max(step // 2, LEAST_CHUNK_ROWS)
            self.abandon()
            cupy.get_default_memory_pool().free_all_blocks()
        # Device columns may still be in the making on the caller's stream.
        ready = cupy.cuda.get_current_stream().record()
        for slot in self._slots:
            slot.stream.wait_event(ready)
        for number, start in enumerate(range(0, size, step)):
            slot = self._slots[number % SLOTS]
            slot.finish()
            rows = slice(start, min(start + step, size))
            part = tuple(array if array.size == 1 else array[rows] for array in columns)
            slot.begin(kernel, part, tuple(array[rows] for array in outputs), more)
        for slot in self._slots:
            slot.finish()

    def abandon(self) -> None:
        """Let all buffers go, once the device is done with them."""
        for slot in self._slots:
            slot.stream.synchronize()
        self._slots = [_Slot() for _ in range(SLOTS)]

    def _has_room(self, rows: int, columns: tuple[Any, ...], outputs: tuple[Any, ...]) -> bool:
        moved = [array[:rows] for array in columns if not is_on_device(array) and array.size > 1]
        sizes = _places(moved)[1], _places([array[:rows] for array in outputs])[1]
        try:
            for slot in self._slots:
                slot.reserve(*sizes)
        except cupy.cuda.memory.OutOfMemoryError:
            return False
        return True


class _Pipelines:
    """Those not in use, so that concurrent calls have one each and later calls find warm buffers."""

    def __init__(self) -> None:
        self._idle: list[_Pipeline] = []
        self._lock = threading.Lock()

    def take(self) -> _Pipeline:
        """An idle pipeline of the current device, or a new one."""
        device = cupy.cuda.runtime.getDevice()
        with self._lock:
            for pipeline in self._idle:
                if pipeline.device == device:
                    self._idle.remove(pipeline)
                    return pipeline
        return _Pipeline()

    def give_back(self, pipeline: _Pipeline) -> None:
        """Keep it for the next call, unless enough are kept."""
        with self._lock:
            if len(self._idle) < IDLE_MAX:
                self._idle.append(pipeline)


_pipelines = _Pipelines()


class _Tables:
    """Copies of host arrays on each device, kept for good: a few tens of kilobytes in all."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, tuple[int, ...]], tuple[tuple[Any, ...], tuple[Any, ...]]] = {}
        self._lock = threading.Lock()

    def on_device(self, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arrays on the current device; they must never change."""
        key = cupy.cuda.runtime.getDevice(), tuple(map(id, arrays))
        with self._lock:
            if key not in self._kept:
                copies = tuple(cupy.asarray(array) for array in arrays)
                # Whoever uses them next may do so on another stream.
                cupy.cuda.get_current_stream().synchronize()
                # The originals are kept too, so that no other array gets their identity.
                self._kept[key] = arrays, copies
            return self._kept[key][1]


_tables = _Tables()


def _places(arrays: Any) -> tuple[list[int], int]:
    """Where in a buffer each column begins, in bytes, and how long the buffer is."""
    places = []
    end = 0
    for array in arrays:
        places.append(end)
        end += -(-array.size * array.dtype.itemsize // ALIGNMENT) * ALIGNMENT
    return places, end
