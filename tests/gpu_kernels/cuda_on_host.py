"""Runs the CUDA kernels' own source on the processor: g++ behind a thin header, called through ctypes."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HEADER = Path(__file__).parent / "cuda_on_host.h"
# Contraction as NVRTC does it. Never -ffast-math: NaN and infinity mean something here.
FLAGS = ("-std=c++20", "-O2", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread", "-w")


# A program of its own may add a sanitizer here before it compiles anything.
EXTRA_FLAGS: list[str] = []


class HostKernel:
    """A kernel that takes NumPy arrays where the device takes device arrays."""

    def __init__(self, kernel: Any) -> None:
        compiler = shutil.which("g++")
        if compiler is None:
            pytest.skip("no g++: the CUDA kernels' arithmetic is not checked on this machine")
        source = kernel.source()
        self._folder = tempfile.TemporaryDirectory()
        text, library = Path(self._folder.name, "kernel.cpp"), Path(self._folder.name, "kernel.so")
        text.write_text(HEADER.read_text() + source + _entry_point(kernel.name, source))
        command = [compiler, *FLAGS, *EXTRA_FLAGS, str(text), "-o", str(library)]
        # The compiler itself is not to run under a sanitizer that was preloaded for its product.
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        self._call = ctypes.CDLL(str(library)).run_on_host
        self._call.restype = None

    def __call__(self, grid: int | tuple[int, int], threads: int, *arguments: Any) -> None:
        x, y = grid if isinstance(grid, tuple) else (grid, 1)
        sizes = [ctypes.c_uint(number) for number in (x, y, threads)]
        self._call(*sizes, *[_as_c(argument) for argument in arguments])


def _entry_point(name: str, source: str) -> str:
    found = re.search(rf'extern "C" __global__ [^{{]*\b{name}\(([^{{]*)\) {{', source)
    assert found is not None, f"no kernel {name} in its own source"
    parameters = found.group(1)
    names = ", ".join(re.findall(r"(\w+)(?:,|$)", parameters))
    barriers = "true" if "__syncthreads" in source.partition('extern "C" __global__')[2] else "false"
    return (
        f'extern "C" void run_on_host(unsigned grid_x, unsigned grid_y, unsigned threads, {parameters}) {{\n'
        f"  for_every_thread(grid_x, grid_y, threads, {barriers}, [&] {{ {name}({names}); }});\n}}\n"
    )


def _as_c(argument: Any) -> Any:
    if isinstance(argument, np.ndarray):
        assert argument.flags.c_contiguous
        return ctypes.c_void_p(argument.ctypes.data)
    if isinstance(argument, np.floating | float):
        return ctypes.c_double(float(argument))
    return ctypes.c_longlong(int(argument))
