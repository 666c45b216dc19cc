"""The watch over the devices: real processes that ask, one whose library really hangs, one that crashes.

Where there is a C compiler a library of NVML's own names is built and asked through nvidia-ml-py, as the
driver's would be. The real one needs an NVIDIA driver; where there is none, that is said plainly.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from risk_service.device_health import COMMAND, SILENT_AFTER_S, DeviceCollector, DeviceWatch, Reading, State
from risk_service.engines import DRIVER_SIGNS

PATIENCE_S = 60.0
SOON = (*COMMAND, "0.02")  # seconds between two readings
# A library as Python: after so many answers it does what its last line says.
FAKE = """
import os, signal, types
class NVMLError(Exception): pass
class NVMLError_NotSupported(NVMLError): pass
class NVMLError_NoPermission(NVMLError): pass
class NVMLError_Timeout(NVMLError): pass
class NVMLError_LibraryNotFound(NVMLError): pass
class NVMLError_DriverNotLoaded(NVMLError): pass
NVML_TEMPERATURE_GPU, nvmlEventTypeXidCriticalError, asked = 0, 8, 0
def nvmlInit(): {init}
def nvmlShutdown(): pass
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(place): return "handle"
def nvmlDeviceGetName(handle): return "Test GPU"
def nvmlDeviceGetMemoryInfo(handle):
    global asked
    asked += 1
    if asked > 2:
        {then}
    return types.SimpleNamespace(used=3 << 30, total=8 << 30)
def nvmlDeviceGetUtilizationRates(handle): return types.SimpleNamespace(gpu=45)
def nvmlDeviceGetTemperature(handle, sensor): return 61
def nvmlEventSetCreate(): return "events"
def nvmlDeviceRegisterEvents(handle, kinds, events): pass
def nvmlEventSetWait_v2(events, milliseconds):
    if asked == 1:
        return types.SimpleNamespace(device="handle", eventData=79)
    raise NVMLError_Timeout
"""
HANG = "os.kill(os.getpid(), signal.SIGSTOP)"  # does not run any more, and does not end
CRASH = "os.kill(os.getpid(), signal.SIGSEGV)"


class Clock:
    """Seconds as the test says."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watched(tmp_path):
    """Starts watches over a library of a given behaviour; ends them."""
    begun = []

    def begin(init="pass", then="pass", **more):
        (tmp_path / "pynvml.py").write_text(FAKE.format(init=init, then=then))
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), root))}
        begun.append(DeviceWatch(SOON, environment, **more).start())
        assert begun[-1].wait_first(PATIENCE_S)
        return begun[-1]

    yield begin
    for watch in begun:
        watch.close()


def until(condition):
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.005)


def page(watch):
    registry = CollectorRegistry()
    DeviceCollector(watch).register(registry)
    return generate_latest(registry).decode()


def test_readings_and_faults_come_through_the_pipe(watched):
    watch = watched()
    until(lambda: watch.latest().devices[0].last_xid == 79)
    (device,) = watch.latest().devices
    assert (device.name, device.memory_used_bytes, device.utilisation) == ("Test GPU", 3 << 30, 0.45)
    assert watch.well
    text = page(watch)
    label = '{device="0",name="Test GPU"}'
    assert f"gpu_risk_device_memory_used_bytes{label} 3.221225472e+09" in text
    assert f"gpu_risk_device_utilisation_ratio{label} 0.45" in text
    assert f"gpu_risk_device_temperature_celsius{label} 61.0" in text
    assert f"gpu_risk_device_last_xid{label} 79.0" in text
    assert f"gpu_risk_device_lost{label} 0.0" in text
    assert "gpu_risk_device_driver_answers 1.0" in text
    assert 'gpu_risk_device_driver_state{state="answers"} 1.0' in text


def test_a_driver_that_hangs_holds_up_nobody_and_is_said_to(watched):
    clock = Clock()
    watch = watched(then=HANG, clock=clock)
    stat = Path(f"/proc/{watch._process.pid}/stat")
    until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
    until(lambda: watch.latest().devices[0].last_xid == 79)
    clock.now += 25.0
    reading = watch.latest()
    assert (reading.words, reading.state) == ("the driver has not answered for 25 s", State.SILENT)
    assert reading.devices[0].name == "Test GPU"  # what it said last
    assert not watch.well
    text = page(watch)
    assert "gpu_risk_device_driver_answers 0.0" in text
    assert 'gpu_risk_device_driver_state{state="silent"} 1.0' in text
    assert "gpu_risk_device_reading_age_seconds 25.0" in text
    watch._process.send_signal(signal.SIGCONT)
    until(lambda: watch.latest().state is State.ANSWERS)  # it comes back as if nothing had been


def test_a_driver_that_hangs_at_the_first_question(tmp_path):
    clock = Clock()
    (tmp_path / "pynvml.py").write_text(FAKE.format(init=HANG, then="pass"))
    watch = DeviceWatch(environment={**os.environ, "PYTHONPATH": str(tmp_path)}, clock=clock).start()
    assert watch.latest().words == "the driver has not been asked yet"
    clock.now += SILENT_AFTER_S + 1.0
    assert watch.latest().words == "the driver has not answered for 11 s"
    assert watch.latest().state is State.SILENT
    watch.close()


