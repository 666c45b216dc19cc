"""The CUDA engine: the shared formulas transpiled to CUDA C++; data that is on the device stays there."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

from gpu_kernels.errors import EngineUnavailable


def probe() -> str:
    """Name the current CUDA device; raises EngineUnavailable without CuPy, its compiler or a device."""
    _check_driver()
    try:
        import cupy
    except ImportError as error:
        raise EngineUnavailable(f"needs CuPy ({error}); install gpu-risk[cuda13] or [cuda12]") from error
    try:
        runtime = cupy.cuda.runtime
        if runtime.getDeviceCount() < 1:
            raise EngineUnavailable("no CUDA device")
        device = runtime.getDevice()
        name = runtime.getDeviceProperties(device)["name"].decode()
    except runtime.CUDARuntimeError as error:
        raise EngineUnavailable(f"no usable CUDA device ({error})") from error
    try:
        cupy.cuda.nvrtc.getVersion()
    except (ImportError, RuntimeError, OSError) as error:
        raise EngineUnavailable(f"no CUDA run-time compiler (NVRTC): {error}") from error
    return f"{name} (CUDA device {device})"


def _check_driver() -> None:
    """A machine without a driver has no device: CuPy, slow to load, need not be asked."""
    if "cupy" in sys.modules:
        return
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        raise EngineUnavailable(f"no CUDA driver ({error})") from error


def empty(shape: Any, dtype: Any, on_device: bool = False) -> Any:
    """An array for results: on the device when the inputs are there, else in host memory."""
    if on_device:
        from gpu_kernels.engines.cuda.rows import empty_on_device

        return empty_on_device(shape, dtype)
    import numpy as np

    return np.empty(shape, dtype)


def warm_up() -> None:
    """Compile every kernel, or load it from CuPy's disk cache, and make a first call of each function."""
    import numpy as np

    from gpu_kernels.engines.cuda import american, european, implied_vol
    from gpu_kernels.engines.cuda.compile import every_kernel
    from gpu_kernels.engines.engine import Columns
    from gpu_kernels.results import GreeksResult, ImpliedVolResult, PriceResult

    for kernel in every_kernel():
        kernel.registers()

    def ones(*names: str) -> dict[str, Any]:
        return {name: np.ones(1) for name in names}

    columns = Columns(**ones(*Columns._fields[:-1]), is_call=np.ones(1, dtype=np.bool_))
    status = np.zeros(1, dtype=np.uint8)
    european.price(columns, PriceResult(**ones("price"), status=status))
    european.greeks(columns, GreeksResult(**ones(*GreeksResult.COLUMNS[:-1]), status=status))
    implied_vol.implied_vol(columns, np.full(1, 0.5), ImpliedVolResult(**ones("vol"), status=status))
    american.price(columns, "accurate", PriceResult(**ones("price"), status=status))
    american.greeks(columns, "accurate", GreeksResult(**ones(*GreeksResult.COLUMNS[:-1]), status=status))
