"""A service that is told to stop ends with status 0 and leaves nothing behind, whatever state it is in."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from running import PATIENCE_S, Service, until

from protos import topics
from risk_client import RiskClient
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.producer import Producer

CPU_APART = {"GPU_RISK_RISK_ENGINE": "cpu", "GPU_RISK_RISK_ENGINE_PROCESS": "always"}
NOISE = ("Traceback", "resource_tracker", "did not stop")


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


def started(folder: Path, command: str, broker: EmbeddedBroker, **settings: str) -> Service:
    common = {"GPU_RISK_KAFKA_BOOTSTRAP": broker.bootstrap, "GPU_RISK_GRPC_PORT": "0"}
    return Service(folder, command, settings=common | settings)


def family(service: Service) -> list[psutil.Process]:
    return psutil.Process(service.process.pid).children(recursive=True)


def shared(service: Service) -> list[Path]:
    """Shared memory that the service has, by the name that it was made with."""
    maps = Path(f"/proc/{service.process.pid}/maps").read_text()
    return [Path(one) for one in set(re.findall(r"(/dev/shm/psm_\w+)", maps))]


def ended(service: Service, status: int, children: list[psutil.Process]) -> str:
    """What it said; its children are gone with it."""
    assert service.process.wait(PATIENCE_S) == status, service.err.read_text()
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
    assert not alive
    said = service.err.read_text()
    assert not any(word in said for word in NOISE), said
    return said


def big_request(client: RiskClient) -> None:
    client.greeks(spot=100.0, strike=np.linspace(50.0, 150.0, 50_000), expiry=0.5, vol=0.2)


def test_brokers_that_answer_no_more(broker: EmbeddedBroker, tmp_path: Path) -> None:
    traded = {"GPU_RISK_BOOK_INSTRUMENTS": "AAA:0.01:100"}
    with started(tmp_path, "book", broker, **traded) as book, started(tmp_path, "serve", broker) as serve:
        book.address()
        serve.address()
        with Producer(broker.settings()) as producer:
            # Each letter to the dead is a record that a service has to deliver before it commits.
            for number in range(50):
                producer.send(topics.MARKET_DATA_RAW, f"k{number}", b"\xff")
        os.kill(broker.pid, signal.SIGSTOP)
        children = family(serve)
        book.process.terminate()
        serve.process.terminate()
        ended(book, 0, [])
        ended(serve, 0, children)
        os.kill(broker.pid, signal.SIGCONT)


def test_a_worker_that_was_just_killed(broker: EmbeddedBroker, tmp_path: Path) -> None:
    with started(tmp_path, "serve", broker, **CPU_APART) as serve:
        with RiskClient(serve.address(), deadline_s=PATIENCE_S) as client:
            big_request(client)
        children, memory = family(serve), shared(serve)
        assert memory
        # Its name is gone while both ends still use it: nothing can be left of it.
        assert not any(one.exists() for one in memory)
        for child in children:
            if "spawn_main" in " ".join(child.cmdline()):
                child.kill()
        serve.process.terminate()
        ended(serve, 0, children)


def test_ctrl_c_twice_ends_at_once_and_quietly(broker: EmbeddedBroker, tmp_path: Path) -> None:
    with started(tmp_path, "serve", broker, **CPU_APART, GPU_RISK_LOG_LEVEL="error") as serve:
        with RiskClient(serve.address(), deadline_s=PATIENCE_S) as client:
            big_request(client)
        children = family(serve)
        serve.process.send_signal(signal.SIGINT)
        serve.process.send_signal(signal.SIGINT)
        status = serve.process.wait(PATIENCE_S)
        said = ended(serve, status, children)
    # A stop takes a tenth of a second: the second signal may come too late to find anything.
    assert (status, said) in ((130, "risk_service: second SIGINT: ended at once\n"), (0, ""))


def test_a_start_that_compiles_is_not_waited_for(broker: EmbeddedBroker, tmp_path: Path) -> None:
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
    # Ended in the midst of starting a process, in most runs.
    with started(tmp_path, "serve", broker, **cache, **CPU_APART) as serve:
        children = until(lambda: family(serve), "a child", serve)
        serve.process.terminate()
        said = ended(serve, 0, children)
    assert said == "risk_service: SIGTERM while it started: ended\n"
