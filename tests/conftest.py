"""Fixtures that the whole suite shares: real Kafka brokers and the seed of random tests."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

_NO_KAFKA = "NO REAL KAFKA"
_KAFKA_FIXTURES = frozenset({"kafka_broker", "kafka_cluster"})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on real Kafka carry its mark and run in one worker of pytest-xdist, on the same brokers."""
    for item in items:
        if _KAFKA_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("kafka")
        if item.get_closest_marker("kafka") is not None:
            item.add_marker(pytest.mark.xdist_group("kafka"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say loudly, at the end, that the part on real Kafka was left out and why."""
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    left_out = [reason for reason in reasons if _NO_KAFKA in reason]
    if left_out:
        why = left_out[0][left_out[0].index(_NO_KAFKA) :].rstrip("')")
        terminalreporter.section(f"{len(left_out)} tests on real Kafka were left out", red=True, bold=True)
        terminalreporter.line(why)


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[Any]:
    """One real Kafka broker (`service_kit.kafka.real.RealKafka`), the same for the whole session."""
    yield from _kafka(1, to_kill=False)


@pytest.fixture(scope="session")
def kafka_cluster() -> Iterator[Any]:
    """Three real Kafka brokers that tests may kill; a test starts again what it has killed."""
    yield from _kafka(3, to_kill=True)


@pytest.fixture
def seed() -> int:
    """GPU_RISK_TEST_SEED, or a new one; pytest shows the line below for a test that fails."""
    value = int(os.environ.get("GPU_RISK_TEST_SEED") or secrets.randbits(32))
    print(f"GPU_RISK_TEST_SEED={value}")
    return value


def _kafka(brokers: int, *, to_kill: bool) -> Iterator[Any]:
    # Imported here: the tests of gpu_kernels run on machines that have no Kafka client.
    from service_kit.kafka.errors import NoRealKafka
    from service_kit.kafka.real import find_kafka

    try:
        kafka = find_kafka(brokers, to_kill=to_kill)
    except NoRealKafka as error:
        if os.environ.get("GPU_RISK_REQUIRE_KAFKA") == "1":
            pytest.fail(f"{_NO_KAFKA}, and GPU_RISK_REQUIRE_KAFKA=1: {error}", pytrace=False)
        pytest.skip(f"{_NO_KAFKA}: {error}")
    try:
        yield kafka
    finally:
        kafka.close()
