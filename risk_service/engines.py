"""The engines of this process: the one that answers, and those that can be asked for by name.

An engine is looked for when it is first wanted: a service that answers with one does not load the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import gpu_kernels as gk
from gpu_kernels.engines.choose import Probe
from service_kit.errors import InvalidRequest, SettingError


@dataclass(frozen=True, slots=True)
class Engines:
    """The serving engine, and the way to the others."""

    serving: gk.Engine
    chosen_because: str

    @classmethod
    def probe(cls, wanted: str) -> Engines:
        """Takes the engine that the settings want; "auto" takes the fastest that is there."""
        if wanted == "auto":
            return cls(gk.engine("auto"), "the fastest that is there")
        try:
            return cls(gk.engine(wanted), "asked for by the settings")
        except gk.EngineUnavailable as fault:
            raise SettingError("risk.engine", str(fault)) from fault

    @property
    def all(self) -> tuple[Probe, ...]:
        """Every engine we know of, there or not; loads what has not been loaded yet."""
        return gk.available_engines()

    def named(self, name: str) -> gk.Engine:
        """The engine of that name, or the serving one for the empty name; never another than asked for."""
        if not name:
            return self.serving
        try:
            return gk.engine(name)
        except gk.EngineUnavailable as fault:
            raise InvalidRequest("engine", str(fault)) from fault
