"""Files that a command writes are whole or not there, and what cannot be written is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from risk_cli.answers import whole_file
from risk_cli.refusals import CannotDo


def _full_disk(path: Path) -> None:
    with whole_file(path) as beside:
        beside.write_text("half")
        raise OSError(28, "No space left on device")


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(CannotDo, match=r"report\.html: cannot be written: No space left"):
        _full_disk(path)
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["report.html"])
    with whole_file(path) as beside:
        beside.write_text("new")
    assert (path.read_text(), os.listdir(tmp_path)) == ("new", ["report.html"])


def test_engines_says_what_is_not_compiled(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "risk_cli.main", "engines", "--csv"]
    cold = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, env=cold)
    (line,) = (one for one in done.stdout.splitlines() if one.startswith("cpu,"))
    assert "not compiled yet" in line
