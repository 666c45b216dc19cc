"""A process with a client takes no memory anew for each large answer."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# A buffer as large as the Greeks of 20,000 options, and what is copied of it.
COUNT = """
import resource, sys
from risk_client import RiskClient
if sys.argv[1] == "connected":
    RiskClient("127.0.0.1:1").close()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        first, second = bytearray(b"x") * 1_500_000, bytearray(b"y") * 1_500_000
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

    assert faults("connected") < 200 < faults("not yet")
