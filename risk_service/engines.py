"""The engines of this service: the one that answers, those that can be asked for by name, and the spare.

An engine is looked for when it is first wanted: a service that answers with one does not load the others.
Device engines live in worker processes (`risk_service.worker`), so that this process never loads CUDA.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal

import gpu_kernels as gk
from risk_service.engine_survey import Known, surveyed, unsurveyed
from risk_service.on_demand.break_even import (
    GATHERED_UNMEASURED,
    OPTIONS_UNMEASURED,
    break_even_options,
    gathered_options,
)
from risk_service.worker.engine import WorkerEngine
from risk_service.worker.fallback import LastingEngine, SpareEngine
from risk_service.worker.supervisor import EngineLost, Supervisor
from service_kit.errors import InvalidRequest, SettingError

Process = Literal["auto", "always", "never"]

# "auto" puts these into a process of their own. A CPU engine gains nothing there and pays for the way.
DEVICE_ENGINES = ("cuda", "xla")
# Without one of these a machine has no NVIDIA driver, and asking CUDA would be a process started for nothing.
DRIVER_SIGNS = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg", "/dev/nvhost-ctrl-gpu")


@dataclass(slots=True)
class Engines:
    """The serving engine, and the way to the others. Safe to use from several threads."""

    serving: gk.Engine
    chosen_because: str
    process: Process = "never"
    break_even: int = 0  # options; smaller work goes to the CPU in this process
    _workers: dict[str, Supervisor] = field(default_factory=dict)
    _gathered: dict[str, int] = field(default_factory=dict)  # options of one request, measured, by engine
    _survey: Future[tuple[Known, ...]] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def probe(cls, wanted: str) -> Engines:
        """Takes the engine that the settings want into this process; "auto" takes the fastest there is."""
        return cls.start(wanted, "never")

    @classmethod
    def start(cls, wanted: str, process: Process) -> Engines:
        """Takes the engine that the settings want, in a process of its own where `process` says so."""
        if wanted == "auto":
            because = "the fastest that is there"
            if process == "never":
                return cls(gk.engine("auto"), because)
            found = cls._in_worker("cuda", process) if cuda_may_be_there() else None
            return found or cls._local_or_worker(_without_cuda(), process, because)
        return cls._local_or_worker(wanted, process, "asked for by the settings")

    @classmethod
    def _local_or_worker(cls, wanted: str, process: Process, because: str) -> Engines:
        if process == "always" or (process == "auto" and wanted in DEVICE_ENGINES):
            supervisor = Supervisor(wanted)
            if not supervisor.start().name:
                raise SettingError("risk.engine", supervisor.found.reason)
            return cls._served_by(supervisor, process, because)
        try:
            return cls(gk.engine(wanted), because, process)
        except gk.EngineUnavailable as fault:
            raise SettingError("risk.engine", str(fault)) from fault

    @classmethod
    def _in_worker(cls, wanted: str, process: Process) -> Engines | None:
        supervisor = Supervisor(wanted)
        if not supervisor.start().name:
            return None
        return cls._served_by(supervisor, process, "the fastest that is there")

    @classmethod
    def _served_by(cls, supervisor: Supervisor, process: Process, because: str) -> Engines:
        engine = WorkerEngine(supervisor)
        engines = cls(engine, because, process, _workers={engine.name: supervisor})
        # The CPU in a process of its own is never quicker than here: it is wanted for other reasons.
        if engine.name in DEVICE_ENGINES:
            engines.break_even = OPTIONS_UNMEASURED
        engines._measure_beside(engine)
        return engines

    def survey(self) -> Future[tuple[Known, ...]]:
        """What engines there are, there or not; the first who asks has them looked for in the background.

        No library is loaded into this process that is not here already.
        """
        with self._lock:
            if self._survey is None:
                self._survey = Future()
                self._survey.set_running_or_notify_cancel()
                threading.Thread(target=self._look, name="engine survey", daemon=True).start()
            return self._survey

    def known(self) -> tuple[Known, ...]:
        """Every engine as it is now; those that nobody has looked at yet say so."""
        survey = self.survey()
        found = survey.result() if survey.done() else unsurveyed(self.serving, "is still being looked for")
        return tuple(self._at_present(one) for one in found)

    @property
    def live(self) -> gk.Engine:
        """For the live loop: the serving engine, or the CPU while its worker is not there."""
        engine = self.serving
        return LastingEngine(engine, self.cpu) if isinstance(engine, WorkerEngine) else engine

    @property
    def cpu(self) -> gk.Engine:
        """The CPU engine of this process."""
        return gk.engine("cpu")

    def named(self, name: str) -> gk.Engine:
        """The engine of that name, or the serving one for the empty name; never another than asked for."""
        if not name or name == self.serving.name:
            return self.serving
        if self.process != "never" and name in DEVICE_ENGINES:
            return self._worker(name)
        try:
            return gk.engine(name)
        except gk.EngineUnavailable as fault:
            raise InvalidRequest("engine", str(fault)) from fault

    def for_cost(self, name: str, options: int) -> gk.Engine:
        """As `named`; work below the measured break-even goes to the CPU here where no engine was named."""
        if not name and options < self.break_even:
            return self.cpu
        return self.named(name)

    def gathered_up_to(self, name: str) -> int:
        """Up to how many options requests for the engine of that name are answered sooner together."""
        return self._gathered.get(name, GATHERED_UNMEASURED)

    def spare(self, name: str, why: str) -> gk.Engine | None:
        """What answers in the serving engine's place; None where an engine was asked for by name."""
        if name or not isinstance(self.serving, WorkerEngine):
            return None
        return SpareEngine(self.cpu, why)

    def warm_up(self) -> None:
        """Makes the serving engine and the spare ready for their first question."""
        self.serving.warm_up()
        if isinstance(self.serving, WorkerEngine):
            self.cpu.warm_up()

    def supervisor(self, name: str) -> Supervisor | None:
        """The supervisor of the engine of that name, if it has a process of its own."""
        return self._workers.get(name)

    @property
    def ready(self) -> bool:
        """Whether the serving engine answers itself: its process, if it has one, is there."""
        supervisor = self._workers.get(self.serving.name)
        return supervisor is None or supervisor.ready

    @property
    def starts(self) -> int:
        """How often the serving engine's process has been started; 0 without one."""
        supervisor = self._workers.get(self.serving.name)
        return 0 if supervisor is None else supervisor.starts

    def close(self) -> None:
        """Ends the worker processes."""
        for supervisor in tuple(self._workers.values()):
            supervisor.close()

    def _worker(self, name: str) -> gk.Engine:
        with self._lock:
            if name not in self._workers:
                supervisor = Supervisor(name)
                supervisor.start()
                self._workers[name] = supervisor
                if supervisor.found.name:
                    self._measure_beside(WorkerEngine(supervisor))
            found = self._workers[name].found
            if not found.name:
                raise InvalidRequest("engine", found.reason)
            return WorkerEngine(self._workers[name])

    def _at_present(self, known: Known) -> Known:
        supervisor = self._workers.get(known.name)
        if supervisor is None or not supervisor.found.name or supervisor.ready:
            return known
        return known._replace(available=False, reason="its process died and is being started again")

    def _look(self) -> None:
        survey = self.survey()
        try:
            found = surveyed()
        except OSError as fault:  # no process now, or no time: it is tried again when somebody asks
            found = unsurveyed(self.serving, f"could not be looked for: {fault}")
            with self._lock:
                self._survey = None
        survey.set_result(found)

    def _measure_beside(self, engine: WorkerEngine) -> None:
        """Measures what routing and gathering go by, while requests are answered."""
        threading.Thread(target=self._measure, args=(engine,), name="break-even", daemon=True).start()

    def _measure(self, engine: WorkerEngine) -> None:
        # A worker that dies leaves what is taken unmeasured.
        with suppress(EngineLost):
            if engine.name == self.serving.name and self.break_even:
                self.cpu.warm_up()
                self.break_even = break_even_options(engine, self.cpu)
            self._gathered[engine.name] = gathered_options(engine)


def cuda_may_be_there() -> bool:
    """Whether asking CUDA can be worth it: CuPy is installed, and there are signs of a driver."""
    driver = sys.platform != "linux" or any(os.path.exists(sign) for sign in DRIVER_SIGNS)
    return driver and find_spec("cupy") is not None


def _without_cuda() -> str:
    """The fastest engine whose library is installed, CUDA left out."""
    libraries = {"cpu": "numba", "xla": "jax", "reference": "numpy"}
    return next(name for name, library in libraries.items() if find_spec(library) is not None)
