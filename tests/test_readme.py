"""The README's first example runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_example_runs():
    [example, *_] = re.findall(r"```python\n(.*?)```", README, re.S)
    ended = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("delta ")
    assert "ES" in ended.stdout


def test_every_folder_of_the_map_is_there():
    root = Path(__file__).parents[1]
    folders = re.findall(r"`(\w+)/`", README)
    assert "gpu_kernels" in folders
    for name in folders:
        assert (root / name).is_dir(), name


def test_the_picture_is_there():
    [picture] = re.findall(r"!\[[^]]*\]\(([^)]*)\)", README)
    assert (Path(__file__).parents[1] / picture).is_file()
