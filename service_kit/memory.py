"""What a process does with the memory of large messages that it is done with."""

from __future__ import annotations

import ctypes

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Bytes. What is larger than the first is given back at once.
# 50,000 rows of Greeks, a part of a stream, are less.
_MMAP_FROM, _TRIM_FROM = 4 << 20, 16 << 20


def keep_memory() -> bool:
    """Keeps the memory of large messages for the next ones; False where the C library is another than glibc.

    By itself a process may give the memory of every large message back to the system and have it zeroed and
    mapped anew for the next, page by page. Buffers above 4 MiB are not kept, nor more than
    16 MiB that are free at the end of a heap.
    """
    # A C library without it has no such name.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _MMAP_FROM)) and bool(mallopt(_TRIM_THRESHOLD, _TRIM_FROM))
