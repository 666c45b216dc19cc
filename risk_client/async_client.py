"""The client for asyncio: the methods of `RiskClient`, awaited."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar, cast

import grpc
import grpc.aio

from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_client.connection import CHUNK_ROWS, DEADLINE_S, Token, bearer, checked_deadline, open_channel
from risk_client.failed_calls import from_rpc
from risk_client.jobs import Job
from risk_client.methods import RiskMethods
from risk_client.watching import Watch

Result = TypeVar("Result")
AsyncToken = Token | Callable[[], Awaitable[str]]


class AsyncRiskClient(RiskMethods):
    """A connection to risk_service for one event loop, made in it; close it, or use it in an `async with`.

    Everything is as in `RiskClient`; the function that gives tokens may be a coroutine.
    """

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None = None,
        token: AsyncToken | None = None,
        *,
        deadline_s: float = DEADLINE_S,
        chunk_rows: int = CHUNK_ROWS,
    ) -> None:
        if chunk_rows < 1:
            raise ValueError(f"chunk_rows must be 1 or more, not {chunk_rows}")
        self._channel: grpc.aio.Channel = open_channel(grpc.aio, target, credentials, token)
        self._stub: Any = RiskServiceStub(cast(grpc.Channel, self._channel))
        self._token = token
        self._deadline_s = deadline_s
        self._chunk_rows = chunk_rows

    async def watch_risk(
        self,
        portfolios: str | Sequence[str] = (),
        min_interval_ms: int = 0,
        deadline_s: float | None = None,
        *,
        resume: bool = False,
    ) -> AsyncIterator[wire.RiskMetrics]:
        """Risk of portfolios (none: all) now, then at every change, until the caller or the deadline ends it.

        With `resume` a service that goes away is waited for; its risk then starts with how things are.
        """
        self._check_open()
        watch = Watch(portfolios, min_interval_ms, deadline_s, resume)
        while True:
            metadata = await self._metadata()
            stream = self._stub.WatchRisk(watch.request, timeout=watch.left_s(), metadata=metadata)
            try:
                async for metrics in stream:
                    watch.heard()
                    yield metrics
                return
            except grpc.RpcError as error:
                pause_s = watch.pause_after_s(error)
            finally:
                stream.cancel()
            await asyncio.sleep(pause_s)

    async def close(self) -> None:
        """Ends the connection; open streams end with it."""
        self._closed = True
        await self._channel.close(None)

    async def __aenter__(self) -> AsyncRiskClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, describe: Callable[[], Job[Result]]) -> Result:
        """Sends a job's messages, as many at once as it allows, and reads the answers in their order."""
        self._check_open()
        job = describe()
        seconds = checked_deadline(self._deadline_s if job.deadline_s is None else job.deadline_s)
        together = job.together(self._chunk_rows)
        under_way: deque[asyncio.Task[Any]] = deque()
        try:
            for request in job.requests(self._chunk_rows):
                if job.streams:
                    await self._take_all(job, request, seconds)
                    continue
                if together == 1:
                    job.take(await self._answer(job, request, seconds))
                    continue
                under_way.append(asyncio.create_task(self._answer(job, request, seconds)))
                if len(under_way) == together:
                    job.take(await under_way.popleft())
            while under_way:
                job.take(await under_way.popleft())
        finally:
            for call in under_way:
                call.cancel()
            # Also what failed meanwhile is heard, so that asyncio does not report it as forgotten.
            await asyncio.gather(*under_way, return_exceptions=True)
        return job.result()

    async def _answer(self, job: Job[Any], request: Any, seconds: float) -> Any:
        method = getattr(self._stub, job.rpc)
        metadata = await self._metadata()
        try:
            return await method(request, timeout=seconds, metadata=metadata)
        except grpc.RpcError as error:
            raise job.told(from_rpc(error)) from None

    async def _take_all(self, job: Job[Any], request: Any, seconds: float) -> None:
        """Takes what comes; whoever is told of progress may raise, and the service then stops computing."""
        metadata = await self._metadata()
        stream = getattr(self._stub, job.rpc)(request, timeout=seconds, metadata=metadata)
        try:
            async for answer in stream:
                job.take(answer)
        except grpc.RpcError as error:
            raise job.told(from_rpc(error)) from None
        finally:
            stream.cancel()

    async def _metadata(self) -> tuple[tuple[str, str], ...]:
        token = self._token() if callable(self._token) else self._token
        return bearer(await token if inspect.isawaitable(token) else token)
