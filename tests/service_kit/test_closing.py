"""Resources: reverse order, all of them closed, each within its time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from service_kit.closing import Resources
from service_kit.errors import BrokerUnreachable, ServiceKitError, StopTimedOut
from service_kit.lifecycle import Stop


def fail() -> None:
    raise OSError("disk gone")


async def close(resources: Resources, kind: str) -> None:
    if kind == "threads":
        with resources:
            pass
    else:
        async with resources:
            pass


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
async def test_the_last_one_closes_first_and_a_failure_stops_nothing(kind: str) -> None:
    closed: list[str] = []

    def noting(name: str) -> Callable[[], None]:
        return lambda: closed.append(name)

    resources = Resources()
    resources.add("a", noting("a"))
    resources.add("b", fail)
    resources.add("c", noting("c"))
    with pytest.raises(OSError, match="disk gone"):
        await close(resources, kind)
    assert closed == ["c", "a"]


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
async def test_one_that_blocks_is_left_behind_and_named(kind: str) -> None:
    never, closed = threading.Event(), list[str]()
    resources = Resources()
    resources.add("after", lambda: closed.append("after"))
    resources.add("stuck", never.wait, within_s=0.05)
    with pytest.raises(StopTimedOut, match="stuck"):
        await close(resources, kind)
    assert closed == ["after"]
    never.set()


async def test_a_coroutine_that_hangs_is_cancelled() -> None:
    cancelled = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    resources = Resources()
    resources.add("hang", hang, within_s=0.05)
    resources.add("made by a lambda", lambda: asyncio.sleep(0))
    with pytest.raises(StopTimedOut, match="hang"):
        await close(resources, "asyncio")
    assert cancelled == [True]


def test_the_bodys_error_stands_with_the_others_as_notes() -> None:
    def body() -> None:
        with Resources() as resources:
            resources.add("b", fail)
            raise KeyError("body")

    with pytest.raises(KeyError) as caught:
        body()
    assert caught.value.__notes__ == ["and while closing: disk gone"]


def test_a_coroutine_without_async_with_is_refused() -> None:
    resources = Resources()
    resources.add("c", lambda: asyncio.sleep(0))
    with pytest.raises(ServiceKitError, match="async with"):
        resources.close()


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
async def test_what_recovers_is_left_behind_with_a_warning(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    never, closed, stop = threading.Event(), list[str](), Stop()

    def without_brokers() -> None:
        raise BrokerUnreachable("b:1", "refused")

    resources = Resources(stop=stop)
    resources.add("after", lambda: closed.append("after"))
    resources.add("stuck", never.wait, within_s=0.05, recovers=True)
    resources.add("refused", without_brokers, recovers=True)
    await close(resources, kind)
    assert closed == ["after"]
    assert stop.left_behind == ["stuck"]
    assert [message.partition(";")[0] for message in caplog.messages] == [
        "refused: Kafka broker b:1 cannot be reached: refused",
        "left behind at the end, the next start makes it again: stuck",
    ]
    never.set()


async def test_a_fault_of_ours_is_one_though_it_recovers() -> None:
    resources = Resources()
    resources.add("b", fail, recovers=True)
    with pytest.raises(OSError, match="disk gone"):
        await close(resources, "asyncio")


async def test_the_time_since_the_stop_counts_and_everybody_has_some(monkeypatch: pytest.MonkeyPatch) -> None:
    never, closed, stop = threading.Event(), list[str](), Stop()
    monkeypatch.setattr("service_kit.closing.AT_LEAST_S", 0.2)
    stop.set()
    assert stop.set_at is not None
    stop.set_at -= 3600.0
    resources = Resources(total_s=3600.0, stop=stop)
    resources.add("quick", lambda: closed.append("quick"))
    # By itself it would have an hour.
    resources.add("stuck", never.wait, within_s=3600.0, recovers=True)
    await close(resources, "asyncio")
    assert closed == ["quick"]
    assert stop.left_behind == ["stuck"]
    never.set()
