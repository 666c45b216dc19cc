"""The XLA engine: the shared formulas traced by JAX, on the processor or an accelerator, with derivatives."""

from __future__ import annotations

import os
from typing import Any

from gpu_kernels.errors import EngineUnavailable


def probe() -> str:
    """Name JAX's default device; raises EngineUnavailable without JAX or a device for it."""
    # JAX would take three quarters of a GPU's memory and leave CuPy nothing. It reads this when imported.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        import jax
    except ImportError as error:
        raise EngineUnavailable(f"needs JAX ({error}); install gpu-risk[service]") from error
    try:
        device = jax.devices()[0]
    except RuntimeError as error:
        raise EngineUnavailable(f"JAX has no device ({error})") from error
    return f"{device.device_kind} ({device.platform}), jax {jax.__version__}"


def warm_up() -> None:
    """Compile every pricing function for the smallest batch; a larger one compiles when it first comes."""
    import numpy as np

    from gpu_kernels.engines.engine import Columns
    from gpu_kernels.engines.xla import american, european, implied_vol
    from gpu_kernels.results import GreeksResult, ImpliedVolResult, PriceResult

    def ones(*names: str) -> dict[str, Any]:
        return {name: np.ones(1) for name in names}

    columns = Columns(**ones(*Columns._fields[:-1]), is_call=np.ones(1, dtype=np.bool_))
    status = np.zeros(1, dtype=np.uint8)
    european.price(columns, PriceResult(**ones("price"), status=status))
    european.greeks(columns, GreeksResult(**ones(*GreeksResult.COLUMNS[:-1]), status=status))
    implied_vol.implied_vol(columns, np.full(1, 0.5), ImpliedVolResult(**ones("vol"), status=status))
    american.price(columns, "accurate", PriceResult(**ones("price"), status=status))
    american.greeks(columns, "accurate", GreeksResult(**ones(*GreeksResult.COLUMNS[:-1]), status=status))
