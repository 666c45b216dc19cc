"""The desk's client: methods are the RPCs in snake_case, arrays in and arrays out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

import grpc

from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_client.connection import CHUNK_ROWS, DEADLINE_S, Token, bearer, checked_deadline, open_channel
from risk_client.failed_calls import from_rpc
from risk_client.jobs import Job
from risk_client.methods import RiskMethods
from risk_client.watching import Watch

Result = TypeVar("Result")


class RiskClient(RiskMethods):
    """A connection to risk_service. Safe to share between threads; close it, or use it in a `with`.

    `credentials` come from `risk_client.tls`; `token` is a bearer token, or a function that gives a fresh one
    for each call. A call without a `deadline_s` of its own has the client's. Options beyond `chunk_rows` go
    in parts of that many rows, and the deadline counts for each part.
    """

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None = None,
        token: Token | None = None,
        *,
        deadline_s: float = DEADLINE_S,
        chunk_rows: int = CHUNK_ROWS,
    ) -> None:
        if chunk_rows < 1:
            raise ValueError(f"chunk_rows must be 1 or more, not {chunk_rows}")
        self._channel: grpc.Channel = open_channel(grpc, target, credentials, token)
        self._stub: Any = RiskServiceStub(self._channel)
        self._token = token
        self._deadline_s = deadline_s
        self._chunk_rows = chunk_rows

    def watch_risk(
        self,
        portfolios: str | Sequence[str] = (),
        min_interval_ms: int = 0,
        deadline_s: float | None = None,
        *,
        resume: bool = False,
    ) -> Iterator[wire.RiskMetrics]:
        """Risk of portfolios (none: all) now, then at every change, until the caller or the deadline ends it.

        With `resume` a service that goes away is waited for; its risk then starts with how things are.
        """
        self._check_open()
        watch = Watch(portfolios, min_interval_ms, deadline_s, resume)
        while True:
            stream = self._stub.WatchRisk(watch.request, timeout=watch.left_s(), metadata=bearer(self._token))
            try:
                for metrics in stream:
                    watch.heard()
                    yield metrics
                return
            except grpc.RpcError as error:
                pause_s = watch.pause_after_s(error)
            finally:
                stream.cancel()
            time.sleep(pause_s)

    def close(self) -> None:
        """Ends the connection; open streams end with it."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> RiskClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, describe: Callable[[], Job[Result]]) -> Result:
        """Sends a job's messages, as many at once as it allows, and reads the answers in their order."""
        self._check_open()
        job = describe()
        seconds = checked_deadline(self._deadline_s if job.deadline_s is None else job.deadline_s)
        together = job.together(self._chunk_rows)
        under_way: deque[Any] = deque()
        try:
            for request in job.requests(self._chunk_rows):
                method = getattr(self._stub, job.rpc)
                if job.streams:
                    self._take_all(job, method(request, timeout=seconds, metadata=bearer(self._token)))
                    continue
                if together == 1:
                    job.take(method(request, timeout=seconds, metadata=bearer(self._token)))
                    continue
                under_way.append(method.future(request, timeout=seconds, metadata=bearer(self._token)))
                if len(under_way) == together:
                    job.take(under_way.popleft().result())
            while under_way:
                job.take(under_way.popleft().result())
        except grpc.RpcError as error:
            raise job.told(from_rpc(error)) from None
        finally:
            for call in under_way:
                call.cancel()
        return job.result()

    @staticmethod
    def _take_all(job: Job[Any], stream: Any) -> None:
        """Takes what comes; whoever is told of progress may raise, and the service then stops computing."""
        try:
            for answer in stream:
                job.take(answer)
        finally:
            stream.cancel()
