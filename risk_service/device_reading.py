"""What is known of the NVIDIA devices at one moment, and its form on the pipe from the process that asks."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum


class State(StrEnum):
    """How it stands with the driver."""

    UNASKED = "unasked"
    ANSWERS = "answers"
    NO_DRIVER = "no driver"  # or no library for it: there is nothing to watch
    REFUSES = "refuses"  # there is a driver, and it or the process that asks it fails
    SILENT = "silent"  # it has been asked and does not come back


@dataclass(frozen=True, slots=True)
class Device:
    """One device at one moment. What the driver does not tell is NaN; memory is then 0 of 0."""

    name: str
    memory_used_bytes: int
    memory_total_bytes: int
    utilisation: float  # 0 to 1
    temperature_celsius: float
    last_xid: int  # 0: no fault since this service began to watch
    lost: str = ""  # the driver's words where it has lost the device, as when it falls off the bus


@dataclass(frozen=True, slots=True)
class Reading:
    """What the driver said last; `words` says what is wrong where something is."""

    devices: tuple[Device, ...]
    words: str
    state: State = State.ANSWERS

    def line(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of_line(cls, line: str) -> Reading:
        """The other way."""
        known = json.loads(line)
        devices = tuple(Device(**one) for one in known["devices"])
        return cls(devices, known["words"], State(known["state"]))
