"""`risk --help` is there at once: it loads nothing that computes, calls or compiles."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("numpy", "numba", "scipy", "jax", "grpc", "google.protobuf", "confluent_kafka", "gpu_kernels")


@pytest.mark.parametrize(
    "words", [("--help",), ("book", "--help"), ("feed", "--help"), ("stress", "--help"), ("watch", "--help")]
)
def test_help_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    script = (
        "import sys\nfrom risk_cli.main import app\n"
        f"app({list(words)!r}, standalone_mode=False)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
