"""The counts that the page on GPUs gives are those of the machine code as it is compiled today."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("cupy", reason="needs CuPy to transpile the kernels")

import cuda_code
import cuda_toolchain

# Another release of the compiler may order instructions in another way; a change of the formula shows.
TOLERANCE = 0.1


@pytest.fixture(scope="module")
def committed() -> Any:
    return json.loads(cuda_code.RESULTS.read_text())


def test_the_page_shows_the_committed_figures(committed: Any) -> None:
    page = cuda_code.PAGE.read_text()
    for name, table in (("counts", cuda_code.table_of_counts), ("bounds", cuda_code.table_of_bounds)):
        assert cuda_code.page_with(page, name, table(committed["sm_90"])) == page


def test_nothing_is_spilled_and_the_committed_registers_are_todays(committed: Any) -> None:
    kernels = {one.name: one for one in cuda_code.cuda_compile.every_kernel()}
    for name, one in committed["sm_90"].items():
        built = cuda_toolchain.cubin(kernels[name].source(), cuda_code.cuda_compile.OPTIONS)
        assert built.spilled_bytes == one["spilled_bytes"] == 0
        same = built.registers == one["registers"]
        assert same or cuda_toolchain.compiler_version() != committed["nvrtc"], name


def test_the_committed_instructions_are_todays(committed: Any) -> None:
    tool = cuda_code.nvdisasm()
    if tool is None:
        pytest.skip(
            "no nvdisasm (nvidia-cuda-nvdisasm): the instructions of the CUDA kernels are not counted"
        )
    for name, one in cuda_code.measured(tool).items():
        wanted = committed["sm_90"][name]
        if cuda_toolchain.compiler_version() == committed["nvrtc"]:
            assert one == wanted, name
        for key in ("double_precision", "all_instructions"):
            assert abs(one[key] / wanted[key] - 1.0) < TOLERANCE, (name, key)
