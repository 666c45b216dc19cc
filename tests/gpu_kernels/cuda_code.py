"""What the CUDA kernels come to in sm_90 machine code: bytes, registers and instructions of one row.

`python tests/gpu_kernels/cuda_code.py` compiles the kernels with NVRTC, reads the machine code with nvdisasm
(both from PyPI; neither needs a device) and writes benchmarks/results/cuda_code.json and the tables of
docs/formulas/gpu.md. A test makes the figures anew and compares.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import cuda_toolchain

from gpu_kernels.engines.cuda import compile as cuda_compile

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "cuda_code.json"
PAGE = ROOT / "docs" / "formulas" / "gpu.md"
BEGIN, END = "<!-- cuda_code.py: {} -->", "<!-- end -->"

# Carried out by the double-precision units. MUFU makes the first guess of a division or root elsewhere.
DOUBLE = ("DFMA", "DMUL", "DADD", "DSETP")
JUMPS = ("BRA", "BSSY", "CALL", "BREAK", "BRX")
# An H200: copy bandwidth as measured on one; instructions per second by the datasheet's clock, of 132
# multiprocessors with 64 double-precision units and 4 issue slots (32 threads each).
BYTES_PER_SECOND = 4.3e12
DOUBLE_PER_SECOND = 16.7e12
ISSUED_PER_SECOND = 30e12
REGISTERS = 65_536
ROWS = ("price_rows", "greeks_rows", "implied_vol_rows")
TITLES = {"price_rows": "price", "greeks_rows": "price and eight Greeks", "implied_vol_rows": "implied vol"}

_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*)")
_PLACE = re.compile(r"^(\.L_x_\d+):")


class Instruction(NamedTuple):
    """One instruction of machine code: its name without what follows the first dot, and its operands."""

    name: str
    operands: str


class Code(NamedTuple):
    """Instructions in their order, and where the named places are."""

    instructions: list[Instruction]
    places: dict[str, int]


def nvdisasm() -> str | None:
    """The disassembler: on the PATH, or where its wheel puts it."""
    found = shutil.which("nvdisasm")
    if found is not None:
        return found
    site = Path(sysconfig.get_path("platlib"))
    return next((str(path) for path in site.glob("nvidia/*/bin/nvdisasm")), None)


def disassembled(code: bytes, tool: str) -> Code:
    """The kernel's own instructions, up to its last exit: behind it are rare cases of division and root."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(code)
        text = subprocess.run([tool, str(path)], capture_output=True, text=True, check=True).stdout
    instructions: list[Instruction] = []
    places: dict[str, int] = {}
    for line in text.splitlines():
        place = _PLACE.match(line.strip())
        if place is not None:
            places[place.group(1)] = len(instructions)
        found = _INSTRUCTION.search(line)
        if found is not None:
            instructions.append(Instruction(found.group(1).split(".")[0], found.group(2)))
    last = max(i for i, one in enumerate(instructions) if one.name == "EXIT")
    return Code(instructions[: last + 1], places)


def loop(code: Code) -> list[Instruction]:
    """The longest loop: from a place to the last jump back to it."""
    longest: list[Instruction] = []
    for i, one in enumerate(code.instructions):
        place = re.search(r"\.L_x_\d+", one.operands) if one.name == "BRA" else None
        start = code.places.get(place.group(0), i + 1) if place else i + 1
        if i + 1 - start > len(longest):
            longest = code.instructions[start : i + 1]
    return longest


def figures(kernel: Any, tool: str) -> dict[str, int]:
    """Counts for one kernel; those of instructions are of its loop over rows."""
    built = cuda_toolchain.cubin(kernel.source(), cuda_compile.OPTIONS)
    body = Counter(one.name for one in loop(disassembled(built.code, tool)))
    traffic = cuda_compile.bytes_per_row(kernel)
    by_registers = REGISTERS // (-(-built.registers // 8) * 8 * kernel.threads)
    return {
        "bytes_read": traffic.read,
        "bytes_written": traffic.written,
        "registers": built.registers,
        "spilled_bytes": built.spilled_bytes,
        "threads_resident": by_registers * kernel.threads,
        "double_precision": sum(body[name] for name in DOUBLE),
        "first_guesses": body["MUFU"],
        "jumps": sum(body[name] for name in JUMPS),
        "all_instructions": sum(body.values()),
    }


def measured(tool: str) -> dict[str, dict[str, int]]:
    """The figures of every kernel over rows."""
    kernels = {kernel.name: kernel for kernel in cuda_compile.every_kernel()}
    return {name: figures(kernels[name], tool) for name in ROWS}


def table_of_counts(counts: dict[str, dict[str, int]]) -> str:
    """Bytes, registers and instructions, as the page shows them."""
    lines = [
        "| kernel | bytes read + written | registers | threads resident | spilled bytes | FP64 instructions"
        " | jumps | all instructions |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in counts.items():
        lines.append(
            f"| {TITLES[name]} | {one['bytes_read']} + {one['bytes_written']} | {one['registers']}"
            f" | {one['threads_resident']:,} | {one['spilled_bytes']} | {one['double_precision']}"
            f" | {one['jumps']} | {one['all_instructions']:,} |"
        )
    return "\n".join(lines)


def table_of_bounds(counts: dict[str, dict[str, int]]) -> str:
    """Rows per second that memory, the double-precision units and instruction issue would allow."""
    lines = ["| kernel | memory | FP64 units | instruction issue |", "|---|---|---|---|"]
    for name, one in counts.items():
        bounds = [
            BYTES_PER_SECOND / (one["bytes_read"] + one["bytes_written"]),
            DOUBLE_PER_SECOND / one["double_precision"],
            ISSUED_PER_SECOND / one["all_instructions"],
        ]
        cells = [f"{bound / 1e9:.0f} G/s" for bound in bounds]
        least = bounds.index(min(bounds))
        cells[least] = f"**{cells[least]}**"
        lines.append(f"| {TITLES[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def page_with(text: str, name: str, table: str) -> str:
    """The page's text with the table of that name in its place."""
    begin = BEGIN.format(name)
    before, _, after = text.partition(begin)
    _, _, rest = after.partition(END)
    return f"{before}{begin}\n{table}\n{END}{rest}"


def main() -> None:
    """Measure; write the results and the page."""
    tool = nvdisasm()
    if tool is None:
        raise SystemExit("needs nvdisasm: python -m pip install nvidia-cuda-nvdisasm")
    counts = measured(tool)
    compiler = cuda_toolchain.compiler_version()
    RESULTS.write_text(json.dumps({"nvrtc": compiler, "sm_90": counts}, indent=1) + "\n")
    page = page_with(PAGE.read_text(), "counts", table_of_counts(counts))
    PAGE.write_text(page_with(page, "bounds", table_of_bounds(counts)))
    print(table_of_counts(counts), table_of_bounds(counts), sep="\n\n")


if __name__ == "__main__":
    main()
