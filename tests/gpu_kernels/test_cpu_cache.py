"""Compiled kernels on disk: found again by the next process, never older than their sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpu_kernels

pytest.importorskip("numba", reason="the CPU engine needs numba")

from gpu_kernels.engines.cpu import american_rows
from gpu_kernels.engines.cpu.compile import _SharedFile, source_key, sources_of

PACKAGE = Path(gpu_kernels.__file__).parent
KERNEL = Path("engines/cpu/european.py")

SCRIPT = """
import gpu_kernels as gk
from gpu_kernels.engines.cpu import european
price = float(gk.engine("cpu").price(gk.Options(spot=100.0, strike=100.0, expiry=1.0, vol=0.2)).price)
print(gk.__file__, price, sum(european.price_rows.stats.cache_hits.values()))
"""


def _copy(tmp_path: Path) -> Path:
    target = tmp_path / "gpu_kernels"
    shutil.copytree(PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__", "*.csv"))
    return target


def _run(folder: Path) -> tuple[float, int]:
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    environment |= {"PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=folder,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    place, price, hits = done.stdout.split()
    assert Path(place).parent.parent == folder
    return float(price), int(hits)


def test_key_covers_formulas_and_primitives() -> None:
    names = {str(path.relative_to(PACKAGE)) for path in sources_of(PACKAGE / KERNEL)}
    assert {
        str(KERNEL),
        "formulas/black_scholes.py",
        "formulas/mills.py",
        "engines/cpu/ops.py",
        "engines/cpu/elementary.py",
        "engines/cpu/compile.py",
    } <= names
    assert "formulas/implied_vol.py" not in names


@pytest.mark.parametrize("edited", ["formulas/mills.py", "engines/cpu/elementary.py", str(KERNEL)])
def test_editing_a_source_changes_the_key(tmp_path: Path, edited: str) -> None:
    copy = _copy(tmp_path)
    before = source_key(copy / KERNEL)
    assert before == source_key(PACKAGE / KERNEL)
    with (copy / edited).open("a") as file:
        file.write("# edited\n")
    assert source_key(copy / KERNEL) != before


def test_the_next_process_runs_what_the_sources_say(tmp_path: Path) -> None:
    """Cold, warm, and after an edit of a formula in another file than the kernel's."""
    copy = _copy(tmp_path)
    cold, hits = _run(tmp_path)
    assert hits == 0
    warm, hits = _run(tmp_path)
    assert (warm, hits) == (cold, 1)
    formula = copy / "formulas/black_scholes.py"
    text = formula.read_text()
    assert "INV_SQRT_2PI = 0.3989422804014327" in text
    formula.write_text(text.replace("INV_SQRT_2PI = 0.3989422804014327", "INV_SQRT_2PI = 0.4989422804014327"))
    edited, hits = _run(tmp_path)
    assert hits == 0
    assert edited != cold


VARIANTS = """
import math
from numba import njit
from gpu_kernels.engines.cpu.compile import kernel

def variant(factor):
    @njit
    def inner(x):
        total = 0.0
        for at in range(x.shape[0]):
            LINES
        return total
    return inner

_double, _triple = variant(2.0), variant(3.0)

@kernel
def double(x):
    return _double(x)

@kernel
def triple(x):
    return _triple(x)
"""
CALL = "import sys, numpy, variants; print(*(getattr(variants, n)(numpy.ones(1)) for n in sys.argv[1:]))"


def _call(folder: Path, *names: str) -> subprocess.Popen[str]:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder / "cache")}
    environment["PYTHONPATH"] = f"{folder}{os.pathsep}{PACKAGE.parent}"
    return subprocess.Popen(
        [sys.executable, "-c", CALL, *names], stdout=subprocess.PIPE, text=True, cwd=folder, env=environment
    )


def test_variants_compiled_by_two_processes_stay_apart_in_a_third(tmp_path: Path) -> None:
    """numba's own numbers give both inner functions one name, and the loader takes the first for both."""
    # Long enough to remain a function, not pasted into the kernel.
    lines = "; ".join(f"total += factor * math.sin(x[at] + {k}) ** 2" for k in range(200))
    (tmp_path / "variants.py").write_text(VARIANTS.replace("LINES", lines))
    others = [_call(tmp_path, name) for name in ("double", "triple")]
    apart = [other.communicate(timeout=120)[0].strip() for other in others]
    together = _call(tmp_path, "double", "triple").communicate(timeout=120)[0].split()
    assert together == apart
    assert float(together[1]) == pytest.approx(1.5 * float(together[0]), rel=1e-12)


def _shared_file(folder: Path, stamp: str) -> Any:
    return _SharedFile(str(folder), "kernel", stamp)  # type: ignore[no-untyped-call]


def test_processes_that_save_one_kernel_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    (tmp_path / "saver.py").write_text(SAVER)
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    savers = [
        subprocess.Popen([sys.executable, "saver.py", str(number)], cwd=tmp_path, env=environment)
        for number in range(3)
    ]
    assert [saver.wait(timeout=120) for saver in savers] == [0, 0, 0]
    file = _shared_file(tmp_path, "stamp")
    for number in range(3):
        for at in range(50):
            assert file.load((number, at)) == f"code {number} {at}"
    assert len(list(tmp_path.glob("kernel.*.nbc"))) == 150


SAVER = """
import sys
from gpu_kernels.engines.cpu.compile import _SharedFile
file = _SharedFile(".", "kernel", "stamp")
for at in range(50):
    number = int(sys.argv[1])
    file.save((number, at), f"code {number} {at}")
"""


def test_code_of_older_sources_is_removed(tmp_path: Path) -> None:
    _shared_file(tmp_path, "old").save("key", "old code")
    _shared_file(tmp_path, "new").save("key", "new code")
    (left,) = tmp_path.glob("kernel.*.nbc")
    assert b"new code" in left.read_bytes()
    assert _shared_file(tmp_path, "old").load("key") is None


def test_read_only_columns_are_not_compiled_for_anew() -> None:
    cpu = gpu_kernels.engine("cpu")
    spot = np.linspace(90.0, 110.0, 64)
    answers: list[Any] = []
    for writeable in (True, False):
        spot.flags.writeable = writeable
        options = gpu_kernels.Options(spot=spot, strike=100.0, expiry=1.0, vol=0.2, american=True)
        answers.append(cpu.price(options).price)
        kinds = len(american_rows.price_rows.signatures)
    assert (answers[0] == answers[1]).all()
    assert kinds == 1
