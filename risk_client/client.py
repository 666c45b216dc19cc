"""The desk's client: methods are the RPCs in snake_case, arrays in and arrays out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, TypeVar, cast

import grpc
import numpy as np
from numpy.typing import ArrayLike

from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_client.answers import Columns, ExpectedShortfall, Hedge, StressTest
from risk_client.errors import from_rpc
from risk_client.scenarios import ScenarioMessage

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
DEADLINE_S = 10.0  # of a call that names none

# Retried by the channel itself: only what the service has certainly not begun.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "gpu_risk.risk.v1.RiskService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}

_OPTION_COLUMNS = (
    "spot",
    "strike",
    "expiry",
    "vol",
    "rate",
    "dividend_yield",
    "is_call",
    "american",
)
_GREEKS = ("price", "delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm")

Convention = Literal["exact_tail", "discrete"]
Objective = Literal["delta", "delta_gamma_vega", "min_expected_shortfall"]

_CONVENTIONS: dict[Convention, wire.TailConvention.ValueType] = {
    "exact_tail": wire.TAIL_CONVENTION_EXACT,
    "discrete": wire.TAIL_CONVENTION_DISCRETE,
}
_OBJECTIVES: dict[Objective, wire.HedgeRequest.Objective.ValueType] = {
    "delta": wire.HedgeRequest.OBJECTIVE_DELTA,
    "delta_gamma_vega": wire.HedgeRequest.OBJECTIVE_DELTA_GAMMA_VEGA,
    "min_expected_shortfall": wire.HedgeRequest.OBJECTIVE_MIN_EXPECTED_SHORTFALL,
}

Answer = TypeVar("Answer")


class RiskClient:
    """A connection to risk_service. Safe to share between threads; close it, or use it in a `with`.

    `token` is a bearer token, or a function that gives a fresh one for each call.
    """

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | Callable[[], str] | None = None,
        *,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        options = [
            ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ]
        self._channel = (
            grpc.insecure_channel(target, options)
            if credentials is None
            else grpc.secure_channel(target, credentials, options)
        )
        self._stub = RiskServiceStub(self._channel)
        self._token = token
        self._deadline_s = deadline_s

    def price(self, *, engine: str = "", fast: bool = False, **options: ArrayLike) -> Columns:
        """Prices of options given as columns (`spot=`, `strike=`, `expiry=` in years, `vol=`, ...)."""
        request = wire.PriceRequest(
            options=_options(options), engine=engine, american_method=_american_method(fast)
        )
        answer = self._call(self._stub.Price, request)
        return Columns.of(answer, ("price",))

    def greeks(self, *, engine: str = "", fast: bool = False, **options: ArrayLike) -> Columns:
        """Price and eight Greeks of options given as columns."""
        request = wire.GreeksRequest(
            options=_options(options), engine=engine, american_method=_american_method(fast)
        )
        answer = self._call(self._stub.Greeks, request)
        return Columns.of(answer, _GREEKS)

    def implied_volatility(self, price: ArrayLike, *, engine: str = "", **options: ArrayLike) -> Columns:
        """Vols that reprice options given as columns."""
        request = wire.ImpliedVolatilityRequest(options=_options(options), engine=engine)
        packing.write(request, "price", np.atleast_1d(np.asarray(price, dtype=np.float64)))
        return Columns.of(self._call(self._stub.ImpliedVolatility, request), ("vol",))

    def put_portfolio(self, portfolio: wire.Portfolio, expected_version: int = 0) -> int:
        """Stores a portfolio; returns its new version."""
        request = wire.PutPortfolioRequest(portfolio=portfolio, expected_version=expected_version)
        return int(self._call(self._stub.PutPortfolio, request).version)

    def get_portfolio(self, name: str) -> wire.Portfolio:
        """A portfolio as it was put, with its version."""
        return self._call(self._stub.GetPortfolio, wire.GetPortfolioRequest(portfolio=name))

    def list_portfolios(self) -> list[wire.ListPortfoliosResponse.Entry]:
        """Every portfolio that the caller may read."""
        entries: list[wire.ListPortfoliosResponse.Entry] = []
        token = ""
        while True:
            page = self._call(self._stub.ListPortfolios, wire.ListPortfoliosRequest(page_token=token))
            entries.extend(page.portfolios)
            token = page.next_page_token
            if not token:
                return entries

    def delete_portfolio(self, name: str, expected_version: int = 0) -> None:
        """Deletes a portfolio."""
        request = wire.DeletePortfolioRequest(portfolio=name, expected_version=expected_version)
        self._call(self._stub.DeletePortfolio, request)

    def expected_shortfall(
        self,
        portfolio: str | wire.Portfolio,
        scenarios: ScenarioMessage,
        *,
        levels: Sequence[float] = (),
        convention: Convention = "exact_tail",
        with_components: bool = False,
        with_pnl: bool = False,
        engine: str = "",
        deadline_s: float | None = None,
    ) -> ExpectedShortfall:
        """VaR and ES of a portfolio, stored (its name) or sent along, at `levels` (none: 0.975).

        `scenarios` come from `risk_client.historical`, `monte_carlo` or `shocks`.
        """
        request = wire.ExpectedShortfallRequest(
            levels=levels,
            convention=_CONVENTIONS[convention],
            with_components=with_components,
            with_pnl=with_pnl,
            engine=engine,
        )
        _set_book(request, portfolio)
        if isinstance(scenarios, wire.HistoricalScenarios):
            request.historical.CopyFrom(scenarios)
        elif isinstance(scenarios, wire.MonteCarloScenarios):
            request.monte_carlo.CopyFrom(scenarios)
        else:
            request.custom.CopyFrom(scenarios)
        return ExpectedShortfall.of(self._call(self._stub.ExpectedShortfall, request, deadline_s))

    def stress_test(
        self,
        portfolio: str | wire.Portfolio,
        scenarios: wire.ScenarioColumns | None = None,
        *,
        named: Sequence[str] = (),
        by_group: bool = False,
        by_position: bool = False,
        engine: str = "",
        deadline_s: float | None = None,
    ) -> StressTest:
        """What given scenarios (`risk_client.shocks`) and named events do to a portfolio."""
        request = wire.StressTestRequest(
            scenarios=scenarios, named=named, by_group=by_group, by_position=by_position, engine=engine
        )
        _set_book(request, portfolio)
        return StressTest.of(self._call(self._stub.StressTest, request, deadline_s))

    def what_if(
        self,
        portfolio: str,
        trade: wire.Positions,
        *,
        level: float = 0.0,
        engine: str = "",
        deadline_s: float | None = None,
    ) -> wire.WhatIfResponse:
        """ES of a stored portfolio with and without a trade in its underlyings; level 0 is 0.975."""
        request = wire.WhatIfRequest(portfolio=portfolio, trade=trade, level=level, engine=engine)
        return self._call(self._stub.WhatIf, request, deadline_s)

    def hedge(
        self,
        portfolio: str,
        objective: Objective,
        instruments: wire.Positions | None = None,
        *,
        lot_size: ArrayLike = (),
        cost_per_lot: ArrayLike = (),
        budget: float = 0.0,
        engine: str = "",
        deadline_s: float | None = None,
    ) -> Hedge:
        """Trades that take risk off a stored portfolio.

        An instrument's quantity is its largest position either way; without instruments a delta hedge
        trades the underlyings. `lot_size` (units) and `cost_per_lot` (currency) hold one entry for all
        instruments or one for each.
        """
        request = wire.HedgeRequest(
            portfolio=portfolio,
            objective=_OBJECTIVES[objective],
            instruments=instruments,
            budget=budget,
            engine=engine,
        )
        for name, values in (("lot_size", lot_size), ("cost_per_lot", cost_per_lot)):
            packing.write(request, name, np.atleast_1d(np.asarray(values, dtype=np.float64)))
        return Hedge.of(self._call(self._stub.Hedge, request, deadline_s))

    def list_engines(self) -> wire.ListEnginesResponse:
        """The engines of the service, and which one answers."""
        return self._call(self._stub.ListEngines, wire.ListEnginesRequest())

    def watch_risk(
        self, portfolios: Sequence[str] = (), min_interval_ms: int = 0, deadline_s: float | None = None
    ) -> Iterator[wire.RiskMetrics]:
        """The risk of portfolios now, then at every change, until the caller stops or the deadline passes."""
        request = wire.WatchRiskRequest(portfolios=portfolios, min_interval_ms=min_interval_ms)
        stream = self._stub.WatchRisk(request, timeout=deadline_s, metadata=self._metadata())
        try:
            yield from _typed(stream)
        finally:
            cast("grpc.Future[Any]", stream).cancel()

    def close(self) -> None:
        """Ends the connection; open streams end with it."""
        self._channel.close()

    def __enter__(self) -> RiskClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: Callable[..., Answer], request: Any, deadline_s: float | None = None) -> Answer:
        try:
            return method(
                request,
                timeout=self._deadline_s if deadline_s is None else deadline_s,
                metadata=self._metadata(),
                wait_for_ready=False,
            )
        except grpc.RpcError as error:
            raise from_rpc(error) from None

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        if self._token is None:
            return ()
        token = self._token() if callable(self._token) else self._token
        return (("authorization", f"Bearer {token}"),)


def _typed(stream: Iterable[Answer]) -> Iterator[Answer]:
    try:
        yield from stream
    except grpc.RpcError as error:
        raise from_rpc(error) from None


def _set_book(
    request: wire.ExpectedShortfallRequest | wire.StressTestRequest, book: str | wire.Portfolio
) -> None:
    if isinstance(book, str):
        request.portfolio = book
    else:
        request.inline_portfolio.CopyFrom(book)


def _options(given: dict[str, ArrayLike]) -> wire.OptionColumns:
    unknown = given.keys() - set(_OPTION_COLUMNS)
    if unknown:
        raise TypeError(f"no option column {min(unknown)!r}; there are {', '.join(_OPTION_COLUMNS)}")
    message = wire.OptionColumns()
    for name, values in given.items():
        packing.write(message, name, np.atleast_1d(np.asarray(values)))
    return message


def _american_method(fast: bool) -> wire.AmericanMethod.ValueType:
    return wire.AMERICAN_METHOD_FAST if fast else wire.AMERICAN_METHOD_ACCURATE
