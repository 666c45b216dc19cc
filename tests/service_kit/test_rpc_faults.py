"""Every RPC of the schema against every way to be refused, over real sockets and mutual TLS."""

from __future__ import annotations

import asyncio
import gc

import grpc
import psutil
import pytest

from service_kit.grpc_server import GrpcSettings
from tests.service_kit.certificates import World
from tests.service_kit.echo_service import SERVICE, UNSERVED, make_server
from tests.service_kit.rpc_faults import FaultCase, call, fault_cases, secure_channel

# An RPC that a servicer does not define is refused like the others; it just never gets to run out of time.
NEVER = {(UNSERVED, "past_deadline_at_the_server"), (UNSERVED, "not_a_message")}
CASES = [one for one in fault_cases(SERVICE) if (one.method.name, one.fault.name) not in NEVER]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_refused(case: FaultCase, world: World) -> None:
    await case.check(make_server, world)


async def test_the_same_calls_pass_without_the_fault(world: World) -> None:
    async with (
        make_server(GrpcSettings(**world.settings())) as server,
        secure_channel(server, world, world.client) as channel,
    ):
        good = await call(channel, SERVICE.methods_by_name["Price"], metadata=world.bearer())
        assert good.code is grpc.StatusCode.OK
        assert good.messages[0].provenance.engine == "desk-1"


async def test_a_whole_battery_leaves_nothing_behind(world: World) -> None:
    process = psutil.Process()
    battery = [case for case in CASES if case.method.name in ("Price", "PriceStream", "WatchRisk")]

    async def run() -> tuple[int, int]:
        for case in battery:
            await case.check(make_server, world)
        gc.collect()
        return process.num_fds(), process.num_threads()

    await run()  # fills grpc's own pools
    fds, threads = await run()
    async with asyncio.timeout(60):
        again = await run()
        # grpc closes its sockets and lets its threads go in the background.
        while again[0] > fds or again[1] > threads + 4:
            await asyncio.sleep(0.01)
            again = process.num_fds(), process.num_threads()
