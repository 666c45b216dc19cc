"""How the NVIDIA devices are, from the driver's own library (NVML): memory, load, temperature, faults (Xid).

A driver in trouble may never answer. So it is asked by a thread of its own that nobody waits for: everybody
else reads what it said last, and how long ago. NVML is no part of CUDA; asking it touches no context.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily

INTERVAL_S = 2.0
# A driver that has said nothing for so long is in trouble.
SILENT_AFTER_S = 10.0
LIBRARY = "pynvml"


@dataclass(frozen=True, slots=True)
class Device:
    """One device at one moment. What the driver does not tell is NaN; memory is then 0 of 0."""

    name: str
    memory_used_bytes: int
    memory_total_bytes: int
    utilisation: float  # 0 to 1
    temperature_celsius: float
    last_xid: int  # 0: no fault since this service began to watch


@dataclass(frozen=True, slots=True)
class Reading:
    """What the driver said last; `words` says why there is nothing where there is nothing."""

    devices: tuple[Device, ...]
    words: str


class Nvml(Protocol):
    """The library, as far as names go; it carries no types."""

    def __getattr__(self, name: str) -> Any: ...


def _library() -> Nvml:
    library: Nvml = import_module(LIBRARY)
    return library


@dataclass(slots=True, eq=False)
class DeviceWatch:
    """Asks the driver every few seconds in a thread that nobody waits for."""

    load: Callable[[], Nvml] = _library
    interval_s: float = INTERVAL_S
    clock: Callable[[], float] = time.monotonic
    _reading: Reading = Reading((), "the driver has not been asked yet")
    _read_at: float = field(default=-math.inf)
    _stop: threading.Event = field(default_factory=threading.Event)
    _read_once: threading.Event = field(default_factory=threading.Event)

    def start(self) -> DeviceWatch:
        """Begins to ask."""
        self._read_at = self.clock()
        threading.Thread(target=self._run, name="device health", daemon=True).start()
        return self

    def close(self) -> None:
        """Asks no more. Waits for nothing: the driver may hold the thread for ever."""
        self._stop.set()

    def wait_first(self, timeout_s: float) -> bool:
        """Waits until the driver has answered once, well or not."""
        return self._read_once.wait(timeout_s)

    @property
    def silent_s(self) -> float:
        """Seconds since the driver answered."""
        return self.clock() - self._read_at

    def latest(self) -> Reading:
        """What the driver said last, with the words for a driver that does not answer any more."""
        reading, silent = self._reading, self.silent_s
        if silent > SILENT_AFTER_S and not self._stop.is_set():
            return Reading(reading.devices, f"the driver has not answered for {silent:.0f} s")
        return reading

    def _run(self) -> None:
        try:
            nvml = self.load()
        except ImportError:
            self._say(Reading((), "the NVML library for Python (nvidia-ml-py) is not installed"))
            return
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as fault:
            # Without a driver there is nothing to ask again: one that is installed later needs a restart.
            self._say(Reading((), f"no NVIDIA driver: {fault}"))
            return
        try:
            asked = _Asked.of(nvml)
            while not self._stop.is_set():
                self._say(asked.read())
                asked.wait(self.interval_s, self._stop)
        except nvml.NVMLError as fault:
            self._say(Reading((), f"the driver refuses to answer: {fault}"))
        finally:
            nvml.nvmlShutdown()

    def _say(self, reading: Reading) -> None:
        self._reading, self._read_at = reading, self.clock()
        if not reading.devices:
            # Nobody asks any more, so nobody is late.
            self._read_at = math.inf
        self._read_once.set()


@dataclass(slots=True)
class _Asked:
    """The library with its devices, in the thread that asks."""

    nvml: Nvml
    handles: list[Any]
    events: Any | None
    last_xid: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, nvml: Nvml) -> _Asked:
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        try:
            events = nvml.nvmlEventSetCreate()
            for handle in handles:
                nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, events)
        except nvml.NVMLError:
            # Windows and some virtual devices tell of no events.
            events = None
        return cls(nvml, handles, events)

    def read(self) -> Reading:
        """All devices, now."""
        devices = tuple(self._device(place, handle) for place, handle in enumerate(self.handles))
        return Reading(devices, "" if devices else "the NVIDIA driver knows of no device")

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Until the next reading is due, or a device reports a fault."""
        if self.events is None:
            stop.wait(seconds)
            return
        try:
            event = self.nvml.nvmlEventSetWait_v2(self.events, int(seconds * 1e3))
        except self.nvml.NVMLError_Timeout:
            return
        for place, handle in enumerate(self.handles):
            if self._uuid(handle) == self._uuid(event.device):
                self.last_xid[place] = int(event.eventData)

    def _uuid(self, handle: Any) -> Any:
        return self._or(self.nvml.nvmlDeviceGetUUID, handle, None)

    def _device(self, place: int, handle: Any) -> Device:
        nvml = self.nvml
        memory = self._or(nvml.nvmlDeviceGetMemoryInfo, handle, None)
        rates = self._or(nvml.nvmlDeviceGetUtilizationRates, handle, None)
        celsius = self._or(
            lambda one: nvml.nvmlDeviceGetTemperature(one, nvml.NVML_TEMPERATURE_GPU), handle, math.nan
        )
        name = self._or(nvml.nvmlDeviceGetName, handle, f"device {place}")
        return Device(
            name=name.decode() if isinstance(name, bytes) else str(name),
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
        except self.nvml.NVMLError_NotSupported:
            return otherwise


@dataclass(frozen=True, slots=True, eq=False)
class DeviceCollector:
    """The readings for Prometheus: asked of the watch at each scrape, never of the driver."""

    watch: DeviceWatch

    def register(self, registry: CollectorRegistry) -> None:
        """Exports from now on."""
        registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One family per quantity, one sample per device."""
        devices = self.watch.latest().devices
        for name, words, value in _FAMILIES:
            yield _family(name, words, ((str(i), one.name, value(one)) for i, one in enumerate(devices)))
        answers = GaugeMetricFamily(
            "gpu_risk_device_driver_answers", "1 while the NVIDIA driver answers, 0 where there is none."
        )
        answers.add_metric([], float(bool(devices) and self.watch.silent_s <= SILENT_AFTER_S))
        yield answers


_FAMILIES: tuple[tuple[str, str, Callable[[Device], float]], ...] = (
    ("gpu_risk_device_memory_used_bytes", "Device memory in use.", lambda one: one.memory_used_bytes),
    ("gpu_risk_device_memory_total_bytes", "Device memory there is.", lambda one: one.memory_total_bytes),
    ("gpu_risk_device_utilisation_ratio", "Part of the time a kernel ran.", lambda one: one.utilisation),
    ("gpu_risk_device_temperature_celsius", "Temperature.", lambda one: one.temperature_celsius),
    ("gpu_risk_device_last_xid", "Newest fault reported by the driver; 0: none.", lambda one: one.last_xid),
)


def _family(name: str, words: str, rows: Iterable[tuple[str, str, float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=["device", "name"])
    for place, device, value in rows:
        family.add_metric([place, device], value)
    return family
