"""Messages between front and worker: large arrays lie in shared memory, the rest goes through the pipe.

A lane has one arena, written by its two ends in turn: first the question, behind it the answer. So a column
is copied once on its way in and the worker computes on it where it lies. What does not fit goes through the
pipe, slower but right.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from multiprocessing.shared_memory import SharedMemory
from typing import Any

# Below this an array is cheaper inside the message.
SHARED_BYTES_MIN = 4096
_ALIGNMENT = 64
# An arena grows in powers of two from here, so that it seldom has to.
ARENA_BYTES_MIN = 1 << 20

Places = list[tuple[int, int]]


class Arena:
    """A segment of shared memory; whoever made it removes its name."""

    def __init__(self, memory: SharedMemory, *, owner: bool) -> None:
        self._memory, self._owner = memory, owner

    @classmethod
    def create(cls, at_least: int) -> Arena:
        """A new segment of at least so many bytes; OSError where there is no room for them."""
        size = max(ARENA_BYTES_MIN, 1 << (at_least - 1).bit_length())
        arena = cls(SharedMemory(create=True, size=size), owner=True)
        if hasattr(os, "posix_fallocate"):
            try:
                # Else the first write beyond what is left (a container has 64 MB) would end this process.
                os.posix_fallocate(arena._memory._fd, 0, size)  # type: ignore[attr-defined]
            except OSError:
                arena.close()
                raise
        return arena

    @classmethod
    def attach(cls, name: str) -> Arena:
        """The segment that the other process has made."""
        return cls(SharedMemory(name=name), owner=False)

    @property
    def name(self) -> str:
        """What the other process attaches it by."""
        return self._memory.name

    @property
    def size(self) -> int:
        """Bytes."""
        return self._memory.size

    def unname(self) -> None:
        """Both ends have it: nobody asks for it by name again, and it is gone when they are, even killed."""
        if self._owner:
            self._owner = False
            with contextlib.suppress(FileNotFoundError):
                self._memory.unlink()

    def close(self) -> None:
        """Lets go of the segment; its owner removes it."""
        # An array that still lies in it keeps the mapping until it is gone.
        with contextlib.suppress(BufferError):
            self._memory.close()
        self.unname()

    @property
    def _bytes(self) -> memoryview:
        if self._memory.buf is None:
            raise ValueError("the arena is closed")
        return self._memory.buf

    def write(self, data: memoryview, at: int) -> None:
        """Copies bytes to a place."""
        self._bytes[at : at + data.nbytes] = data

    def view(self, at: int, size: int) -> memoryview:
        """The bytes at a place, not copied."""
        return self._bytes[at : at + size]


def room_for(sizes: list[int]) -> int:
    """Bytes that arrays of these sizes take in an arena."""
    return sum(_aligned(size) for size in sizes)


def large_arrays(message: Any) -> tuple[bytes, list[memoryview]]:
    """The message without its large arrays, and those."""
    arrays: list[memoryview] = []

    def apart(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < SHARED_BYTES_MIN:
            return True
        arrays.append(raw)
        return False

    body = pickle.dumps(message, protocol=5, buffer_callback=apart)
    return body, arrays


def pack(body: bytes, arrays: list[memoryview], arena: Arena | None, start: int) -> tuple[bytes, int]:
    """What goes through the pipe once the arrays lie in the arena from `start` on, and where they end."""
    places: Places = []
    rest: list[bytes] = []
    at = start
    for array in arrays:
        if arena is None or at + array.nbytes > arena.size:
            places.append((-1, len(rest)))
            rest.append(bytes(array))
            continue
        arena.write(array, at)
        places.append((at, array.nbytes))
        at += _aligned(array.nbytes)
    return pickle.dumps((body, places, rest, at), protocol=5), at


def unpack(data: bytes, arena: Arena | None, *, copied: bool) -> tuple[Any, int]:
    """The message, and where its arrays end; `copied` arrays outlive the arena's next message."""
    # Both ends are this program and nobody else has the pipe.
    body, places, rest, end = pickle.loads(data)
    buffers: list[Any] = []
    for at, size in places:
        if at < 0:
            buffers.append(bytearray(rest[size]))
        elif arena is None:
            raise ValueError("a message lies in an arena that is not there")
        else:
            view = arena.view(at, size)
            buffers.append(bytearray(view) if copied else view)
    return pickle.loads(body, buffers=buffers), end


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
