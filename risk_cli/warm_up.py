"""`risk warm-up`: compiles what is compiled, so that the first start of a service does not."""

from __future__ import annotations

import subprocess
import sys
import time

from risk_cli.extras import extra_needed

_MATCHING = "from book_service.venue import warm_up; warm_up()"


def run_warm_up() -> int:
    """Fills the disk cache of this machine; the exit status."""
    with extra_needed("warm-up"):
        import book_service.venue  # noqa: F401 - names the extra that compiling needs
    import gpu_kernels as gk

    start = time.monotonic()
    matching = subprocess.Popen([sys.executable, "-c", _MATCHING])
    engine = gk.engine("cpu")
    engine.warm_up()
    # Compiled here and waited for: several processes that compile one kernel at once have been seen to crash.
    put = gk.Options(spot=100.0, strike=100.0, expiry=1.0, vol=0.2, is_call=False, american=True)
    engine.price(put, american_method="fast")
    if matching.wait():
        print("risk warm-up: the matching core could not be compiled", file=sys.stderr)
        return 1
    print(f"kernels ready after {time.monotonic() - start:.0f} s", file=sys.stderr)
    return 0
