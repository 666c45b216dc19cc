"""What a command says when it is given bad input or cannot do its work, and the exit status that follows."""

from __future__ import annotations

import sys
from collections.abc import Callable

DONE = 0
FAILED = 1
WRONG_USAGE = 2
LIMIT_BREACHED = 3


class BadInput(Exception):
    """The caller's mistake; the text names file, row and column, or the option. Exit status 2."""


class CannotDo(Exception):
    """The input is fine but the work could not be done. Exit status 1."""


def exit_status(work: Callable[[], int]) -> int:
    """Runs a command; what it raises on purpose becomes one line on stderr and its exit status."""
    from gpu_kernels.errors import GpuKernelsError

    try:
        return work()
    except BadInput as mistake:
        print(f"risk: {mistake}", file=sys.stderr)
        return WRONG_USAGE
    except (CannotDo, GpuKernelsError, OSError) as failure:
        print(f"risk: {failure}", file=sys.stderr)
        return FAILED
