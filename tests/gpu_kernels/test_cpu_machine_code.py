"""The CPU engine's hot loops: packed fused multiply-adds, and nothing called from within them."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="the CPU engine needs numba")

from llvmlite import binding

from gpu_kernels.engines.cpu import european, implied_vol

_PACKED = re.compile(r"\bvfn?m(?:add|sub)\d+pd\b[^\n]*%([yz])mm")
_LABEL = re.compile(r"^\.L\w+:", re.MULTILINE)

# An inlined Black-Scholes has about ninety fused multiply-adds, a step of implied vol as many again.
LEAST_PACKED = 70


def _features() -> Any:
    return binding.get_host_cpu_features()


needs_avx2 = pytest.mark.skipif(
    not (_features().get("avx2") and _features().get("fma")),
    reason="this processor has no AVX2 with FMA: kernels run, but there is no packed code to look for",
)


def _kernels() -> list[tuple[Any, int]]:
    return [(european.price_rows, 1), (european.greeks_rows, 9), (implied_vol.implied_vol_rows, 1)]


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Machine code of each kernel, compiled anew: code from the disk cache cannot be shown."""
    one, flag, status = np.ones(4), np.ones(4, dtype=bool), np.zeros(4, dtype=np.uint8)
    found = {}
    for kernel, results in _kernels():
        columns = [one] * 6 if results == 9 or kernel is european.price_rows else [one] * 5
        more = [one] if kernel is implied_vol.implied_vol_rows else []
        fresh = _recompiled(kernel)
        fresh(*columns, flag, *more, *[np.empty(4) for _ in range(results)], status)
        found[kernel.__name__] = next(iter(fresh.inspect_asm().values()))
    return found


def _recompiled(kernel: Any) -> Any:
    from numba import njit

    return njit(**{name: kernel.targetoptions[name] for name in ("nogil", "fastmath", "error_model")})(
        kernel.py_func
    )


def _hot_loop(text: str) -> str:
    """The basic block with the most packed arithmetic."""
    return max(_LABEL.split(text), key=lambda block: len(_PACKED.findall(block)))


@needs_avx2
@pytest.mark.parametrize("name", ["price_rows", "greeks_rows", "implied_vol_rows"])
def test_hot_loop_is_packed_and_calls_nothing(assembly: dict[str, str], name: str) -> None:
    block = _hot_loop(assembly[name])
    widths = _PACKED.findall(block)
    assert len(widths) >= LEAST_PACKED, f"{len(widths)} packed fused multiply-adds"
    if _features().get("avx512f") and _features().get("avx512dq"):
        assert set(widths) == {"z"}, "512-bit registers are there and not used"
    assert not re.search(r"\bcall", block), "the hot loop calls a function"
    assert not re.search(r"\bv(?:div|sqrt|fn?m\w+)sd\b", block), "scalar arithmetic in the hot loop"


@pytest.mark.parametrize("name", ["price_rows", "greeks_rows", "implied_vol_rows"])
def test_no_function_of_the_mathematics_library_is_used(assembly: dict[str, str], name: str) -> None:
    called = set(
        re.findall(r"\$?\b(exp|expm1|exp2|log|log1p|log2|pow|erfc?|ldexp|frexp)\b@?", assembly[name])
    )
    assert not called


OTHER_PROCESSOR = """
import european_tables, gpu_kernels as gk
errors = european_tables.price_errors(gk.engine("cpu"))
allowed = european_tables.load("price_and_greeks")["allowed"]
assert all(error <= allowed[name] for name, error in errors.items()), errors
print("ok")
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the other processors are x86-64 ones")
@pytest.mark.parametrize("processor", ["haswell", "x86-64"])
def test_accurate_without_avx512_and_without_fma(tmp_path: Path, processor: str) -> None:
    """The same sources compiled for AVX2, and for the oldest x86-64, which has no fused multiply-add."""
    environment = os.environ | {
        "NUMBA_CPU_NAME": processor,
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESSOR],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
        check=False,
    )
    assert done.stdout.strip() == "ok", done.stderr
