"""When a watch of live risk goes on after a failure, and how long it still may."""

from __future__ import annotations

import time
from collections.abc import Sequence

import grpc

from protos.risk.v1 import risk_pb2 as wire
from risk_client.connection import backoff_s
from risk_client.errors import Unavailable
from risk_client.failed_calls import from_rpc
from risk_client.messages import message_of


class Watch:
    """One watch over any number of streams; with `resume` a service that went away is waited for."""

    def __init__(
        self, portfolios: str | Sequence[str], min_interval_ms: int, deadline_s: float | None, resume: bool
    ) -> None:
        if isinstance(portfolios, str):
            portfolios = (portfolios,)  # else it would be its letters
        self.request = message_of(
            wire.WatchRiskRequest, portfolios=portfolios, min_interval_ms=min_interval_ms
        )
        self._ends_at = None if deadline_s is None else time.monotonic() + deadline_s
        self._resume = resume
        self._failures = 0

    def left_s(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    def heard(self) -> None:
        """Something came: the next failure is the first again."""
        self._failures = 0

    def pause_after_s(self, error: grpc.RpcError) -> float:
        """Seconds to wait before the next stream; raises what ends the watch."""
        fault = from_rpc(error)
        if not (self._resume and isinstance(fault, Unavailable)):
            raise fault from None
        self._failures += 1
        return backoff_s(self._failures)
