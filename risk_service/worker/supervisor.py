"""Keeps one worker alive: starts it, notices its death, starts the next one and gives it its books back."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import queue
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from risk_service.worker import process
from risk_service.worker.lane import Lane, WorkerHangs
from risk_service.worker.process import Found
from risk_service.worker.tasks import KEPT_MAX, Answer, BookTask, Ended, Hold, OptionTask
from service_kit.errors import Unavailable
from service_kit.telemetry.logs import logger

LANES = 4
# A caller that is refused should come again when the next worker is likely to be there.
RETRY_AFTER_S = 2.0
# Pauses between a death and the next start: the first at once, then longer, as long as they die young.
PAUSES_S = (0.0, 0.2, 1.0, 5.0)
OLD_S = 30.0
START_WITHIN_S = 600.0  # a cold cache of compiled kernels
STOP_WITHIN_S = 1.0


class EngineLost(Unavailable):
    """The worker died, hangs or is not there yet; another engine, or the next worker, may answer."""

    def __init__(self, why: str, retry_after_s: float | None = RETRY_AFTER_S) -> None:
        super().__init__(why, retry_after_s)


@dataclass(slots=True, eq=False)
class _Worker:
    """One life of the worker process."""

    child: Any  # a multiprocessing process of the spawn context
    lanes: list[Lane]
    free: queue.SimpleQueue[Lane]
    found: Found
    born: float
    lost: bool = False


class Supervisor:
    """The front's only way to the worker. Safe to use from several threads."""

    def __init__(self, wanted: str, *, lanes: int = LANES, hangs_after_s: float = 120.0) -> None:
        self._wanted, self._lane_count, self._hangs_after_s = wanted, lanes, hangs_after_s
        self._log = logger("engine")
        self._worker: _Worker | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._keys = itertools.count(1)
        self._key_of: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._newest: OrderedDict[int, weakref.ref[Any]] = OrderedDict()
        self._thread: threading.Thread | None = None
        self.found = Found("", "", "has not been started")
        self.starts = 0
        self.given: set[int] = set()  # keys that this worker has been given

    def start(self) -> Found:
        """Starts the first worker and waits for it; what it found. Where it found no engine, none runs."""
        worker = self._spawn()
        self.found = worker.found
        if not worker.found.name:
            self._end(worker)
            return worker.found
        self._put(worker)
        self._thread = threading.Thread(target=self._watch, name="engine supervisor", daemon=True)
        self._thread.start()
        return worker.found

    @property
    def ready(self) -> bool:
        """Whether a worker is there to be asked."""
        return self._worker is not None

    @property
    def pid(self) -> int | None:
        """Process id of the worker, where one is there."""
        worker = self._worker
        return None if worker is None else worker.child.pid

    def wait_ready(self, timeout_s: float) -> bool:
        """Waits for a worker."""
        with self._changed:
            return self._changed.wait_for(lambda: self._worker is not None, timeout_s)

    def close(self) -> None:
        """Ends the worker and starts no other."""
        self._stopping.set()
        with self._changed:
            worker, self._worker = self._worker, None
            self._changed.notify_all()
        if worker is not None:
            self._end(worker)
        if self._thread is not None:
            self._thread.join(STOP_WITHIN_S)

    def key_of(self, thing: Any) -> int:
        """The key that the worker keeps this book, or these scenarios, under."""
        with self._lock:
            key = self._key_of.get(thing)
            if key is None:
                key = self._key_of[thing] = next(self._keys)
                self._newest[key] = weakref.ref(thing)
                while len(self._newest) > KEPT_MAX:
                    self.given.discard(self._newest.popitem(last=False)[0])
            return key

    def ask(
        self,
        task: OptionTask | BookTask | Hold,
        *,
        answer_bytes: int,
        look: Callable[[], None],
        ends_at: float,
    ) -> Answer:
        """The worker's answer; raises EngineLost, or what `look` raises."""
        worker = self._worker
        if worker is None:
            raise EngineLost(f"the process of engine {self._wanted!r} is being started")
        lane = self._borrow(worker, look)
        try:
            answer = lane.ask(
                task,
                answer_bytes=answer_bytes,
                hangs_after_s=self._hangs_after_s,
                look=look,
                ends_at=ends_at,
            )
        except (EOFError, OSError) as death:
            self._lose(worker)
            raise EngineLost(f"the process of engine {self._wanted!r} died while it computed") from death
        except WorkerHangs as hang:
            self._log.error("worker hangs", engine=self._wanted, seconds=self._hangs_after_s)
            worker.child.kill()
            self._lose(worker)
            raise EngineLost(f"the process of engine {self._wanted!r} hung") from hang
        finally:
            worker.free.put(lane)
        if answer.ended is Ended.POISONED:
            self._lose(worker)
            raise EngineLost(f"engine {self._wanted!r} lost its device: {answer.value}")
        return answer

    def _borrow(self, worker: _Worker, look: Callable[[], None]) -> Lane:
        while True:
            try:
                return worker.free.get(timeout=0.01)
            except queue.Empty:
                look()
                if worker.lost:
                    raise EngineLost(f"the process of engine {self._wanted!r} died") from None

    def _watch(self) -> None:
        """The supervisor's thread: waits for a death, then starts the next worker."""
        early = 0
        while not self._stopping.is_set():
            worker = self._worker
            if worker is not None:
                wait([worker.child.sentinel], timeout=0.5)
                if worker.child.is_alive() and not worker.lost:
                    continue
                self._lose(worker)
                if self._stopping.is_set():
                    return
                early = 0 if time.monotonic() - worker.born > OLD_S else early + 1
                self._log.warning("worker died", engine=self._wanted, status=worker.child.exitcode)
                self._end(worker)
            if self._stopping.wait(PAUSES_S[min(max(early - 1, 0), len(PAUSES_S) - 1)]):
                return
            self._start_next()
            if self._worker is None:
                early += 1

    def _start_next(self) -> None:
        try:
            worker = self._spawn()
        except EngineLost as fault:
            if self._stopping.is_set():
                return
            self._log.error("worker does not start", engine=self._wanted, why=str(fault))
            return
        if not worker.found.name:
            self._log.error("worker has no engine", engine=self._wanted, why=worker.found.reason)
            self._end(worker)
            return
        try:
            books = self._refill(worker)
        except (EOFError, OSError, WorkerHangs):
            self._end(worker)
            return
        self._put(worker)
        self._log.info("worker is back", engine=self._wanted, books=books)

    def _refill(self, worker: _Worker) -> int:
        """Gives a new worker what is still in use of what the last one kept; how many things."""
        with self._lock:
            things = {key: thing for key, ref in self._newest.items() if (thing := ref()) is not None}
        self.given = set(things)
        for key, thing in things.items():
            worker.lanes[0].ask(
                Hold({key: thing}), answer_bytes=0, hangs_after_s=self._hangs_after_s, look=_nothing
            )
        return len(things)

    def _put(self, worker: _Worker) -> None:
        with self._changed:
            if self._stopping.is_set():
                self._end(worker)
                return
            self._worker = worker
            self.starts += 1
            self._changed.notify_all()

    def _lose(self, worker: _Worker) -> None:
        worker.lost = True
        with self._changed:
            if self._worker is worker:
                self._worker = None

    def _spawn(self) -> _Worker:
        # CUDA, gRPC and our threads do not survive a fork.
        spawn = multiprocessing.get_context("spawn")
        control, childs_control = spawn.Pipe()
        pairs = [spawn.Pipe() for _ in range(self._lane_count)]
        child = spawn.Process(
            target=process.run,
            args=(self._wanted, childs_control, [theirs for _, theirs in pairs]),
            name=f"engine {self._wanted}",
            daemon=True,
        )
        born = time.monotonic()
        child.start()
        # Held here they would keep us from seeing the worker's death.
        for connection in (childs_control, *(theirs for _, theirs in pairs)):
            connection.close()
        lanes = [Lane(ours) for ours, _ in pairs]
        try:
            found = self._first_word(child, control)
        except EngineLost:
            child.kill()
            for lane in lanes:
                lane.close()
            raise
        finally:
            control.close()
        free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        for lane in lanes:
            free.put(lane)
        return _Worker(child, lanes, free, found, born)

    def _first_word(self, child: Any, control: Connection) -> Found:
        ends = time.monotonic() + START_WITHIN_S
        while time.monotonic() < ends and not self._stopping.is_set():
            if control.poll(0.1):
                try:
                    found: Found = control.recv()
                except EOFError:
                    break
                return found
            if not child.is_alive():
                break
        raise EngineLost(f"the process of engine {self._wanted!r} did not start")

    def _end(self, worker: _Worker) -> None:
        """Ends a worker for good; who still asks it sees the end of its pipe."""
        worker.lost = True
        worker.child.terminate()
        worker.child.join(STOP_WITHIN_S)
        if worker.child.is_alive():
            worker.child.kill()
            worker.child.join(STOP_WITHIN_S)
        # Lanes in use are closed by nobody else: their askers have got EOF from the dead process.
        for _ in worker.lanes:
            with contextlib.suppress(queue.Empty):
                worker.free.get(timeout=STOP_WITHIN_S).close()


def _nothing() -> None:
    """Looks at nothing: for questions of the supervisor's own."""
