"""Numbers in, numbers out: option prices, Greeks, implied vols, scenario revaluation and tail risk in
batches.

Names are loaded when first used, so that `import gpu_kernels` needs only NumPy and SciPy and takes little
time.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gpu_kernels.errors import EngineUnavailable, GpuKernelsError, InvalidInput
from gpu_kernels.options import Options
from gpu_kernels.results import GreeksResult, ImpliedVolResult, PriceResult
from gpu_kernels.status import Status

if TYPE_CHECKING:
    from gpu_kernels.engines.choose import available_engines, cannot, engine
    from gpu_kernels.engines.engine import Engine
    from gpu_kernels.linear_positions import LinearPositions
    from gpu_kernels.portfolio import Portfolio
    from gpu_kernels.scenarios import Scenarios, VolShockSurface
    from gpu_kernels.simulated_scenarios import simulate_scenarios
    from gpu_kernels.tail_risk import TailRisk, tail_risk

_LAZY = {
    "engine": "gpu_kernels.engines.choose",
    "available_engines": "gpu_kernels.engines.choose",
    "cannot": "gpu_kernels.engines.choose",
    "Engine": "gpu_kernels.engines.engine",
    "Portfolio": "gpu_kernels.portfolio",
    "LinearPositions": "gpu_kernels.linear_positions",
    "Scenarios": "gpu_kernels.scenarios",
    "VolShockSurface": "gpu_kernels.scenarios",
    "simulate_scenarios": "gpu_kernels.simulated_scenarios",
    "tail_risk": "gpu_kernels.tail_risk",
    "TailRisk": "gpu_kernels.tail_risk",
}

__all__ = [
    "Engine",
    "EngineUnavailable",
    "GpuKernelsError",
    "GreeksResult",
    "ImpliedVolResult",
    "InvalidInput",
    "LinearPositions",
    "Options",
    "Portfolio",
    "PriceResult",
    "Scenarios",
    "Status",
    "TailRisk",
    "VolShockSurface",
    "available_engines",
    "cannot",
    "engine",
    "simulate_scenarios",
    "tail_risk",
]


class _Package(ModuleType):
    """This package. A function may bear the name of its submodule: the submodule then does not hide it."""

    def __getattr__(self, name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_LAZY[name]), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _LAZY and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_LAZY})


sys.modules[__name__].__class__ = _Package
