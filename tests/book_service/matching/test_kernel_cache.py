"""numba's disk cache must not run old code after an edit of any file of the core."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import book_service.matching
from book_service.matching import kernel
from book_service.matching.engine import kernels

PACKAGE = Path(book_service.matching.__file__).parent

CALLER = """
import sys
from pathlib import Path
from numba import njit
from book_service.matching.kernel import fingerprint
sys.path.insert(0, str(Path(__file__).parent))
from callee import answer

def build(sources):
    @njit("int64()", cache=True)
    def run():
        return answer() if sources else 0
    return run

run = build(fingerprint(Path(__file__).parent))
print(run(), sum(run.stats.cache_hits.values()))
"""
CALLEE = "from numba import njit\n@njit\ndef answer():\n    return {answer}\n"


def test_an_edit_of_any_source_changes_the_fingerprint(tmp_path: Path) -> None:
    copy = tmp_path / "matching"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    seen = {kernel.fingerprint(copy)}
    assert seen == {kernel.fingerprint()}
    sources = sorted(copy.glob("*.py"))
    for path in sources:
        path.write_text(path.read_text() + "\n")
        seen.add(kernel.fingerprint(copy))
    assert len(seen) == len(sources) + 1


def test_every_kernel_closes_over_the_fingerprint() -> None:
    for compiled in kernels():
        cells = [cell.cell_contents for cell in compiled.py_func.__closure__ or ()]
        assert kernel.fingerprint() in cells


def test_what_is_closed_over_decides_whether_the_cache_is_used(tmp_path: Path) -> None:
    """The mechanism end to end, on a kernel small enough to compile three times."""
    (tmp_path / "caller.py").write_text(CALLER)
    environment = os.environ | {
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": str(PACKAGE.parents[1]),
    }

    def run(answer: int) -> list[int]:
        (tmp_path / "callee.py").write_text(CALLEE.format(answer=answer))
        out = subprocess.run(
            [sys.executable, str(tmp_path / "caller.py")],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return [int(word) for word in out.stdout.split()]

    assert run(41) == [41, 0]
    assert run(41) == [41, 1]
    assert run(42) == [42, 0]
