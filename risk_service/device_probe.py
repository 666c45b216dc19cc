"""Asks the NVIDIA driver's library (NVML) how the devices are, in a process of its own; one JSON line each.

A driver in trouble may never come back, and a thread that waits for it inside the kernel cannot be killed:
its process would keep its ports for ever, and the service could not be started anew. So the service never
loads NVML itself. NVML is no part of CUDA; asking it touches no context. This process ends with its input.
"""

from __future__ import annotations

import ctypes
import math
import select
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from risk_service.device_reading import Device, Reading, State

INTERVAL_S = 2.0
# A lost device comes back, after a reset, only to who asks for it anew.
ASK_ANEW_S = 30.0
# A device may report faults without end; they are all counted in the driver's log, not here.
BETWEEN_FAULTS_S = 0.2
LIBRARY = "pynvml"


class Nvml(Protocol):
    """The library, as far as names go; it carries no types."""

    def __getattr__(self, name: str) -> Any: ...


Say = Callable[[Reading], None]
Ended = Callable[[float], bool]  # waits so many seconds; whether this process is to end


def probe(nvml: Nvml, say: Say, ended: Ended, interval_s: float = INTERVAL_S) -> None:
    """Asks until it is to end, or the driver refuses."""
    xids: dict[int, int] = {}
    names: dict[int, str] = {}
    try:
        nvml.nvmlInit()
        while not ended(0.0):
            asked = _Asked.of(nvml, xids, names)
            began = time.monotonic()
            while not ended(0.0):
                reading = asked.read()
                say(reading)
                lost = not reading.devices or any(one.lost for one in reading.devices)
                if lost and time.monotonic() - began >= ASK_ANEW_S:
                    nvml.nvmlShutdown()
                    nvml.nvmlInit()
                    break
                asked.wait(interval_s, ended)
        nvml.nvmlShutdown()
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded) as fault:
        say(Reading((), f"no NVIDIA driver: {fault}", State.NO_DRIVER))
    except nvml.NVMLError as fault:
        say(Reading((), f"the NVIDIA driver does not work: {fault}", State.REFUSES))


@dataclass(slots=True)
class _Asked:
    """The library with its devices."""

    nvml: Nvml
    handles: list[Any]  # None where the driver gives none
    events: Any | None
    last_xid: dict[int, int]
    names: dict[int, str]
    _words: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, nvml: Nvml, last_xid: dict[int, int], names: dict[int, str]) -> _Asked:
        asked = cls(nvml, [], None, last_xid, names)
        for place in range(nvml.nvmlDeviceGetCount()):
            try:
                asked.handles.append(nvml.nvmlDeviceGetHandleByIndex(place))
            except nvml.NVMLError as fault:
                asked.handles.append(None)
                asked._words[place] = str(fault)
        try:
            asked.events = nvml.nvmlEventSetCreate()
            for handle in asked.handles:
                if handle is not None:
                    nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, asked.events)
        except nvml.NVMLError:
            # Windows and some virtual devices tell of no events.
            asked.events = None
        return asked

    def read(self) -> Reading:
        """All devices, now."""
        devices = tuple(self._device(place, handle) for place, handle in enumerate(self.handles))
        if not devices:
            return Reading((), "the NVIDIA driver knows of no device", State.REFUSES)
        lost = (f"device {place} is lost: {one.lost}" for place, one in enumerate(devices) if one.lost)
        return Reading(devices, "; ".join(lost))

    def wait(self, seconds: float, ended: Ended) -> None:
        """Until the next reading is due, or a device reports a fault."""
        if self.events is None:
            ended(seconds)
            return
        try:
            event = self.nvml.nvmlEventSetWait_v2(self.events, int(seconds * 1e3))
        except self.nvml.NVMLError_Timeout:
            return
        except self.nvml.NVMLError:
            # As of a lost device: the next reading tells which.
            ended(seconds)
            return
        for place in self._places(event.device):
            self.last_xid[place] = int(event.eventData)
        ended(BETWEEN_FAULTS_S)

    def _places(self, device: Any) -> list[int]:
        """Whose event it is. A device that has fallen off the bus does not even tell its name any more."""
        known = [place for place, one in enumerate(self.handles) if one is not None]
        return [place for place in known if _address(self.handles[place]) == _address(device)] or known

    def _device(self, place: int, handle: Any) -> Device:
        if handle is None:
            return self._lost(place, self._words[place])
        try:
            return self._well(place, handle)
        except self.nvml.NVMLError as fault:
            return self._lost(place, str(fault))

    def _lost(self, place: int, words: str) -> Device:
        name = self.names.get(place, f"device {place}")
        return Device(name, 0, 0, math.nan, math.nan, self.last_xid.get(place, 0), words)

    def _well(self, place: int, handle: Any) -> Device:
        nvml = self.nvml
        memory = self._or(nvml.nvmlDeviceGetMemoryInfo, handle, None)
        rates = self._or(nvml.nvmlDeviceGetUtilizationRates, handle, None)
        celsius = self._or(
            lambda one: nvml.nvmlDeviceGetTemperature(one, nvml.NVML_TEMPERATURE_GPU), handle, math.nan
        )
        name = self._or(nvml.nvmlDeviceGetName, handle, f"device {place}")
        self.names[place] = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
        return Device(
            name=self.names[place],
            memory_used_bytes=0 if memory is None else int(memory.used),
            memory_total_bytes=0 if memory is None else int(memory.total),
            utilisation=math.nan if rates is None else rates.gpu / 100.0,
            temperature_celsius=float(celsius),
            last_xid=self.last_xid.get(place, 0),
        )

    def _or(self, ask: Callable[[Any], Any], handle: Any, otherwise: Any) -> Any:
        """What the driver tells, or the other where it does not tell this (a MIG slice has no load)."""
        try:
            return ask(handle)
        except (self.nvml.NVMLError_NotSupported, self.nvml.NVMLError_NoPermission):
            return otherwise


def _address(handle: Any) -> Any:
    return ctypes.cast(handle, ctypes.c_void_p).value if isinstance(handle, ctypes._Pointer) else handle


def _say(reading: Reading) -> None:
    sys.stdout.write(reading.line() + "\n")
    sys.stdout.flush()


def _input_ended(seconds: float) -> bool:
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def main() -> None:
    """The process: `python -m risk_service.device_probe [SECONDS]`, with the seconds between two readings."""
    try:
        nvml = import_module(LIBRARY)
    except ImportError:
        words = "the NVML library for Python (nvidia-ml-py) is not installed"
        _say(Reading((), words, State.NO_DRIVER))
        return
    probe(nvml, _say, _input_ended, float(sys.argv[1]) if len(sys.argv) > 1 else INTERVAL_S)


if __name__ == "__main__":
    main()
