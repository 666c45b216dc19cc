"""Ten times the sustainable cost offered: what is still answered, how soon the rest is refused.

    python -m benchmarks.overload

Half of the calls are Monte Carlo ES of a whole book, half are Greeks of American options. Work is counted in
seconds: an answer counts as much as one of its kind takes alone, so that answering the cheaper kind only
would not look like goodput.
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
SECONDS = 8.0
SATURATING = 4  # callers that keep two cores busy
TIMES = 10
WATCHERS = 200
CHANGES = 200  # of some kilobytes each
CHANGED_ROWS = 20
AMERICAN_ROWS = 10_000
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
    """Greeks of many American options of one underlying; every one at another spot."""
    columns = wire.OptionColumns(rate=[0.04], dividend_yield=[0.02], is_call=[False], american=[True])
    packing.write(columns, "spot", [100.0 + 1e-3 * (number % 1_000)])
    packing.write(columns, "strike", np.linspace(60.0, 140.0, AMERICAN_ROWS))
    packing.write(columns, "expiry", np.linspace(0.1, 2.0, AMERICAN_ROWS))
    packing.write(columns, "vol", [0.25])
    called: Awaitable[object] = stub.Greeks(wire.GreeksRequest(options=columns), timeout=DEADLINE_S)
    return called


KINDS = (Kind("ES", expected_shortfall), Kind("Greeks", greeks))


@dataclass
class Tally:
    """What became of the calls."""

    answered: dict[str, int] = field(default_factory=lambda: {kind.name: 0 for kind in KINDS})
    refused_ms: dict[str, list[float]] = field(default_factory=lambda: {kind.name: [] for kind in KINDS})
    other: int = 0
    memory: list[int] = field(default_factory=list)

    def work_s(self, alone_s: dict[str, float]) -> float:
        """Seconds of work in the answers."""
        return sum(alone_s[name] * count for name, count in self.answered.items())


async def alone(stub: Any, kind: Kind) -> float:
    """Seconds that one call takes with nothing beside it: the median of a few."""
    times = []
    for number in range(ALONE + 1):
        start = time.perf_counter()
        await kind.call(stub, number)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


async def peak(stub: Any) -> tuple[Tally, float]:
    """What a few callers get that ask one thing after another, the kinds in turn; and the seconds it took."""
    tally, numbers = Tally(), itertools.count()
    start = time.perf_counter()

    async def caller() -> None:
        while time.perf_counter() < start + SECONDS:
            await _one(stub, next(numbers), tally)

    await asyncio.gather(*(caller() for _ in range(SATURATING)))
    return tally, time.perf_counter() - start


async def offered(stub: Any, per_second: float, service: psutil.Process) -> tuple[Tally, float]:
    """Calls begun at a steady rate whatever becomes of them; and the seconds until the last ended."""
    tally, calls = Tally(), set()
    start = time.perf_counter()
    count = int(per_second * SECONDS)
    for number in range(count):
        due = start + number / per_second
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        call = asyncio.create_task(_one(stub, number, tally))
        calls.add(call)
        call.add_done_callback(calls.discard)
        if number % max(1, count // 20) == 0:
            tally.memory.append(service.memory_info().rss)
    await asyncio.gather(*calls)
    return tally, time.perf_counter() - start


async def _one(stub: Any, number: int, tally: Tally) -> None:
    start, kind = time.perf_counter(), KINDS[number % len(KINDS)]
    try:
        await kind.call(stub, number)
        tally.answered[kind.name] += 1
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            tally.refused_ms[kind.name].append((time.perf_counter() - start) * 1e3)
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


async def run(port: int, service: psutil.Process) -> dict[str, Any]:
    """All measurements."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel:
        stub: Any = RiskServiceStub(channel)
        alone_s = {kind.name: await alone(stub, kind) for kind in KINDS}
        # First: the room that the overload leaves behind would hide what watchers take.
        watchers_bytes = await stalled_watchers(port, service)
        most, took_s = await peak(stub)
        answered_per_s = sum(most.answered.values()) / took_s
        before = service.memory_info().rss
        tally, lasted_s = await offered(stub, TIMES * answered_per_s, service)
        after = service.memory_info().rss
    return {
        "alone_s": alone_s,
        "peak": {"per_second": answered_per_s, "work_s_per_s": most.work_s(alone_s) / took_s},
        "offered_per_second": TIMES * answered_per_s,
        "answered": tally.answered,
        "work_s_per_s": tally.work_s(alone_s) / lasted_s,
        "refused_ms": {name: sorted(times) for name, times in tally.refused_ms.items()},
        "ended_otherwise": tally.other,
        "memory_bytes": {"before": before, "most": max(tally.memory), "after": after},
        "watchers_bytes": watchers_bytes,
    }


def table(result: dict[str, Any]) -> str:
    """The result in words."""
    memory, most = result["memory_bytes"], result["peak"]
    mib, alone_s = 1 / 2**20, result["alone_s"]
    part = result["work_s_per_s"] / most["work_s_per_s"]
    rows = [
        ("ES of 10,000 options under 4,096 draws, alone", f"{alone_s['ES'] * 1e3:.0f} ms"),
        (f"Greeks of {AMERICAN_ROWS:,} American options, alone", f"{alone_s['Greeks'] * 1e3:.0f} ms"),
        ("peak, the two in turn", f"{most['per_second']:.1f} answers/s"),
        ("offered", f"{result['offered_per_second']:.0f} calls/s"),
        ("work answered of that", f"{part:.0%} of peak"),
        ("answered", ", ".join(f"{count} {name}" for name, count in result["answered"].items())),
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


def main() -> None:
    """Measures, prints and keeps the result."""

    with serving_book(BOOK, 500, "never") as port:
        (service,) = [
            child
            for child in psutil.Process().children()
            if any(one.laddr.port == port for one in child.net_connections("tcp"))
        ]
        result = asyncio.run(run(port, service))
    measure.write("overload", {"machine": measure.machine(), **result}, table(result))


if __name__ == "__main__":
    sys.exit(main())
