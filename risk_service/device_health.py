"""How the NVIDIA devices are: memory, load, temperature, faults (Xid), and whether the driver still answers.

A process of its own asks the driver (`device_probe`), a thread reads what it says, and nobody waits for
either: everybody else sees the last reading, and how old it is.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily

from risk_service.device_reading import Device, Reading, State

__all__ = ["Device", "DeviceCollector", "DeviceWatch", "Reading", "State"]

# A driver that has said nothing for so long is in trouble.
SILENT_AFTER_S = 10.0
# A driver that refuses is asked again after this: it may have been loaded anew meanwhile.
RETRY_S = 30.0
REAP_S = 1.0
UNASKED = Reading((), "the driver has not been asked yet", State.UNASKED)
COMMAND = (sys.executable, "-P", "-m", "risk_service.device_probe")


@dataclass(slots=True, eq=False)
class DeviceWatch:
    """What the process that asks the driver says, and when it said it."""

    command: tuple[str, ...] = COMMAND
    environment: Mapping[str, str] | None = None  # of that process; None: this one's
    retry_s: float = RETRY_S
    clock: Callable[[], float] = time.monotonic
    _reading: Reading = UNASKED
    _read_at: float = 0.0
    _last_xid: dict[int, int] = field(default_factory=dict)
    _process: subprocess.Popen[str] | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _read_once: threading.Event = field(default_factory=threading.Event)

    def start(self) -> DeviceWatch:
        """Begins to ask."""
        self._read_at = self.clock()
        threading.Thread(target=self._run, name="device health", daemon=True).start()
        return self

    def close(self) -> None:
        """Asks no more. Waits for nothing: a driver that hangs may hold its process beyond a kill."""
        self._stop.set()
        if self._process is not None:
            self._process.kill()

    def wait_first(self, timeout_s: float) -> bool:
        """Waits until the driver has answered once, well or not."""
        return self._read_once.wait(timeout_s)

    @property
    def silent_s(self) -> float:
        """Seconds since the last word of the driver; 0 where there is none."""
        return 0.0 if self._reading.state is State.NO_DRIVER else self.clock() - self._read_at

    @property
    def well(self) -> bool | None:
        """Whether every device is there and the driver answers; None where there is nothing to watch."""
        reading = self.latest()
        if reading.state in (State.NO_DRIVER, State.UNASKED):
            return None
        return reading.state is State.ANSWERS and not any(one.lost for one in reading.devices)

    def latest(self) -> Reading:
        """What the driver said last, with the words for a driver that does not answer any more."""
        reading, silent = self._reading, self.silent_s
        asked = reading.state is State.ANSWERS or (reading.state is State.UNASKED and self._read_at > 0.0)
        if asked and silent > SILENT_AFTER_S and not self._stop.is_set():
            words = f"the driver has not answered for {silent:.0f} s"
            return Reading(reading.devices, words, State.SILENT)
        return reading

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                ended = self._listen()
            except OSError as fault:
                ended = f"the process that asks the NVIDIA driver cannot be started: {fault.strerror}"
            if self._stop.is_set() or self._reading.state is State.NO_DRIVER:
                return
            if self._reading.state is not State.REFUSES:
                self._say(Reading(self._reading.devices, ended, State.REFUSES))
            self._stop.wait(self.retry_s)

    def _listen(self) -> str:
        """Until the process ends; says how it did."""
        process = subprocess.Popen(
            self.command,
            env=None if self.environment is None else dict(self.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C in the terminal is for the service; this one ends with its standard input.
            start_new_session=True,
        )
        self._process = process
        if self._stop.is_set():
            process.kill()
        if process.stdout is not None:
            for line in process.stdout:
                self._say(Reading.of_line(line))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(REAP_S)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        return f"the process that asks the NVIDIA driver ended with status {process.returncode}"

    def _say(self, reading: Reading) -> None:
        for place, one in enumerate(reading.devices):
            if one.last_xid:
                self._last_xid[place] = one.last_xid
        # A process that was started anew has forgotten the faults that the last one saw.
        devices = tuple(
            replace(one, last_xid=self._last_xid.get(place, 0)) for place, one in enumerate(reading.devices)
        )
        self._read_at = self.clock()
        self._reading = replace(reading, devices=devices)
        self._read_once.set()


@dataclass(frozen=True, slots=True, eq=False)
class DeviceCollector:
    """The readings for Prometheus: asked of the watch at each scrape, never of the driver."""

    watch: DeviceWatch

    def register(self, registry: CollectorRegistry) -> None:
        """Exports from now on."""
        registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One family per quantity, one sample per device."""
        reading = self.watch.latest()
        for name, words, value in _FAMILIES:
            rows = ((str(i), one.name, value(one)) for i, one in enumerate(reading.devices))
            yield _family(name, words, rows)
        answers = GaugeMetricFamily(
            "gpu_risk_device_driver_answers", "1 while the NVIDIA driver answers, 0 where there is none."
        )
        answers.add_metric([], float(reading.state is State.ANSWERS))
        yield answers
        states = GaugeMetricFamily(
            "gpu_risk_device_driver_state", "1 for how it stands with the driver.", labels=["state"]
        )
        for state in State:
            states.add_metric([state.value], float(reading.state is state))
        yield states
        silent = GaugeMetricFamily("gpu_risk_device_reading_age_seconds", "Since the driver's last word.")
        silent.add_metric([], self.watch.silent_s)
        yield silent


_FAMILIES: tuple[tuple[str, str, Callable[[Device], float]], ...] = (
    ("gpu_risk_device_memory_used_bytes", "Device memory in use.", lambda one: one.memory_used_bytes),
    ("gpu_risk_device_memory_total_bytes", "Device memory there is.", lambda one: one.memory_total_bytes),
    ("gpu_risk_device_utilisation_ratio", "Part of the time a kernel ran.", lambda one: one.utilisation),
    ("gpu_risk_device_temperature_celsius", "Temperature.", lambda one: one.temperature_celsius),
    ("gpu_risk_device_last_xid", "Newest fault reported by the driver; 0: none.", lambda one: one.last_xid),
    ("gpu_risk_device_lost", "1 while the driver has lost the device.", lambda one: bool(one.lost)),
)


def _family(name: str, words: str, rows: Iterable[tuple[str, str, float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=["device", "name"])
    for place, device, value in rows:
        family.add_metric([place, device], float(value))
    return family
