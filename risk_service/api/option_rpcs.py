"""Prices, Greeks and implied vols of options in columns."""

from __future__ import annotations

from dataclasses import dataclass

import gpu_kernels as gk
from protos.risk.v1 import risk_pb2 as wire
from risk_service.api import option_requests as options
from risk_service.api.work import Work
from risk_service.engines import Engines
from risk_service.on_demand.blocks import AMERICAN_COST


@dataclass(frozen=True, slots=True)
class OptionRpcs:
    """What needs no market and no portfolio."""

    engines: Engines
    work: Work
    rows_max: int

    async def price(self, request: wire.PriceRequest) -> wire.PriceResponse:
        """Prices of options in columns."""
        engine = await self.work.engine(self.engines, request.engine)
        columns = options.read_options(request.options, self.rows_max, with_vol=True)
        method = options.american_method(request.american_method)
        result = await self.work.rows(_cost(columns), lambda: engine.price(columns, american_method=method))
        response = options.price_response(result)
        response.provenance.CopyFrom(_provenance(engine, "price"))
        return response

    async def greeks(self, request: wire.GreeksRequest) -> wire.GreeksResponse:
        """Prices and Greeks of options in columns."""
        engine = await self.work.engine(self.engines, request.engine)
        columns = options.read_options(request.options, self.rows_max, with_vol=True)
        method = options.american_method(request.american_method)
        result = await self.work.rows(_cost(columns), lambda: engine.greeks(columns, american_method=method))
        response = options.greeks_response(result)
        response.provenance.CopyFrom(_provenance(engine, "greeks"))
        return response

    async def implied_volatility(
        self, request: wire.ImpliedVolatilityRequest
    ) -> wire.ImpliedVolatilityResponse:
        """Vols of options in columns."""
        engine = await self.work.engine(self.engines, request.engine)
        columns = options.read_options(request.options, self.rows_max, with_vol=False)
        prices = options.read_prices(request, columns.size)
        result = await self.work.rows(_cost(columns), lambda: engine.implied_vol(columns, prices))
        response = options.vol_response(result)
        response.provenance.CopyFrom(_provenance(engine, "implied volatility"))
        return response


def _cost(columns: gk.Options) -> int:
    """Rows, an American one counted as the many European ones that take as long."""
    return int(columns.size * (AMERICAN_COST if columns.american.any() else 1))


def _provenance(engine: gk.Engine, method: str) -> wire.Provenance:
    return wire.Provenance(engine=engine.name, device=engine.device, method=method)
