"""The engine that a command was asked for."""

from __future__ import annotations

import sys

import numpy as np

import gpu_kernels as gk
from gpu_kernels.engines.choose import PREFERENCE
from risk_cli.refusals import BadInput

# What the reference engine does in a second or more slowly, on one core: prices of European and of American
# options. The cpu engine does a hundred times as much, but compiles its kernels first, once on a machine.
EUROPEAN_PER_S, AMERICAN_PER_S = 4e6, 15e3
UNCOMPILED_S_MAX = 10.0


def engine_for(name: str, options: gk.Options | gk.Portfolio, times: float) -> gk.Engine:
    """The engine that values these options so many times."""
    american = int(np.count_nonzero(options.american))
    return chosen_engine(name, (np.size(options.american) - american) * times, american * times)


def chosen_engine(name: str, european: float = 0.0, american: float = 0.0) -> gk.Engine:
    """The engine of this name; a name that there is no engine of is the caller's mistake.

    A work of so many prices that is small `auto` does without compiling for a minute first.
    """
    if name not in ("auto", *PREFERENCE):
        raise BadInput(f"--engine: unknown engine {name!r}; there are auto, {', '.join(PREFERENCE)}")
    engine = gk.engine(name)
    if engine.name != "cpu":
        return engine
    from gpu_kernels.engines.cpu.readiness import is_compiled

    if is_compiled(american > 0.0):
        return engine
    seconds = european / EUROPEAN_PER_S + american / AMERICAN_PER_S
    small = name == "auto" and 0.0 < seconds <= UNCOMPILED_S_MAX
    now = (
        "so the reference engine does this; `risk warm-up` compiles it, once"
        if small
        else "which is done now, once: a minute or so"
    )
    print(f"risk: the cpu engine is not compiled on this machine yet, {now}", file=sys.stderr)
    return gk.engine("reference") if small else engine
