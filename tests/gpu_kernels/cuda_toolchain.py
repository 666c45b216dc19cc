"""Compiles CUDA C++ for sm_90 without a device, and reads from the result what the machine would need."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

import pytest

ARCHITECTURE = "sm_90"


class Cubin(NamedTuple):
    """Machine code of one kernel and the assembler's account of it."""

    code: bytes
    registers: int
    spilled_bytes: int  # stores and loads of registers that did not fit
    stack_bytes: int  # local memory, slower than registers by two orders of magnitude
    shared_bytes: int
    log: str


@cache
def cubin(source: str, options: tuple[str, ...]) -> Cubin:
    """Machine code, made once per process; fails the test with the compiler's words where there is none."""
    flags = (*options, f"--gpu-architecture={ARCHITECTURE}", "--ptxas-options=-v")
    code, log = _compiled(source, flags)
    return Cubin(
        code=code,
        registers=_number(r"Used (\d+) registers", log),
        spilled_bytes=_number(r"(\d+) bytes spill stores", log) + _number(r"(\d+) bytes spill loads", log),
        stack_bytes=_number(r"(\d+) bytes stack frame", log),
        shared_bytes=_number(r"(\d+) bytes smem", log, default=0),
        log=log,
    )


def compiler_version() -> str:
    """Of NVRTC."""
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="needs cuda-bindings and nvidia-cuda-nvrtc")
    _, major, minor = nvrtc.nvrtcVersion()
    return f"{major}.{minor}"


def _compiled(source: str, flags: tuple[str, ...]) -> tuple[bytes, str]:
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="needs cuda-bindings and nvidia-cuda-nvrtc")
    done = nvrtc.nvrtcResult.NVRTC_SUCCESS
    status, program = nvrtc.nvrtcCreateProgram(source.encode(), b"kernel.cu", 0, [], [])
    assert status == done
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, len(flags), [flag.encode() for flag in flags])
        _, log_size = nvrtc.nvrtcGetProgramLogSize(program)
        # The binding writes into the bytes it is given; one byte alone would be Python's shared one.
        log = b" " * max(log_size, 2)
        nvrtc.nvrtcGetProgramLog(program, log)
        text = log.decode(errors="replace")
        assert status == done, text
        _, size = nvrtc.nvrtcGetCUBINSize(program)
        code = b" " * size
        (status,) = nvrtc.nvrtcGetCUBIN(program, code)
        assert status == done
        return code, text
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _number(pattern: str, text: str, default: int | None = None) -> int:
    found = re.search(pattern, text)
    if found is None:
        assert default is not None, f"no {pattern!r} in the assembler's log:\n{text}"
        return default
    return int(found.group(1))
