"""Books that come with a request: whole portfolios, and positions in a portfolio's underlyings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_service.on_demand.books import ValuedBook
from risk_service.portfolios import QUANTITY_MAX, HeldPortfolio, check
from service_kit.errors import InvalidRequest, PreconditionFailed

Request = wire.ExpectedShortfallRequest | wire.StressTestRequest


@contextmanager
def within(prefix: str, rename: dict[str, str] | None = None) -> Iterator[None]:
    """Faults found inside name their field as the request does: `prefix.field`, or the name in `rename`."""
    names = rename or {}
    try:
        yield
    except InvalidRequest as fault:
        raise InvalidRequest(
            names.get(fault.field, f"{prefix}.{fault.field}"), fault.why, fault.row
        ) from fault
    except gk.InvalidInput as fault:
        field = names.get(fault.field, f"{prefix}.{fault.field}")
        raise InvalidRequest(field, fault.reason, fault.row) from fault


def named_portfolio(request: Request) -> str | None:
    """Name of the stored portfolio that the request is about; None where it brings its own."""
    which = request.WhichOneof("book")
    if which is None:
        raise InvalidRequest("portfolio", "is missing, and so is inline_portfolio")
    return request.portfolio if which == "portfolio" else None


def read_inline(message: wire.Portfolio) -> HeldPortfolio:
    """A portfolio that comes with the request and is not kept; it needs no name."""
    message.portfolio = message.portfolio or "inline"
    with within("inline_portfolio"):
        return check(message)


def read_positions(positions: wire.Positions, held: HeldPortfolio, field: str) -> HeldPortfolio:
    """Positions whose underlyings and groups are those of a held portfolio."""
    message = wire.Portfolio(
        portfolio=held.name, underlyings=held.underlyings, groups=held.groups, positions=positions
    )
    message.dividends.CopyFrom(held.dividends.message())
    if not positions.symbol:
        raise InvalidRequest(field, "is missing")
    try:
        asked = check(message)
    except InvalidRequest as fault:
        name = fault.field.replace("positions", field, 1)
        raise InvalidRequest(name, fault.why, fault.row) from fault
    _expect_spot_symbols(asked, field)
    return asked


def _expect_spot_symbols(asked: HeldPortfolio, field: str) -> None:
    """Refuses a spot position under another name than its underlying's: an order for it would go astray."""
    for row in np.flatnonzero(asked.kind == wire.INSTRUMENT_KIND_SPOT).tolist():
        underlying = asked.underlyings[asked.underlying_index[row]]
        if asked.symbols[row] != underlying:
            raise InvalidRequest(
                f"{field}.symbol", f"of a spot position is its underlying's, {underlying}", row
            )


def expect_valued(book: ValuedBook, field: str) -> None:
    """Refuses positions of a request that have expired, or of which the market has said nothing."""
    if book.valuation.faults:
        fault = book.valuation.faults[0]
        why = "has expired" if fault.status == gk.Status.EXPIRED else "has no market data"
        raise PreconditionFailed(f"{field}[{fault.row}]: {fault.symbol} {why}")


def spot_positions(held: HeldPortfolio) -> HeldPortfolio:
    """One spot position in every underlying of the portfolio, as large as may be."""
    count = len(held.underlyings)
    positions = wire.Positions(symbol=held.underlyings)
    packing.write(positions, "underlying_index", np.arange(count))
    packing.write(positions, "kind", np.full(count, wire.INSTRUMENT_KIND_SPOT))
    packing.write(positions, "quantity", np.full(count, QUANTITY_MAX))
    return read_positions(positions, held, "instruments")


def read_per_row(request: wire.HedgeRequest, field: str, rows: int, default: float) -> NDArray[np.float64]:
    """A column with one entry per instrument, one for all, or none for the default."""
    try:
        column: NDArray[np.float64] = packing.column(request, field, rows, default)
    except packing.PackingError as fault:
        raise InvalidRequest(field, fault.why) from fault
    return column
