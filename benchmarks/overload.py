"""Ten times the sustainable cost offered: what is still answered, how soon the rest is refused.

    python -m benchmarks.overload [phases]

Half of the calls are Monte Carlo ES of a whole book, half are Greeks of American options. Work is counted in
seconds: an answer counts as much as one of its kind takes alone, so that answering the cheaper kind only
would not look like goodput.

A machine that others share is faster in one second than in the next. So peak and overload are measured in
turn, some seconds each, several times, and each overload is held against the peaks right before and after it.
Each begins with seconds that are not counted, in which the service fills up, and is counted from one answer
to another while it is full: what is still in when the offers end is answered by fewer and fewer threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import grpc
import numpy as np
import psutil

from benchmarks import measure
from benchmarks.grpc_load import OPTIONS
from benchmarks.risk_world import serving_book
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub

BOOK = 10_000
SCENARIOS = 4_096
PHASES = 6  # of overload, each between two of the peak
FILLING_S = 1.5  # of each that are not counted
COUNTED_S = 5.0
SATURATING = 4  # callers that keep two cores busy
TIMES = 10
WATCHERS = 200
CHANGES = 200  # of some kilobytes each
CHANGED_ROWS = 20
AMERICAN_ROWS = 10_000
SPOTS = 40
ALONE = 5
DEADLINE_S = 30.0


class Kind(NamedTuple):
    """A kind of heavy call."""

    name: str
    call: Callable[[Any, int], Awaitable[object]]


def expected_shortfall(stub: Any, number: int) -> Awaitable[object]:
    """A Monte Carlo ES of the whole book; every one has draws of its own."""
    draws = wire.MonteCarloScenarios(
        scenarios=SCENARIOS, seed=number, sampler=wire.MonteCarloScenarios.SAMPLER_PHILOX
    )
    request = wire.ExpectedShortfallRequest(portfolio="desk", monte_carlo=draws)
    called: Awaitable[object] = stub.ExpectedShortfall(request, timeout=DEADLINE_S)
    return called


def greeks(stub: Any, number: int) -> Awaitable[object]:
    """Greeks of many American options of one underlying."""
    called: Awaitable[object] = stub.Greeks(_american_options(number % SPOTS), timeout=DEADLINE_S)
    return called


@cache
def _american_options(number: int) -> wire.GreeksRequest:
    """At another spot for each number. Kept: to make it takes time of the cores that are to be kept busy."""
    columns = wire.OptionColumns(rate=[0.04], dividend_yield=[0.02], is_call=[False], american=[True])
    packing.write(columns, "spot", [100.0 + 1e-3 * number])
    packing.write(columns, "strike", np.linspace(60.0, 140.0, AMERICAN_ROWS))
    packing.write(columns, "expiry", np.linspace(0.1, 2.0, AMERICAN_ROWS))
    packing.write(columns, "vol", [0.25])
    return wire.GreeksRequest(options=columns)


KINDS = (Kind("ES", expected_shortfall), Kind("Greeks", greeks))


@dataclass
class Tally:
    """What became of the calls of one phase."""

    answered: list[tuple[float, str]] = field(default_factory=list)  # when, by the clock; the kind
    refused_ms: list[tuple[str, float]] = field(default_factory=list)
    other: int = 0
    memory: list[int] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)

    @property
    def ends(self) -> float:
        """When the phase ends, by the clock."""
        return self.began + FILLING_S + COUNTED_S

    def counted(self) -> list[tuple[float, str]]:
        """The answers that came while the service was full, in their order."""
        found = sorted(one for one in self.answered if self.began + FILLING_S <= one[0] <= self.ends)
        if len(found) < 2:
            raise RuntimeError(f"{len(found)} answers in {COUNTED_S:g} s: the machine has no time to measure")
        return found

    def work_s_per_s(self, alone_s: dict[str, float]) -> float:
        """Seconds of work answered in a second: from the first answer counted to the last."""
        (first, _), *others = self.counted()
        return sum(alone_s[kind] for _, kind in others) / (others[-1][0] - first)

    def as_dict(self, alone_s: dict[str, float]) -> dict[str, Any]:
        """For the result file."""
        counted = self.counted()
        return {
            "work_s_per_s": self.work_s_per_s(alone_s),
            "answers_per_s": (len(counted) - 1) / (counted[-1][0] - counted[0][0]),
            "answered": {one.name: sum(kind == one.name for _, kind in counted) for one in KINDS},
        }


async def alone(stub: Any, kind: Kind) -> float:
    """Seconds that one call takes with nothing beside it: the median of a few."""
    times = []
    for number in range(ALONE + 1):
        start = time.perf_counter()
        await kind.call(stub, number)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


async def peak(stub: Any) -> Tally:
    """What a few callers get that ask one thing after another, the kinds in turn."""
    tally, numbers = Tally(), itertools.count()

    async def caller() -> None:
        while time.perf_counter() < tally.ends:
            await _one(stub, next(numbers), tally)

    await asyncio.gather(*(caller() for _ in range(SATURATING)))
    return tally


async def offered(stub: Any, per_second: float, service: psutil.Process) -> Tally:
    """Calls begun at a steady rate whatever becomes of them; ends when all have ended."""
    tally, calls = Tally(), set()
    for number in range(int(per_second * (FILLING_S + COUNTED_S))):
        due = tally.began + number / per_second
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        call = asyncio.create_task(_one(stub, number, tally))
        calls.add(call)
        call.add_done_callback(calls.discard)
        if number % int(per_second) == 0:
            tally.memory.append(service.memory_info().rss)
    await asyncio.gather(*calls)
    return tally


async def _one(stub: Any, number: int, tally: Tally) -> None:
    start, kind = time.perf_counter(), KINDS[number % len(KINDS)]
    try:
        await kind.call(stub, number)
        tally.answered.append((time.perf_counter(), kind.name))
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            tally.refused_ms.append((kind.name, (time.perf_counter() - start) * 1e3))
        else:
            tally.other += 1


async def stalled_watchers(port: int, service: psutil.Process) -> int:
    """Bytes that the service grows by for so many watchers that never read."""
    before = service.memory_info().rss
    async with contextlib.AsyncExitStack() as stack:
        watches = []
        for number in range(WATCHERS):
            own = [("benchmark.number", number)]  # else channels share a connection
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}", own))
            stub: Any = RiskServiceStub(channel)
            watches.append(stub.WatchRisk(wire.WatchRiskRequest(), timeout=60))
        await asyncio.gather(*(watch.read() for watch in watches))
        await _churn(port)
        grown = service.memory_info().rss - before
        for watch in watches:
            watch.cancel()
    return grown


async def _churn(port: int) -> None:
    """Changes that every watcher would have to be told of: more than fits what its connection may hold."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel:
        stub: Any = RiskServiceStub(channel)
        book = await stub.GetPortfolio(wire.GetPortfolioRequest(portfolio="desk"))
        # What may be put in a second is limited by positions; what a watcher is told goes by underlyings.
        for _, column in book.positions.ListFields():
            del column[CHANGED_ROWS:]
        book.portfolio = "changed"
        for _ in range(CHANGES):
            await stub.PutPortfolio(wire.PutPortfolioRequest(portfolio=book), timeout=30)


