"""What the process that asks the NVIDIA driver makes of its answers, against a small NVML of this test's."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from risk_service import device_probe
from risk_service.device_reading import Reading, State


class NVMLError(Exception):
    """As the library's, and its children."""


class NotSupported(NVMLError):
    pass


class NoPermission(NVMLError):
    pass


class Timeout(NVMLError):
    pass


class LibraryNotFound(NVMLError):
    pass


class DriverNotLoaded(NVMLError):
    pass


class GpuIsLost(NVMLError):
    pass


class FakeNvml:
    """The part of NVML that is used, over two devices; what it does is set from outside."""

    NVMLError, NVMLError_NotSupported, NVMLError_Timeout = NVMLError, NotSupported, Timeout
    NVMLError_NoPermission = NoPermission
    NVMLError_LibraryNotFound, NVMLError_DriverNotLoaded = LibraryNotFound, DriverNotLoaded
    NVML_TEMPERATURE_GPU, nvmlEventTypeXidCriticalError = 0, 8

    def __init__(self, devices=2):
        self.devices = devices
        self.init_fault = None
        self.no_events = self.slice = False
        self.lost: set[str] = set()
        self.lost_at_once: set[int] = set()
        self.xids: list[tuple[str, int]] = []
        self.inits = self.shutdowns = 0

    def nvmlInit(self):
        self.inits += 1
        if self.init_fault:
            raise self.init_fault

    def nvmlShutdown(self):
        self.shutdowns += 1

    def nvmlDeviceGetCount(self):
        return self.devices

    def nvmlDeviceGetHandleByIndex(self, place):
        if place in self.lost_at_once:
            raise GpuIsLost("GPU is lost")
        return f"handle {place}"

    def nvmlDeviceGetName(self, handle):
        return b"Test GPU"

    def nvmlDeviceGetMemoryInfo(self, handle):
        if handle in self.lost:
            raise GpuIsLost("GPU is lost")
        return SimpleNamespace(used=3 << 30, total=8 << 30)

    def nvmlDeviceGetUtilizationRates(self, handle):
        if self.slice:
            raise NotSupported("Not Supported")
        return SimpleNamespace(gpu=45, memory=10)

    def nvmlDeviceGetTemperature(self, handle, sensor):
        assert sensor == self.NVML_TEMPERATURE_GPU
        if self.slice:
            raise NoPermission("Insufficient Permissions")
        return 61

    def nvmlEventSetCreate(self):
        if self.no_events:
            raise NotSupported("Not Supported")
        return "events"

    def nvmlDeviceRegisterEvents(self, handle, kinds, events):
        assert (handle[:6], kinds, events) == ("handle", 8, "events")

    def nvmlEventSetWait_v2(self, events, milliseconds):
        if not self.xids:
            raise GpuIsLost("GPU is lost") if self.lost else Timeout("Timeout")
        device, number = self.xids.pop(0)
        return SimpleNamespace(device=device, eventData=number)


def read(nvml, readings, between=lambda number: None):
    """The first readings of a driver; `between` is called before each wait with their number so far."""
    said: list[Reading] = []

    def say(reading):
        said.append(reading)
        between(len(said))

    device_probe.probe(nvml, say, lambda seconds: len(said) >= readings)
    return said


def test_what_the_driver_says_is_read():
    nvml = FakeNvml()
    (reading,) = read(nvml, 1)
    device = reading.devices[1]
    assert (device.name, device.memory_used_bytes, device.memory_total_bytes) == (
        "Test GPU",
        3 << 30,
        8 << 30,
    )
    assert (device.utilisation, device.temperature_celsius, device.last_xid) == (0.45, 61.0, 0)
    assert (reading.words, reading.state, len(reading.devices)) == ("", State.ANSWERS, 2)
    assert nvml.shutdowns == 1


def test_a_line_of_the_pipe_holds_all_of_it():
    nvml = FakeNvml()
    nvml.lost.add("handle 1")
    (reading,) = read(nvml, 1)
    again = Reading.of_line(reading.line())
    assert again.devices[0] == reading.devices[0]
    assert repr(again) == repr(reading)  # NaN is not equal to itself
    assert "\n" not in reading.line()


def test_a_fault_is_told_of_the_device_that_has_it():
    nvml = FakeNvml()
    nvml.xids = [("handle 1", 79)]
    said = read(nvml, 2)
    assert [one.last_xid for one in said[0].devices] == [0, 0]
    assert [one.last_xid for one in said[1].devices] == [0, 79]


def test_a_fault_of_a_device_that_cannot_be_told_is_told_of_all():
    nvml = FakeNvml()
    nvml.xids = [("a stranger", 79)]
    assert [one.last_xid for one in read(nvml, 2)[1].devices] == [79, 79]


def test_a_device_that_tells_only_a_part():
    nvml = FakeNvml(devices=1)
    nvml.slice = nvml.no_events = True
    (device,) = read(nvml, 1)[0].devices
    assert math.isnan(device.utilisation)
    assert math.isnan(device.temperature_celsius)
    assert device.memory_total_bytes == 8 << 30
    assert not device.lost


def test_a_device_off_the_bus_is_told_and_the_others_are_read_on():
    nvml = FakeNvml()
    said = read(nvml, 3, between=lambda number: nvml.lost.add("handle 0") if number == 1 else None)
    assert [one.lost for one in said[0].devices] == ["", ""]
    for reading in said[1:]:
        lost, well = reading.devices
        assert (lost.lost, lost.name, lost.memory_total_bytes) == ("GPU is lost", "Test GPU", 0)
        assert well.temperature_celsius == 61.0
        assert reading.words == "device 0 is lost: GPU is lost"
        assert reading.state is State.ANSWERS


def test_a_device_lost_before_the_start():
    nvml = FakeNvml()
    nvml.lost_at_once.add(0)
    lost, well = read(nvml, 1)[0].devices
    assert (lost.lost, lost.name, well.lost) == ("GPU is lost", "device 0", "")


def test_a_lost_device_is_asked_for_anew_and_its_faults_stay_known(monkeypatch):
    monkeypatch.setattr(device_probe, "ASK_ANEW_S", 0.0)
    nvml = FakeNvml()
    nvml.xids = [("handle 0", 79)]

    def between(number):
        (nvml.lost.add if number == 1 else nvml.lost.discard)("handle 0")

    said = read(nvml, 3, between)
    assert said[1].devices[0].lost
    back = said[2].devices[0]
    assert (back.lost, back.last_xid) == ("", 79)
    assert nvml.inits == 2
    assert nvml.shutdowns == 2


@pytest.mark.parametrize(
    ("fault", "state", "words"),
    [
        (LibraryNotFound("NVML Shared Library Not Found"), State.NO_DRIVER, "no NVIDIA driver: NVML Shared"),
        (DriverNotLoaded("Driver Not Loaded"), State.NO_DRIVER, "no NVIDIA driver: Driver Not Loaded"),
        (
            NVMLError("Driver/library version mismatch"),
            State.REFUSES,
            "the NVIDIA driver does not work: Driver/l",
        ),
    ],
)
def test_why_there_is_nothing_to_read(fault, state, words):
    nvml = FakeNvml()
    nvml.init_fault = fault
    (reading,) = read(nvml, 9)
    assert (reading.devices, reading.state) == ((), state)
    assert reading.words.startswith(words)


def test_a_driver_without_devices():
    nvml = FakeNvml(devices=0)
    (reading,) = read(nvml, 1)
    assert (reading.state, reading.words) == (State.REFUSES, "the NVIDIA driver knows of no device")
