"""A process that keeps the memory of large messages takes none anew for the next."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Each buffer is larger than what malloc gives back at once by itself.
COUNT = """
import resource, sys
if sys.argv[1] == "keep":
    from service_kit.memory import keep_memory
    assert keep_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        first, second = bytearray(2 << 20), bytearray(2 << 20)
        del first, second
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_page_faults_of_the_next_answer():
    def faults(choice):
        done = subprocess.run(
            [sys.executable, "-c", COUNT, choice], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert faults("keep") < 100 < faults("by itself")