async def run(port: int, service: psutil.Process, overload_phases: int) -> dict[str, Any]:
    """All measurements."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel:
        stub: Any = RiskServiceStub(channel)
        alone_s = {kind.name: await alone(stub, kind) for kind in KINDS}
        # First: the room that the overload leaves behind would hide what watchers take.
        watchers_bytes = await stalled_watchers(port, service)
        peaks, overloads = [], []
        before = service.memory_info().rss
        peaks.append(await peak(stub))
        for _ in range(overload_phases):
            per_second = peaks[-1].as_dict(alone_s)["answers_per_s"]
            overloads.append(await offered(stub, TIMES * per_second, service))
            peaks.append(await peak(stub))
        after = service.memory_info().rss
    refused = [one for tally in overloads for one in tally.refused_ms]
    return {
        "alone_s": alone_s,
        "peaks": [tally.as_dict(alone_s) for tally in peaks],
        "overloads": [tally.as_dict(alone_s) for tally in overloads],
        "refused_ms": {kind.name: sorted(ms for name, ms in refused if name == kind.name) for kind in KINDS},
        "ended_otherwise": sum(tally.other for tally in overloads),
        "memory_bytes": {
            "before": before,
            "most": max(max(tally.memory) for tally in overloads),
            "after": after,
        },
        "watchers_bytes": watchers_bytes,
    }


def table(result: dict[str, Any]) -> str:
    """The result in words."""
    memory, alone_s, mib = result["memory_bytes"], result["alone_s"], 1 / 2**20
    peaks, overloads = result["peaks"], result["overloads"]
    parts = [
        2.0 * over["work_s_per_s"] / (earlier["work_s_per_s"] + later["work_s_per_s"])
        for over, (earlier, later) in zip(overloads, itertools.pairwise(peaks), strict=True)
    ]
    per_second = statistics.median(one["answers_per_s"] for one in peaks)
    answered = ", ".join(
        f"{sum(one['answered'][kind.name] for one in overloads)} {kind.name}" for kind in KINDS
    )
    rows = [
        ("ES of 10,000 options under 4,096 draws, alone", f"{alone_s['ES'] * 1e3:.0f} ms"),
        (f"Greeks of {AMERICAN_ROWS:,} American options, alone", f"{alone_s['Greeks'] * 1e3:.0f} ms"),
        ("peak, the two in turn", f"{per_second:.1f} answers/s"),
        ("offered", f"{TIMES * per_second:.0f} calls/s"),
        ("work answered of that, median", f"{statistics.median(parts):.0%} of peak"),
        ("in each phase", ", ".join(f"{part:.0%}" for part in parts)),
        ("answered", answered),
    ]
    for name, times in result["refused_ms"].items():
        worst = f"p50 {statistics.median(times):.1f} ms, p99 {times[int(0.99 * len(times))]:.1f} ms"
        rows.append((f"{name} refused", f"{len(times)} calls, {worst}" if times else "none"))
    rows += [
        ("ended otherwise", str(result["ended_otherwise"])),
        (
            "memory before, most, after",
            " / ".join(f"{memory[k] * mib:.0f} MiB" for k in ("before", "most", "after")),
        ),
        (f"{WATCHERS} stalled watchers", f"{result['watchers_bytes'] * mib:.0f} MiB"),
    ]
    lines = ["### Ten times the sustainable cost offered", "", "| what | measured |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows), ""])


def main(overload_phases: int) -> None:
    """Measures, prints and keeps the result."""

    with serving_book(BOOK, 500, "never") as port:
        (service,) = [
            child
            for child in psutil.Process().children()
            if any(one.laddr.port == port for one in child.net_connections("tcp"))
        ]
        result = asyncio.run(run(port, service, overload_phases))
    measure.write("overload", {"machine": measure.machine(), **result}, table(result))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else PHASES)
