"""The CPU engine: the shared formulas compiled by numba, vectorised by LLVM, run on a pool of threads."""

from __future__ import annotations

from typing import Any

from gpu_kernels.errors import EngineUnavailable


def probe() -> str:
    """Name the processor; raises EngineUnavailable without numba."""
    try:
        from llvmlite import binding
        from numba import njit
    except ImportError as error:
        raise EngineUnavailable(f"needs numba ({error}); install gpu-risk[service]") from error
    from gpu_kernels.engines.cpu.threads import available_cores

    del njit
    return f"{binding.get_host_cpu_name()}, {available_cores()} threads"


def warm_up() -> None:
    """Compile the European and implied-vol kernels, or load them from the disk cache."""
    import numpy as np

    from gpu_kernels.engines.cpu import european, implied_vol
    from gpu_kernels.engines.engine import Columns
    from gpu_kernels.results import GreeksResult, ImpliedVolResult, PriceResult

    one = np.ones(1)
    columns = Columns(one, one, one, one, one, one, np.ones(1, dtype=np.bool_))
    status = np.zeros(1, dtype=np.uint8)
    european.price(columns, PriceResult(np.empty(1), status))
    nine: Any = np.empty((9, 1))
    european.greeks(columns, GreeksResult(*nine, status))
    implied_vol.implied_vol(columns, one / 2, ImpliedVolResult(np.empty(1), status))
