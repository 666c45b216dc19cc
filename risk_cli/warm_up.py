"""`risk warm-up`: compiles what is compiled, so that the first start of a service does not."""

from __future__ import annotations

import subprocess
import sys
import time

from risk_cli.extras import extra_needed

# It ends with us, however we end: then there is nothing more to read.
_MATCHING = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
os.nice(5)
from book_service.venue import warm_up
warm_up()
"""


def run_warm_up(services_only: bool) -> int:
    """Fills the disk cache of this machine; the exit status."""
    with extra_needed("warm-up"):
        import book_service.venue  # noqa: F401 - names the extra that compiling needs
        from gpu_kernels.engines.cpu.warming import warm_up_all, warm_up_first

    start = time.monotonic()
    matching = subprocess.Popen([sys.executable, "-c", _MATCHING], stdin=subprocess.PIPE)
    (warm_up_first if services_only else warm_up_all)()
    if matching.wait():
        print("risk warm-up: the matching core could not be compiled", file=sys.stderr)
        return 1
    print(f"kernels ready after {time.monotonic() - start:.0f} s", file=sys.stderr)
    return 0
