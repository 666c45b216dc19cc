"""The committed stubs, the topics and the status numbers are what their sources say."""

from __future__ import annotations

import pytest

from gpu_kernels import Status
from protos import generate, topics
from protos.risk.v1 import risk_pb2


def test_stubs_match_the_schemas():
    pytest.importorskip("grpc_tools", reason="the generator is a dev dependency; `make check` has it")
    assert generate.differences() == []


def test_row_status_has_the_numbers_of_the_kernels():
    wire = {name.removeprefix("ROW_STATUS_"): number for name, number in risk_pb2.RowStatus.items()}
    assert wire == {status.name: status.value for status in Status}


def test_topics_are_the_contract():
    assert [topic.name for topic in topics.TOPICS] == [
        "market.data.raw",
        "market.data.normalized",
        "orders.incoming",
        "orders.executed",
        "risk.portfolios",
        "risk.metrics",
        "risk.alerts",
        "analytics.results",
    ]
    assert [topic.name for topic in topics.TOPICS if topic.compacted] == ["risk.portfolios"]