def test_a_library_that_crashes_takes_nobody_along_and_is_asked_again(watched):
    watch = watched(then=CRASH, retry_s=0.01)
    until(lambda: watch.latest().state is State.REFUSES)
    assert watch.latest().words == "the process that asks the NVIDIA driver ended with status -11"
    first = watch._process.pid
    until(lambda: watch._process.pid != first and watch.latest().state is State.ANSWERS)
    assert watch.latest().devices[0].last_xid == 79  # the fault that only the first process may have seen


def test_a_driver_that_refuses_is_asked_again(watched, tmp_path):
    watch = watched(init="raise NVMLError('Driver/library version mismatch')", retry_s=0.01)
    refusal = "the NVIDIA driver does not work: Driver/library version mismatch"
    assert watch.latest() == Reading((), refusal, State.REFUSES)
    assert not watch.well
    (tmp_path / "pynvml.py").write_text(FAKE.format(init="pass", then="pass"))
    until(lambda: watch.latest().state is State.ANSWERS)


def test_no_driver_is_asked_once(watched):
    watch = watched(init="raise NVMLError_DriverNotLoaded('Driver Not Loaded')", retry_s=0.0)
    process = watch._process
    until(lambda: process.poll() is not None)
    assert watch.latest().words == "no NVIDIA driver: Driver Not Loaded"
    assert watch.well is None
    assert watch.silent_s == 0.0
    assert watch._process is process


def test_without_the_library(watched, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pynvml'] = None\n")
    watch = watched()
    assert "nvidia-ml-py) is not installed" in watch.latest().words


def test_closing_ends_the_process_even_one_that_hangs(watched):
    watch = watched(then=HANG)
    process = watch._process
    watch.close()
    assert process.wait(PATIENCE_S) == -signal.SIGKILL


def test_the_process_ends_with_the_service(tmp_path):
    (tmp_path / "pynvml.py").write_text(FAKE.format(init="pass", then="pass"))
    code = "import os, risk_service.device_health as d\n"
    code += "w = d.DeviceWatch((*d.COMMAND, '0.02')).start()\nw.wait_first(60)\n"
    code += "print(w._process.pid, flush=True)\nos.kill(os.getpid(), 9)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(Path(__file__).parents[2])))},
        capture_output=True,
        text=True,
        check=False,
    )
    child = Path(f"/proc/{int(done.stdout)}/stat")
    until(lambda: not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z")


C_LIBRARY = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned gpu, memory; } rates;
typedef struct { void *device; unsigned long long type, data; unsigned gi, ci; } event;
static int asked, device;
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned place, void **handle) { *handle = &device; return 0; }
int nvmlDeviceGetName(void *handle, char *name, unsigned size) { strcpy(name, "GPU in C"); return 0; }
int nvmlDeviceGetMemoryInfo(void *handle, memory *m) {
    m->total = 8ULL << 30; m->used = 3ULL << 30;
    return ++asked > 2 ? 15 : 0;  /* GPU is lost */
}
int nvmlDeviceGetUtilizationRates(void *handle, rates *r) { r->gpu = 45; return 0; }
int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius) { *celsius = 61; return 0; }
int nvmlEventSetCreate(void **set) { *set = &asked; return 0; }
int nvmlDeviceRegisterEvents(void *handle, unsigned long long kinds, void *set) { return kinds == 8 ? 0 : 2; }
int nvmlEventSetWait_v2(void *set, event *e, unsigned ms) {
    if (asked != 1) return 10;  /* timeout */
    e->device = &device; e->type = 8; e->data = 79;
    return 0;
}
const char *nvmlErrorString(int fault) { return "fault"; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")
def test_a_library_in_c_through_the_real_binding(tmp_path):
    source, library = tmp_path / "nvml.c", tmp_path / "libnvidia-ml.so.1"
    source.write_text(C_LIBRARY)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    watch = DeviceWatch(SOON, {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}).start()
    assert watch.wait_first(PATIENCE_S)
    first = watch.latest().devices[0]
    assert (first.name, first.memory_used_bytes, first.utilisation) == ("GPU in C", 3 << 30, 0.45)
    until(lambda: watch.latest().devices[0].lost)
    device = watch.latest().devices[0]
    assert (device.last_xid, device.lost, device.name) == (79, "GPU is lost", "GPU in C")
    assert math.isnan(device.temperature_celsius)
    assert not watch.well
    assert 'gpu_risk_device_lost{device="0",name="GPU in C"} 1.0' in page(watch)
    watch.close()


@pytest.mark.skipif(any(map(os.path.exists, DRIVER_SIGNS)), reason="there is an NVIDIA driver here")
def test_the_real_library_without_a_driver_says_so():
    watch = DeviceWatch().start()
    assert watch.wait_first(PATIENCE_S)
    assert watch.latest().devices == ()
    assert watch.latest().words.startswith("no NVIDIA driver: NVML Shared Library Not Found")
