"""Which engines are there, and which one answers to "auto"; each is probed once per process."""

from __future__ import annotations

import threading
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from gpu_kernels.engines.engine import Engine
from gpu_kernels.errors import EngineUnavailable

# "auto" takes the first that is there. xla comes after cpu: without a GPU it is the slower of the two.
PREFERENCE = ("cuda", "cpu", "xla", "reference")


# What an engine cannot do without a file in its folder.
_DONE_IN = {
    "american_interpolant": ("interpolated American books",),
}


class Probe(NamedTuple):
    """What asking for an engine found: the engine, or the reason why there is none."""

    name: str
    engine: Engine | None
    reason: str


_found: dict[str, Probe] = {}
_lock = threading.Lock()


def engine(name: str = "auto") -> Engine:
    """The engine of that name, or the fastest one present for "auto"; raises EngineUnavailable by name."""
    if name == "auto":
        return _best()
    if name not in PREFERENCE:
        raise EngineUnavailable(f"unknown engine {name!r}; there are auto, {', '.join(PREFERENCE)}")
    probe = _probe(name)
    if probe.engine is None:
        raise EngineUnavailable(f"engine {name!r}: {probe.reason}")
    return probe.engine


def available_engines() -> tuple[Probe, ...]:
    """Every engine with its device, or why it is not there, in order of preference."""
    return tuple(_probe(name) for name in PREFERENCE)


def cannot(name: str) -> tuple[str, ...]:
    """What the engine of that name does not do, whether it is there or not."""
    folder = Path(__file__).parent / name
    return tuple(
        what
        for file, all_of_it in _DONE_IN.items()
        if not (folder / f"{file}.py").exists()
        for what in all_of_it
    )


def _best() -> Engine:
    for name in PREFERENCE:
        found = _probe(name).engine
        if found is not None:
            return found
    raise EngineUnavailable("no engine is there, not even the reference")


def _probe(name: str) -> Probe:
    with _lock:
        if name not in _found:
            _found[name] = _ask(name)
        return _found[name]


def _ask(name: str) -> Probe:
    package = f"{__package__}.{name}"
    if find_spec(package) is None:
        return Probe(name, None, "not part of this installation")
    try:
        backend = import_module(package)
        device = backend.probe()
    except EngineUnavailable as error:
        return Probe(name, None, str(error))
    except ImportError as error:
        return Probe(name, None, f"needs a library that is not installed ({error})")
    return Probe(name, Engine(name, device, backend), device)
