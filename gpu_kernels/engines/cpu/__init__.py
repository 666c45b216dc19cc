"""The CPU engine: the shared formulas compiled by numba, vectorised by LLVM, run on a pool of threads."""

from __future__ import annotations

from importlib import import_module

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


# Modules of this folder whose own warm_up(), if they have one, is part of the engine's.
_WARMED = ("american", "revaluation")


def warm_up() -> None:
    """Compile every kernel, or load it from the disk cache."""
    from gpu_kernels.engines.choose import engine
    from gpu_kernels.options import Options

    cpu = engine("cpu")
    option = Options(spot=100.0, strike=100.0, expiry=1.0, vol=0.2)
    cpu.price(option)
    cpu.greeks(option)
    cpu.implied_vol(option, 10.0)
    for name in _WARMED:
        try:
            module = import_module(f"{__name__}.{name}")
        except ModuleNotFoundError:
            continue
        if hasattr(module, "warm_up"):
            module.warm_up()
