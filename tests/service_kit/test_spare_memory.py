"""What large messages leave behind goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Every twentieth buffer stays, so that none of the free ones is at the end of a heap.
LEAVE_HOLES = """
import sys, time
from service_kit.lifecycle import Stop
from service_kit.memory import keep_memory
from service_kit.spare_memory import give_back_by_itself, resident
assert keep_memory()
stop = Stop()
watched = sys.argv[1] == "watched"
thread = give_back_by_itself(stop, grown_by=64 << 20, every_s=0.05) if watched else None
before = resident()
buffers = [b"x" * (100_000 + number) for number in range(2_500)]
kept = buffers[::20]
buffers.clear()
full = resident() - before
ends = time.monotonic() + 30
while watched and resident() - before > 64 << 20 and time.monotonic() < ends:
    pass
print(full, resident() - before)
stop.set()
if thread is not None:
    thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_memory_between_things_in_use_goes_back():
    def left(choice):
        done = subprocess.run(
            [sys.executable, "-c", LEAVE_HOLES, choice], capture_output=True, text=True, check=True
        )
        return [int(word) / 2**20 for word in done.stdout.split()]

    full, rest = left("by itself")
    assert full > 200
    assert rest > 200
    assert left("watched")[1] < 64
