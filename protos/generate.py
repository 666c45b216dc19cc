"""Regenerates the committed stubs from the schemas, or with --check proves that they match."""

from __future__ import annotations

import importlib.resources
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def generate(destination: Path) -> None:
    """Writes the stubs of every schema below `destination`, with the repository root as include root."""
    schemas = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "protos").rglob("*.proto"))
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    tools = Path(sys.executable).parent
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={ROOT}",
        f"--proto_path={well_known}",
        f"--plugin=protoc-gen-mypy={tools / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={tools / 'protoc-gen-mypy_grpc'}",
        f"--python_out={destination}",
        f"--mypy_out=quiet:{destination}",
        f"--grpc_python_out={destination}",
        f"--mypy_grpc_out=quiet:{destination}",
        *schemas,
    ]
    subprocess.run(command, check=True, cwd=ROOT)
    for path in (destination / "protos").rglob("*_pb2_grpc.py*"):
        if "Servicer" not in path.read_text():  # a schema without a service needs no gRPC stub
            path.unlink()


def stubs(root: Path) -> dict[str, bytes]:
    """Relative path and content of every stub below `root`."""
    found = (p for p in (root / "protos").rglob("*") if p.name.endswith(SUFFIXES))
    return {str(p.relative_to(root)): p.read_bytes() for p in found}


def differences() -> list[str]:
    """Stubs that differ from what the schemas give now."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh, committed = stubs(Path(scratch)), stubs(ROOT)
    return sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))


def main() -> int:
    """Entry point of `make protos` and of the check in `make check`."""
    if "--check" not in sys.argv[1:]:
        generate(ROOT)
        return 0
    stale = differences()
    for name in stale:
        print(f"{name} does not match its .proto: run `make protos`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
