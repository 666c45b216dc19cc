"""Compiled kernels on disk: found again by the next process, never older than their sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gpu_kernels

pytest.importorskip("numba", reason="the CPU engine needs numba")

from gpu_kernels.engines.cpu.compile import source_key, sources_of

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
