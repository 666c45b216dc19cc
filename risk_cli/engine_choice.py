"""The engine that a command was asked for."""

from __future__ import annotations

import gpu_kernels as gk
from gpu_kernels.engines.choose import PREFERENCE
from risk_cli.refusals import BadInput


def chosen_engine(name: str) -> gk.Engine:
    """The engine of this name; a name that there is no engine of is the caller's mistake."""
    if name not in ("auto", *PREFERENCE):
        raise BadInput(f"--engine: unknown engine {name!r}; there are auto, {', '.join(PREFERENCE)}")
    return gk.engine(name)
