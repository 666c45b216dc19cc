"""A risk_service that a command asks: what it refuses is the caller's mistake, what it cannot do is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import risk_client
from risk_cli.refusals import BadInput, CannotDo

# A large book on a busy server.
DEADLINE_S = 120.0


@contextmanager
def risk_server(address: str) -> Iterator[risk_client.RiskClient]:
    """A connection; errors come out as the command's own."""
    try:
        with risk_client.RiskClient(address, deadline_s=DEADLINE_S) as client:
            yield client
    except (risk_client.InvalidRequest, risk_client.NotFound) as fault:
        where = "; ".join(f"{one.field}: {one.why}" for one in fault.violations)
        raise BadInput(f"{address} refuses: {where or fault}") from None
    except risk_client.RiskClientError as fault:
        raise CannotDo(f"{address}: {fault}") from None


def named_engine(engine: str) -> str:
    """The engine as a request names it: the server chooses where it is auto."""
    return "" if engine == "auto" else engine
