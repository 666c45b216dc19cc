"""The engines of this process: the one that answers, and those that can be asked for by name."""

from __future__ import annotations

from dataclasses import dataclass

import gpu_kernels as gk
from gpu_kernels.engines.choose import Probe
from service_kit.errors import InvalidRequest, SettingError


@dataclass(frozen=True, slots=True)
class Engines:
    """Probed once, when the service starts."""

    serving: gk.Engine
    chosen_because: str
    all: tuple[Probe, ...]

    @classmethod
    def probe(cls, wanted: str) -> Engines:
        """Takes the engine that the settings want; "auto" takes the fastest that is there."""
        found = gk.available_engines()
        if wanted == "auto":
            return cls(gk.engine("auto"), "the fastest that is there", found)
        try:
            return cls(gk.engine(wanted), "asked for by the settings", found)
        except gk.EngineUnavailable as fault:
            raise SettingError("risk.engine", str(fault)) from fault

    def named(self, name: str) -> gk.Engine:
        """The engine of that name, or the serving one for the empty name; never another than asked for."""
        if not name:
            return self.serving
        try:
            return gk.engine(name)
        except gk.EngineUnavailable as fault:
            raise InvalidRequest("engine", str(fault)) from fault
