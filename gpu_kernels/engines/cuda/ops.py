"""The primitives of the CUDA engine: what formulas are transpiled to."""

from __future__ import annotations

from typing import Any

from gpu_kernels.engines.cuda.compile import device, primitive
from gpu_kernels.engines.cuda.compile import where as where

INV_SQRT_2PI = 0.3989422804014327

# How a function that a formula defines becomes one that other formulas and kernels can call.
function = device

exp = primitive("exp({0})")
expm1 = primitive("expm1({0})")
expm1_parts = primitive("expm1_as_parts({0})", results=2)
log = primitive("log({0})")
log_ratio = primitive("log_of_ratio({0}, {1})")
log_ratio_parts = primitive("log_of_ratio_parts({0}, {1})", results=2)
sqrt = primitive("sqrt({0})")
absolute = primitive("fabs({0})")
minimum = primitive("smaller({0}, {1})")
maximum = primitive("larger({0}, {1})")
fma = primitive("fma({0}, {1}, {2})")
# A kernel computes it once.
rounded = primitive("({0})")
ndtr = primitive("normcdf({0})")


@device
def npdf(x: Any) -> Any:
    """Density of the standard normal distribution."""
    return INV_SQRT_2PI * exp(-0.5 * (x * x))
