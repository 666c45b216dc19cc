"""Prices, Greeks and implied vols of options in columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import gpu_kernels as gk
from gpu_kernels.results import Result
from protos.risk.v1 import risk_pb2 as wire
from risk_service.api import option_requests as options
from risk_service.api.column_bytes import ColumnBytes
from risk_service.api.gathering import Gathering, Kind
from risk_service.api.work import INLINE_COST, INLINE_ENGINE, Work
from risk_service.engines import Engines
from risk_service.on_demand.option_blocks import BY_NUMBER, Method, What, cost_of, in_blocks
from risk_service.on_demand.patience import Patience
from risk_service.worker.engine import WorkerEngine
from risk_service.worker.fallback import degraded_reason
from service_kit.grpc_server.call import current_call

# An option by itself, with its way in and out, takes about as long as this many revaluations.
REVALUATIONS_PER_ROW = 10

PRICES = ColumnBytes(wire.PriceResponse, gk.PriceResult.COLUMNS[:-1])
GREEKS = ColumnBytes(wire.GreeksResponse, gk.GreeksResult.COLUMNS[:-1])
VOLS = ColumnBytes(wire.ImpliedVolatilityResponse, gk.ImpliedVolResult.COLUMNS[:-1])

ResultT = TypeVar("ResultT", bound=Result)


@dataclass(frozen=True, slots=True)
class OptionRpcs:
    """What needs no market and no portfolio."""

    engines: Engines
    work: Work
    rows_max: int
    message_bytes_max: int
    gathering: Gathering = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "gathering", Gathering(self.engines, self.work))

    async def price(self, request: wire.PriceRequest) -> wire.PriceResponse:
        """Prices of options in columns."""
        await self.work.expect(self.engines, request.engine)
        self.work.expect_room(REVALUATIONS_PER_ROW * options.rows_of(request.options))
        columns = options.read_options(request.options, self.rows_max, with_vol=True)
        options.expect_answer_fits(columns.size, PRICES.row_bytes, self.message_bytes_max)
        method = options.american_method(request.american_method)

        def call(engine: gk.Engine, rows: gk.Options, _: Any) -> gk.PriceResult:
            return engine.price(rows, american_method=method)

        result, came = await self._computed(request.engine, columns, None, call, "price", method)
        return PRICES.written(result, came)

    async def greeks(self, request: wire.GreeksRequest) -> wire.GreeksResponse:
        """Prices and Greeks of options in columns."""
        await self.work.expect(self.engines, request.engine)
        self.work.expect_room(REVALUATIONS_PER_ROW * options.rows_of(request.options))
        columns = options.read_options(request.options, self.rows_max, with_vol=True)
        options.expect_answer_fits(columns.size, GREEKS.row_bytes, self.message_bytes_max)
        method = options.american_method(request.american_method)

        def call(engine: gk.Engine, rows: gk.Options, _: Any) -> gk.GreeksResult:
            return engine.greeks(rows, american_method=method)

        result, came = await self._computed(request.engine, columns, None, call, "greeks", method)
        return GREEKS.written(result, came)

    async def implied_volatility(
        self, request: wire.ImpliedVolatilityRequest
    ) -> wire.ImpliedVolatilityResponse:
        """Vols of options in columns."""
        await self.work.expect(self.engines, request.engine)
        self.work.expect_room(REVALUATIONS_PER_ROW * options.rows_of(request.options))
        columns = options.read_options(request.options, self.rows_max, with_vol=False)
        options.expect_answer_fits(columns.size, VOLS.row_bytes, self.message_bytes_max)
        prices = options.read_prices(request, columns.size)
        method = options.american_method(request.american_method)

        def call(engine: gk.Engine, rows: gk.Options, given: Any) -> gk.ImpliedVolResult:
            return engine.implied_vol(rows, given, american_method=method)

        result, came = await self._computed(
            request.engine, columns, prices, call, "implied volatility", method
        )
        return VOLS.written(result, came)

    async def _computed(
        self,
        name: str,
        columns: gk.Options,
        prices: Any,
        call: Callable[[gk.Engine, gk.Options, Any], ResultT],
        what: What,
        method: Method,
    ) -> tuple[ResultT, wire.Provenance]:
        """The result on the engine asked for, and where it comes from."""
        kind = Kind(name, what, method)
        size, cost = cost_of(columns, BY_NUMBER), cost_of(columns, kind.row_cost)
        with self.work.admitted(REVALUATIONS_PER_ROW * cost):
            engine = await self.work.engine(self.engines, name, size)
            apart = isinstance(engine, WorkerEngine)
            if apart and size <= self.engines.gathered_up_to(engine.name):
                result, engine = await self.gathering.ask(kind, engine, columns, prices, size, call)
            elif engine.name == INLINE_ENGINE and not apart and cost <= INLINE_COST:
                result = call(engine, columns, prices)
            else:
                result, engine = await self._long(kind, engine, columns, prices, call)
        return result, provenance(engine, what)

    async def _long(
        self,
        kind: Kind,
        engine: gk.Engine,
        columns: gk.Options,
        prices: Any,
        call: Callable[[gk.Engine, gk.Options, Any], ResultT],
    ) -> tuple[ResultT, gk.Engine]:
        """The result from a thread, and the engine that gave it."""

        def work(chosen: gk.Engine, patience: Patience) -> tuple[ResultT, gk.Engine]:
            def part(rows: gk.Options, given: Any) -> ResultT:
                return call(chosen, rows, given)

            return in_blocks(part, columns, prices, patience, kind.row_cost), chosen

        return await self.work.on(engine, self.engines, kind.engine, work, current_call().remaining_s())


def provenance(engine: gk.Engine, words: str) -> wire.Provenance:
    """Where an answer comes from that used no market."""
    why = degraded_reason(engine)
    return wire.Provenance(
        engine=engine.name, device=engine.device, method=words, degraded=bool(why), degraded_reason=why
    )
