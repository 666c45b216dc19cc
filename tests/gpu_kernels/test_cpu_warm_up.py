"""Every kernel that Python calls is compiled by the warm-up, and what a live desk needs before it answers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import gpu_kernels.engines.cpu as cpu

FOLDER = Path(cpu.__file__).parent
# Asked for by callers, now and then: a service compiles them as it runs.
LATER = {"fast_boundaries", "fast_vols", "write_figures", "march", "_write", "read_rows"}
_RUN = """
import importlib, sys
from gpu_kernels.engines.cpu import warming
{call}()
for name in sys.argv[1:]:
    module, kernel = name.split(".")
    found = getattr(importlib.import_module("gpu_kernels.engines.cpu." + module), kernel)
    if not found.overloads:
        print(kernel)
"""


def kernels_called_by_python() -> list[str]:
    """As module.kernel: decorated as kernels, and named in a function that is not compiled itself."""
    kernels, named = {}, set()
    for path in sorted(FOLDER.glob("*.py")):
        for one in ast.walk(ast.parse(path.read_text())):
            if not isinstance(one, ast.FunctionDef):
                continue
            marks = {mark.id for mark in one.decorator_list if isinstance(mark, ast.Name)}
            if "kernel" in marks:
                kernels[one.name] = f"{path.stem}.{one.name}"
            elif not marks & {"inline", "njit"} and path.stem != "warming":
                inside = ast.walk(one)
                named |= {n.id for n in inside if isinstance(n, ast.Name)}
                named |= {n.attr for n in ast.walk(one) if isinstance(n, ast.Attribute)}
    return sorted(place for name, place in kernels.items() if name in named)


def not_compiled_by(call: str) -> set[str]:
    order = [sys.executable, "-c", _RUN.format(call=call), *kernels_called_by_python()]
    done = subprocess.run(order, capture_output=True, text=True, check=True, timeout=600)
    return set(done.stdout.split())


def test_the_warm_up_leaves_no_kernel_out() -> None:
    called = {name.partition(".")[2] for name in kernels_called_by_python()}
    assert len(called) > 15
    assert called > LATER
    assert not_compiled_by("warming.warm_up_all") == set()


def test_a_service_waits_for_all_that_a_live_desk_needs() -> None:
    assert not_compiled_by("warming.warm_up_first") <= LATER
