"""The desk's client: methods are the RPCs in snake_case, arrays in and arrays out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar, cast

import grpc
import numpy as np
from numpy.typing import ArrayLike, NDArray

from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_client.errors import from_rpc

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

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Columns:
    """An answer in columns, `answer["delta"]`, with each row's status and where the numbers come from."""

    columns: dict[str, NDArray[np.float64]]
    status: NDArray[np.int32]
    provenance: wire.Provenance

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        return self.columns[name]


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
        return _columns(answer, ("price",))

    def greeks(self, *, engine: str = "", fast: bool = False, **options: ArrayLike) -> Columns:
        """Price and eight Greeks of options given as columns."""
        request = wire.GreeksRequest(
            options=_options(options), engine=engine, american_method=_american_method(fast)
        )
        answer = self._call(self._stub.Greeks, request)
        return _columns(answer, _GREEKS)

    def implied_volatility(self, price: ArrayLike, *, engine: str = "", **options: ArrayLike) -> Columns:
        """Vols that reprice options given as columns."""
        request = wire.ImpliedVolatilityRequest(options=_options(options), engine=engine)
        packing.write(request, "price", np.atleast_1d(np.asarray(price, dtype=np.float64)))
        return _columns(self._call(self._stub.ImpliedVolatility, request), ("vol",))

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
        self, request: wire.ExpectedShortfallRequest, deadline_s: float | None = None
    ) -> wire.ExpectedShortfallResponse:
        """VaR and ES of a portfolio under historical, Monte Carlo or given scenarios."""
        return self._call(self._stub.ExpectedShortfall, request, deadline_s)

    def stress_test(
        self, request: wire.StressTestRequest, deadline_s: float | None = None
    ) -> wire.StressTestResponse:
        """What named or given scenarios do to a portfolio."""
        return self._call(self._stub.StressTest, request, deadline_s)

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


def _columns(answer: Any, names: tuple[str, ...]) -> Columns:
    columns = {name: packing.read(answer, name) for name in names}
    return Columns(columns, packing.read(answer, "status"), answer.provenance)
