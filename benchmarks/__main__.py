"""Runs every benchmark of this folder, or those named, each in a process of its own.

python -m benchmarks [NAME ...]
"""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

# Modules that benchmarks are made of, not benchmarks themselves.
SUPPORT = frozenset({"__main__", "measure", "risk_world"})


def names() -> list[str]:
    """Every benchmark there is."""
    found = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return sorted(name for name in found if name not in SUPPORT)


def main(wanted: list[str]) -> int:
    """Run the benchmarks; 2 for an unknown name, 1 if one failed."""
    unknown = sorted(set(wanted) - set(names()))
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(names())}", file=sys.stderr)
        return 2
    failed = []
    for name in wanted or names():
        print(f"== {name}", file=sys.stderr, flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
