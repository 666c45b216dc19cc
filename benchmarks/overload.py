"""Ten times the sustainable cost offered: what is still answered, how soon the rest is refused.

python -m benchmarks.overload
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
from typing import Any

import grpc
import psutil

from benchmarks import measure
from benchmarks.grpc_load import OPTIONS, option_columns
from benchmarks.risk_world import serving_book
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub

BOOK = 10_000
SCENARIOS = 4_096
SECONDS = 8.0
SATURATING = 4  # callers that keep two cores busy
TIMES = 10
WATCHERS = 200
DEADLINE_S = 30.0


class Tally:
    """What became of the calls."""

    def __init__(self) -> None:
        self.answered, self.refused_ms, self.other = 0, [], 0
        self.memory: list[int] = []


def heavy(number: int) -> wire.ExpectedShortfallRequest:
    """A Monte Carlo ES of the whole book; every one has draws of its own."""
    draws = wire.MonteCarloScenarios(
        scenarios=SCENARIOS, seed=number, sampler=wire.MonteCarloScenarios.SAMPLER_PHILOX
    )
    return wire.ExpectedShortfallRequest(portfolio="desk", monte_carlo=draws)


async def peak(stub: Any) -> float:
    """Answers per second while a few callers ask one after another."""
    ends, done = time.perf_counter() + SECONDS, 0

    async def caller(number: int) -> None:
        nonlocal done
        while time.perf_counter() < ends:
            with contextlib.suppress(grpc.RpcError):
                await stub.ExpectedShortfall(heavy(number), timeout=DEADLINE_S)
                done += 1

    start = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(SATURATING)))
    return done / (time.perf_counter() - start)


async def offered(stub: Any, per_second: float, service: psutil.Process) -> tuple[Tally, float]:
    """Calls begun at a steady rate whatever becomes of them; the answers per second until the last ended."""
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
    return tally, tally.answered / (time.perf_counter() - start)


async def _one(stub: Any, number: int, tally: Tally) -> None:
    start = time.perf_counter()
    try:
        await stub.ExpectedShortfall(heavy(number), timeout=DEADLINE_S)
        tally.answered += 1
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            tally.refused_ms.append((time.perf_counter() - start) * 1e3)
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
    """Changes that every watcher would have to be told of."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel:
        stub: Any = RiskServiceStub(channel)
        book = await stub.GetPortfolio(wire.GetPortfolioRequest(portfolio="desk"))
        for _ in range(10):
            await stub.PutPortfolio(wire.PutPortfolioRequest(portfolio=book), timeout=30)
            await asyncio.sleep(0.2)


async def run(port: int, service: psutil.Process) -> dict[str, Any]:
    """All measurements."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel:
        stub: Any = RiskServiceStub(channel)
        await stub.ExpectedShortfall(heavy(0), timeout=120)
        await stub.Greeks(wire.GreeksRequest(options=option_columns(10_000)))
        most = await peak(stub)
        before = service.memory_info().rss
        tally, goodput = await offered(stub, TIMES * most, service)
        after = service.memory_info().rss
    return {
        "peak_per_second": most,
        "offered_per_second": TIMES * most,
        "answered_per_second": goodput,
        "answered": tally.answered,
        "refused": len(tally.refused_ms),
        "ended_otherwise": tally.other,
        "refused_ms": sorted(tally.refused_ms),
        "memory_bytes": {"before": before, "most": max(tally.memory), "after": after},
        "watchers_bytes": await stalled_watchers(port, service),
    }


def table(result: dict[str, Any]) -> str:
    """The result in words."""
    refused, memory = result["refused_ms"] or [0.0], result["memory_bytes"]
    part = result["answered_per_second"] / result["peak_per_second"]
    mib = 1 / 2**20
    rows = (
        ("peak, ES of 10,000 options under 4,096 draws", f"{result['peak_per_second']:.1f} answers/s"),
        ("offered", f"{result['offered_per_second']:.0f} calls/s"),
        ("answered of that", f"{result['answered_per_second']:.1f} answers/s, {part:.0%} of peak"),
        (
            "refused",
            f"{result['refused']} calls, p50 {statistics.median(refused):.1f} ms, "
            f"p99 {refused[int(0.99 * len(refused))]:.1f} ms",
        ),
        ("ended otherwise", str(result["ended_otherwise"])),
        (
            "memory before, most, after",
            " / ".join(f"{memory[k] * mib:.0f} MiB" for k in ("before", "most", "after")),
        ),
        ("200 stalled watchers", f"{result['watchers_bytes'] * mib:.0f} MiB"),
    )
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
