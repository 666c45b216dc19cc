"""No thread of a CUDA block reads what another writes without a barrier; none leaves its arrays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cupy", reason="needs CuPy to transpile the kernels")
pytest.importorskip("scipy", reason="needs SciPy")

PROGRAM = Path(__file__).parent / "cuda_sanitized.py"


@pytest.mark.parametrize(("sanitizer", "library"), [("thread", "libtsan.so"), ("address", "libasan.so")])
def test_kernels_are_clean(sanitizer: str, library: str) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++: races in the CUDA kernels are not looked for on this machine")
    asked = subprocess.run(
        [compiler, f"-print-file-name={library}"], capture_output=True, text=True, check=True
    )
    path = Path(asked.stdout.strip())
    if not path.is_absolute():
        pytest.skip(f"g++ comes without {library}")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(path.resolve()),
        "ASAN_OPTIONS": "detect_leaks=0",
        "TSAN_OPTIONS": "report_signal_unsafe=0",
    }
    done = subprocess.run(
        [sys.executable, str(PROGRAM), sanitizer],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    if "memory mapping" in done.stderr or "failed to intercept" in done.stderr:
        pytest.skip(f"the {sanitizer} sanitizer does not run on this machine")
    assert done.returncode == 0, done.stderr[-4000:]
    assert "clean" in done.stdout
