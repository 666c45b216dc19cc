"""A small real RiskService for the tests of the server base: the request's `engine` says what it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

from protos.risk.v1 import risk_pb2, risk_pb2_grpc
from service_kit import errors
from service_kit.grpc_server import GrpcServer, GrpcSettings, current_call

NAME = "gpu_risk.risk.v1.RiskService"
UNSERVED = "Hedge"
SERVICE = risk_pb2.DESCRIPTOR.services_by_name["RiskService"]


class SecretLeak(Exception):
    """An exception whose text no caller may see."""


class Foreign(Exception):
    """An exception of a library that `translate` knows."""


FAILURES: dict[str, Exception] = {
    "invalid": errors.InvalidRequest("options.strike", "is negative", 3),
    "missing": errors.NotFound("engine", "abacus"),
    "changed": errors.AlreadyChanged("portfolio", "p1", "version 3, not 2"),
    "busy": errors.QuotaExceeded("too much work", 1.5),
    "later": errors.Unavailable("no market data yet", 0.25),
    "crash": SecretLeak("password=hunter2 at /srv/keys"),
    "broker": errors.BrokerUnreachable("10.0.0.7:9092", "refused"),
    "foreign": Foreign("row 4"),
}


class EchoRisk(risk_pb2_grpc.RiskServiceServicer):
    """Answers with its input; can be told to fail, to hang, to compute for long."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.entered = asyncio.Event()
        self.release = asyncio.Event()

    async def Price(self, request: risk_pb2.PriceRequest, context: Any) -> risk_pb2.PriceResponse:  # type: ignore[override]
        await self._obey(request.engine, context)
        answer = risk_pb2.PriceResponse(price=request.options.spot)
        answer.provenance.engine = current_call().principal
        return answer

    async def PriceStream(  # type: ignore[override]
        self, requests: AsyncIterator[risk_pb2.PriceRequest], context: Any
    ) -> AsyncIterator[risk_pb2.PriceResponse]:
        try:
            async for request in requests:
                yield await self.Price(request, context)
        finally:
            self.ended.append("PriceStream")

    async def WatchRisk(  # type: ignore[override]
        self, request: risk_pb2.WatchRiskRequest, context: Any
    ) -> AsyncIterator[risk_pb2.RiskMetrics]:
        try:
            for name in request.portfolios:
                yield risk_pb2.RiskMetrics(portfolio=name)
            self.entered.set()
            await asyncio.Event().wait()
        finally:
            self.ended.append("WatchRisk")

    async def ListEngines(  # type: ignore[override]
        self, _request: risk_pb2.ListEnginesRequest, context: Any
    ) -> risk_pb2.ListEnginesResponse:
        return risk_pb2.ListEnginesResponse(serving=f"{current_call().remaining_s():.3f}")

    async def _obey(self, order: str, context: Any) -> None:
        if order in FAILURES:
            raise FAILURES[order]
        if order == "abort":
            await context.abort(grpc.StatusCode.DATA_LOSS, "by hand")
        if order == "hang":
            self.entered.set()
            try:
                await self.release.wait()
            finally:
                self.ended.append("Price")


def _empty(method: MethodDescriptor) -> Any:
    """A handler that answers any request with an empty message."""
    answer = message_factory.GetMessageClass(method.output_type)

    async def once(_self: EchoRisk, _request: Any, _context: Any) -> Any:
        return answer()

    async def each(_self: EchoRisk, requests: Any, _context: Any) -> Any:
        async for _ in requests:
            yield answer()

    async def watched(_self: EchoRisk, _request: Any, _context: Any) -> Any:
        yield answer()

    if method.client_streaming:
        return each
    return watched if method.server_streaming else once


for _method in SERVICE.methods:
    # UNSERVED stays as generated code leaves an RPC that a servicer does not define.
    if _method.name not in EchoRisk.__dict__ and _method.name != UNSERVED:
        setattr(EchoRisk, _method.name, _empty(_method))


def make_server(settings: GrpcSettings, servicer: EchoRisk | None = None, **arguments: Any) -> GrpcServer:
    """A server of EchoRisk."""
    add = risk_pb2_grpc.add_RiskServiceServicer_to_server
    return GrpcServer(settings, [(add, servicer or EchoRisk(), NAME)], **arguments)
