"""Quotas by an explicit clock: rates, open calls, bounded memory."""

from __future__ import annotations

import pytest

from service_kit.errors import QuotaExceeded
from service_kit.grpc_server.quota import Quotas
from service_kit.grpc_server.settings import GrpcSettings


def quotas(**changes: object) -> Quotas:
    return Quotas(GrpcSettings(**changes))  # type: ignore[arg-type]


def test_a_burst_then_the_rate_and_the_wait_is_right() -> None:
    own = quotas(rate_per_principal=10.0, burst_per_principal=3)
    for _ in range(3):
        own.leave(own.enter("a", 0.0))
    with pytest.raises(QuotaExceeded) as caught:
        own.enter("a", 0.0)
    assert caught.value.retry_after_s == pytest.approx(0.1)
    with pytest.raises(QuotaExceeded):
        own.enter("a", 0.0999)
    own.leave(own.enter("a", 0.1001))
    own.leave(own.enter("b", 0.0))  # nobody else pays for it
    for _ in range(3):  # a long silence refills to the burst and no further
        own.leave(own.enter("a", 1000.0))
    with pytest.raises(QuotaExceeded):
        own.enter("a", 1000.0)


def test_open_calls_are_limited_for_one_and_for_all() -> None:
    own = quotas(max_calls=3, max_calls_per_principal=2)
    held = [own.enter("a", 0.0), own.enter("a", 0.0)]
    with pytest.raises(QuotaExceeded, match="one principal"):
        own.enter("a", 0.0)
    held.append(own.enter("b", 0.0))
    with pytest.raises(QuotaExceeded, match="this server"):
        own.enter("c", 0.0)
    for account in held:
        own.leave(account)
    assert own.open == 0
    own.leave(own.enter("a", 0.0))


def test_a_refused_call_costs_nothing() -> None:
    own = quotas(max_calls_per_principal=1, rate_per_principal=0.001, burst_per_principal=2)
    held = own.enter("a", 0.0)
    for _ in range(10):
        with pytest.raises(QuotaExceeded, match="open already"):
            own.enter("a", 0.0)
    own.leave(held)
    own.leave(own.enter("a", 0.0))


def test_memory_is_bounded_and_forgetting_refills_nobody() -> None:
    own = quotas(max_principals=20, rate_per_principal=1.0, burst_per_principal=10)
    for i in range(10_000):
        own.leave(own.enter(f"p{i}", float(i)))
        assert own.principals <= 20
    own = quotas(max_principals=2, rate_per_principal=1.0, burst_per_principal=1)
    watcher = own.enter("watcher", 0.0)
    own.leave(own.enter("spent", 0.0))
    with pytest.raises(QuotaExceeded, match="principals are active"):
        own.enter("new", 0.5)
    own.leave(own.enter("new", 2.0))  # "spent" is full again and goes; the watcher's open call stays counted
    assert own.open == 1
    own.leave(watcher)
