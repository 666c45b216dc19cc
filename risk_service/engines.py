"""The engines of this process: the one that answers, and those that can be asked for by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import gpu_kernels as gk
from service_kit.errors import InvalidRequest, SettingError

NAMES = ("cuda", "cpu", "xla", "reference")


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether an engine is there, and why not."""

    name: str
    engine: gk.Engine | None
    reason: str


@dataclass(frozen=True, slots=True)
class Engines:
    """Probed once, when the service starts."""

    serving: gk.Engine
    chosen_because: str
    _found: Mapping[str, gk.Engine] = field(default_factory=dict)
    _missing: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def probe(cls, wanted: str) -> Engines:
        """Takes the engine that the settings want; "auto" takes the fastest that is there."""
        found: dict[str, gk.Engine] = {}
        missing: dict[str, str] = {}
        for name in NAMES:
            try:
                found[name] = gk.engine(name)
            except gk.EngineUnavailable as fault:
                missing[name] = str(fault)
        if wanted == "auto":
            return cls(gk.engine("auto"), "chosen by probing the machine", found, missing)
        if wanted in found:
            return cls(found[wanted], "asked for by the settings", found, missing)
        raise SettingError(
            "risk.engine", missing.get(wanted, f"{wanted!r} is none of auto, {', '.join(NAMES)}")
        )

    def named(self, name: str) -> gk.Engine:
        """The engine of that name, or the serving one for the empty name; never another than asked for."""
        if not name or name == self.serving.name:
            return self.serving
        if name in self._found:
            return self._found[name]
        raise InvalidRequest("engine", self._missing.get(name, f"{name!r} is none of {', '.join(NAMES)}"))

    def all(self) -> list[Availability]:
        """Every engine we know of, there or not."""
        return [Availability(name, self._found.get(name), self._missing.get(name, "")) for name in NAMES]
