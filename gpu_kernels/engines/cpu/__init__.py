"""The CPU engine: the shared formulas compiled by numba, vectorised by LLVM, run on a pool of threads."""

from __future__ import annotations

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
    """Compile every kernel, or load it from the disk cache."""
    from gpu_kernels.engines.cpu import warming

    warming.warm_up()
