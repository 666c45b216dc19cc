"""The watch over the devices: against a small NVML that this test wrote, and the real one of this machine.

The real library needs an NVIDIA driver. Where there is none the real part proves that this is said plainly.
"""

from __future__ import annotations

import math
import os
import threading
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from risk_service.device_health import DeviceCollector, DeviceWatch, Reading
from risk_service.engines import DRIVER_SIGNS

PATIENCE_S = 60.0


class NVMLError(Exception):
    """As the library's."""


class NotSupported(NVMLError):
    """As the library's."""


class Timeout(NVMLError):
    """As the library's."""


class FakeNvml:
    """The part of NVML that the watch uses, over one device; what it does is set from outside."""

    NVMLError, NVMLError_NotSupported, NVMLError_Timeout = NVMLError, NotSupported, Timeout
    NVML_TEMPERATURE_GPU, nvmlEventTypeXidCriticalError = 0, 8

    def __init__(self) -> None:
        self.hangs = threading.Event()
        self.asked, self.hung = threading.Event(), threading.Event()
        self.fault: Exception | None = None
        self.no_events = self.slice = False
        self.xid: int | None = None
        self.ended = threading.Event()

    def nvmlInit(self):
        if self.fault:
            raise self.fault

    def nvmlShutdown(self):
        self.ended.set()

    def nvmlDeviceGetCount(self):
        return 1

    def nvmlDeviceGetHandleByIndex(self, place):
        return "handle"

    def nvmlDeviceGetName(self, handle):
        return b"Test GPU"

    def nvmlDeviceGetUUID(self, handle):
        return "uuid"

    def nvmlDeviceGetMemoryInfo(self, handle):
        if self.hangs.is_set():
            self.hung.set()
            threading.Event().wait(PATIENCE_S)
        return SimpleNamespace(used=3 << 30, total=8 << 30)

    def nvmlDeviceGetUtilizationRates(self, handle):
        if self.slice:
            raise NotSupported("Not Supported")
        return SimpleNamespace(gpu=45, memory=10)

    def nvmlDeviceGetTemperature(self, handle, sensor):
        assert sensor == self.NVML_TEMPERATURE_GPU
        return 61

    def nvmlEventSetCreate(self):
        if self.no_events:
            raise NotSupported("Not Supported")
        return "events"

    def nvmlDeviceRegisterEvents(self, handle, kinds, events):
        assert (handle, kinds, events) == ("handle", 8, "events")

    def nvmlEventSetWait_v2(self, events, milliseconds):
        self.asked.set()
        if self.xid is None:
            threading.Event().wait(milliseconds / 1e3)
            raise Timeout("Timeout")
        number, self.xid = self.xid, None
        return SimpleNamespace(device="handle", eventData=number)


class Clock:
    """Seconds as the test says."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def nvml():
    return FakeNvml()


def watching(nvml, clock=None):
    more = {} if clock is None else {"clock": clock}
    watch = DeviceWatch(load=lambda: nvml, interval_s=0.01, **more).start()
    assert watch.wait_first(PATIENCE_S)
    return watch


def test_what_the_driver_says_is_read(nvml):
    watch = watching(nvml)
    (device,) = watch.latest().devices
    assert (device.name, device.memory_used_bytes, device.memory_total_bytes) == (
        "Test GPU",
        3 << 30,
        8 << 30,
    )
    assert (device.utilisation, device.temperature_celsius, device.last_xid) == (0.45, 61.0, 0)
    assert watch.latest().words == ""
    watch.close()
    assert nvml.ended.wait(PATIENCE_S)


def test_a_fault_of_the_device_is_told(nvml):
    nvml.xid = 79
    watch = watching(nvml)
    while watch.latest().devices[0].last_xid != 79:
        assert not nvml.ended.is_set()
    watch.close()


def test_a_device_that_tells_only_a_part(nvml):
    nvml.slice = nvml.no_events = True
    watch = watching(nvml)
    (device,) = watch.latest().devices
    assert math.isnan(device.utilisation)
    assert device.temperature_celsius == 61.0
    watch.close()


def test_a_driver_that_hangs_holds_up_nobody_and_is_said_to(nvml):
    clock = Clock()
    watch = watching(nvml, clock)
    nvml.hangs.set()
    assert nvml.hung.wait(PATIENCE_S)
    clock.now += 25.0
    reading = watch.latest()
    assert reading.words == "the driver has not answered for 25 s"
    assert reading.devices[0].name == "Test GPU"  # what it said last
    registry = CollectorRegistry()
    DeviceCollector(watch).register(registry)
    assert b"gpu_risk_device_driver_answers 0.0" in generate_latest(registry)
    watch.close()  # returns at once


def test_metrics_of_every_device(nvml):
    watch, registry = watching(nvml), CollectorRegistry()
    DeviceCollector(watch).register(registry)
    text = generate_latest(registry).decode()
    label = '{device="0",name="Test GPU"}'
    assert f"gpu_risk_device_memory_used_bytes{label} 3.221225472e+09" in text
    assert f"gpu_risk_device_utilisation_ratio{label} 0.45" in text
    assert f"gpu_risk_device_temperature_celsius{label} 61.0" in text
    assert f"gpu_risk_device_last_xid{label} 0.0" in text
    assert "gpu_risk_device_driver_answers 1.0" in text
    watch.close()


def test_a_driver_that_refuses(nvml):
    nvml.fault = NVMLError("Driver/library version mismatch")
    watch = watching(nvml)
    assert watch.latest() == Reading((), "no NVIDIA driver: Driver/library version mismatch")


def test_without_the_library():
    def load():
        raise ImportError

    watch = DeviceWatch(load=load).start()
    assert watch.wait_first(PATIENCE_S)
    assert "nvidia-ml-py) is not installed" in watch.latest().words


@pytest.mark.skipif(any(map(os.path.exists, DRIVER_SIGNS)), reason="there is an NVIDIA driver here")
def test_the_real_library_without_a_driver_says_so():
    watch = DeviceWatch().start()
    assert watch.wait_first(PATIENCE_S)
    assert watch.latest().devices == ()
    assert watch.latest().words.startswith("no NVIDIA driver: NVML Shared Library Not Found")
