"""What RiskService answers per second, and how soon, beside a bare grpc.aio echo of the same run.

The service is whole but for Kafka: real servicer, guard and live loop, topics in memory, one process; the
clients share the machine with it, and are as they come.
python -m benchmarks.grpc_load [always|never]
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks import measure
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_client import AsyncRiskClient

ROUNDS = 5
SIDE_BY_SIDE = 32
SMALL_CALLS = 1_500  # per round
ROWS = 10_000
LARGE_CALLS = 60
SCENARIOS = 500
ANSWER_BYTES = 73 * ROWS  # of price, eight Greeks and a status per row
ECHO = "/benchmark.Echo/Call"
OPTIONS = [("grpc.max_receive_message_length", 1 << 28), ("grpc.max_send_message_length", 1 << 28)]

ECHO_SERVER = """
import asyncio, grpc, sys
large = bytes(int(sys.argv[1]))
async def answer(request, context):
    return request if len(request) < 100_000 else large
async def main():
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(answer)
    generic = grpc.method_handlers_generic_handler("benchmark.Echo", {"Call": handler})
    server.add_generic_rpc_handlers((generic,))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()
asyncio.run(main())
"""

Call = Callable[[], Awaitable[Any]]


def option_columns(rows: int, seed: int = 1) -> wire.OptionColumns:
    """Options around the money in columns."""
    random = np.random.default_rng(seed)
    columns = wire.OptionColumns(rate=[0.02])
    for name, low, high in (
        ("spot", 80.0, 120.0),
        ("strike", 80.0, 120.0),
        ("expiry", 0.1, 2.0),
        ("vol", 0.1, 0.5),
    ):
        packing.write(columns, name, random.uniform(low, high, rows))
    return columns


async def rate(call: Call, calls: int) -> float:
    """Calls per second, so many side by side."""
    left = iter(range(calls))

    async def one_caller() -> None:
        for _ in left:
            await call()

    start = time.perf_counter()
    await asyncio.gather(*(one_caller() for _ in range(SIDE_BY_SIDE)))
    return calls / (time.perf_counter() - start)


async def latencies_ms(call: Call, calls: int) -> list[float]:
    """Milliseconds of each of so many calls, one after another."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        await call()
        times.append((time.perf_counter() - start) * 1e3)
    return times


async def run(service_port: int, echo_port: int) -> dict[str, Any]:
    """All measurements, echo and service in turn."""
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{service_port}", OPTIONS) as channel,
        grpc.aio.insecure_channel(f"127.0.0.1:{echo_port}", OPTIONS) as echo_channel,
        AsyncRiskClient(f"127.0.0.1:{service_port}") as client,
    ):
        stub: Any = RiskServiceStub(channel)
        small = wire.GreeksRequest(options=option_columns(1))
        data = small.SerializeToString()
        echo = echo_channel.unary_unary(ECHO)
        large = wire.GreeksRequest(options=option_columns(ROWS))
        large_data = large.SerializeToString()
        columns: dict[str, Any] = {
            name: packing.read(large.options, name) for name in ("spot", "strike", "expiry", "vol")
        }
        live = wire.ExpectedShortfallRequest(
            portfolio="desk", historical=wire.HistoricalScenarios(window_days=SCENARIOS)
        )
        fresh = wire.ExpectedShortfallRequest(
            portfolio="desk", monte_carlo=wire.MonteCarloScenarios(scenarios=SCENARIOS, seed=7)
        )

        def echoed() -> Awaitable[Any]:
            return echo(data)

        def served() -> Awaitable[Any]:
            return stub.Greeks(small)

        large_calls: dict[str, Call] = {
            "Greeks of 10,000": lambda: stub.Greeks(large),
            "Greeks of 10,000, by AsyncRiskClient": lambda: client.greeks(rate=0.02, **columns),
            "echo of the same bytes": lambda: echo(large_data),
        }

        for call in (echoed, served):
            await rate(call, 300)
        for request in (live, fresh):
            await stub.ExpectedShortfall(request, timeout=120)
        for call in large_calls.values():
            await latencies_ms(call, 5)
        rates: dict[str, list[float]] = {"echo": [], "small Greeks": []}
        times: dict[str, list[float]] = {
            **{name: [] for name in large_calls},
            "ES, vector at hand": [],
            "ES, revalued": [],
        }
        for _ in range(ROUNDS):
            rates["echo"].append(await rate(echoed, SMALL_CALLS))
            rates["small Greeks"].append(await rate(served, SMALL_CALLS))
            part = LARGE_CALLS // ROUNDS
            for name, large_call in large_calls.items():
                times[name] += await latencies_ms(large_call, part)
            times["ES, vector at hand"] += await latencies_ms(lambda: stub.ExpectedShortfall(live), part)
            times["ES, revalued"] += await latencies_ms(lambda: stub.ExpectedShortfall(fresh), part)
    return {"calls_per_second": rates, "milliseconds": times}


def main(process: str) -> None:
    """Measures, prints and keeps the result."""
    from benchmarks.risk_world import serving_book

    command = [sys.executable, "-c", ECHO_SERVER, str(ANSWER_BYTES)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as echo:
        try:
            if echo.stdout is None:
                raise RuntimeError("the echo server has no output")
            echo_port = int(echo.stdout.readline())
            with serving_book(ROWS, SCENARIOS, process) as port:
                result = asyncio.run(run(port, echo_port))
        finally:
            echo.kill()
    name = "grpc_load" if process == "never" else f"grpc_load_{process}"
    measure.write(name, {"machine": measure.machine(), "engine_process": process, **result}, table(result))


def table(result: dict[str, Any]) -> str:
    """Medians, and what they are to be."""
    rates, times = result["calls_per_second"], result["milliseconds"]
    ratio = statistics.median(
        small / echo for small, echo in zip(rates["small Greeks"], rates["echo"], strict=True)
    )
    lines = ["### RiskService over gRPC, client on the same machine", "", "| what | measured |", "|---|---|"]
    for name, values in rates.items():
        lines.append(f"| {name}, {SIDE_BY_SIDE} side by side | {statistics.median(values):,.0f} calls/s |")
    lines.append(f"| small Greeks as a part of the bare echo | {ratio:.2f} |")
    for name, values in times.items():
        p99 = sorted(values)[int(0.99 * len(values))]
        p50 = statistics.median(values)
        lines.append(f"| {name}, one after another | p50 {p50:.2f} ms, p99 {p99:.2f} ms |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main(sys.argv[1] if len(sys.argv) > 1 else "never")
