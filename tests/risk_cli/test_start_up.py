"""Commands are there at once: help loads nothing that computes, small work waits for no compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gpu_kernels as gk

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


def test_a_small_file_is_priced_without_loading_a_connection() -> None:
    script = "import sys, risk_cli.pricing, risk_cli.stress.in_process\nprint('grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.skipif(gk.engine("auto").name != "cpu", reason="auto takes an engine that compiles nothing here")
@pytest.mark.parametrize("command", ["price", "iv"])
def test_where_nothing_is_compiled_small_work_does_not_wait(tmp_path: Path, command: str) -> None:
    """The first command on a machine answers by the reference engine and says so; --engine cpu stays cpu."""
    given = ["--vol", "0.2"] if command == "price" else ["--price", "8"]
    words = [command, "--spot", "100", "--strike", "100", "--expiry", "1", *given, "--american", "--json"]
    run = [sys.executable, "-m", "risk_cli.main", *words]
    cold = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    first = subprocess.run(run, capture_output=True, text=True, timeout=60, env=cold)
    asked = subprocess.run(
        [*run, "--engine", "reference"], capture_output=True, text=True, timeout=60, env=cold
    )
    assert first.returncode == asked.returncode == 0, first.stderr
    assert "reference engine" in first.stderr
    assert "risk warm-up" in first.stderr
    assert asked.stderr == ""
    assert first.stdout == asked.stdout
    assert not list(tmp_path.rglob("*.nbc"))


def test_large_work_is_worth_compiling_for(tmp_path: Path) -> None:
    script = (
        "from risk_cli.engine_choice import chosen_engine\n"
        "print(chosen_engine('auto', european=1e9).name, chosen_engine('cpu', european=1.0).name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
    )
    assert done.stdout.split() == [gk.engine("auto").name, "cpu"], done.stderr
    assert done.stderr.count("which is done now") == 1 + (gk.engine("auto").name == "cpu")
