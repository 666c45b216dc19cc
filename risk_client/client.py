"""The desk's client: methods are the RPCs in snake_case, arrays in and arrays out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

import grpc
from numpy.typing import ArrayLike

from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_client import requests
from risk_client.answers import ExpectedShortfall, Hedge, StressTest
from risk_client.connection import (
    CHUNK_ROWS,
    DEADLINE_S,
    PARTS_UNDER_WAY,
    Token,
    backoff_s,
    bearer,
    channel_options,
    refuse_open_token,
)
from risk_client.errors import Unavailable, from_rpc
from risk_client.option_jobs import OptionJob, greeks_job, implied_volatility_job, price_job
from risk_client.requests import Ask, Convention, Objective
from risk_client.scenarios import ScenarioMessage
from risk_client.tables import frame_kind

Answer = TypeVar("Answer")


class RiskClient:
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
        refuse_open_token(target, credentials, token)
        if chunk_rows < 1:
            raise ValueError(f"chunk_rows must be 1 or more, not {chunk_rows}")
        options = channel_options()
        self._channel = (
            grpc.insecure_channel(target, options)
            if credentials is None
            else grpc.secure_channel(target, credentials, options)
        )
        self._stub: Any = RiskServiceStub(self._channel)
        self._token = token
        self._deadline_s = deadline_s
        self._chunk_rows = chunk_rows

    def price(
        self,
        frame: Any = None,
        /,
        *,
        engine: str = "",
        fast: bool = False,
        prefix: str = "",
        deadline_s: float | None = None,
        **options: Any,
    ) -> Any:
        """Prices of options: of a table, or of columns (`spot=`, `strike=`, `expiry=` in years, `vol=`, ...).

        A table of pandas, polars or arrow comes back with the columns price and status, their names after
        `prefix`; a keyword replaces a column of it, `vol="iv"` takes another. Columns alone give `Columns`.
        """
        return self._rows(price_job(frame, engine, fast, prefix, options), deadline_s)

    def greeks(
        self,
        frame: Any = None,
        /,
        *,
        engine: str = "",
        fast: bool = False,
        prefix: str = "",
        deadline_s: float | None = None,
        **options: Any,
    ) -> Any:
        """Price and eight Greeks of options, as `price`."""
        return self._rows(greeks_job(frame, engine, fast, prefix, options), deadline_s)

    def implied_volatility(
        self,
        given: Any = None,
        /,
        *,
        engine: str = "",
        prefix: str = "",
        deadline_s: float | None = None,
        **options: Any,
    ) -> Any:
        """Vols that reprice options: of a table with a column price, or of prices and columns of options."""
        if given is not None and frame_kind(given) is None:
            given, options = None, {**options, "price": given}
        return self._rows(implied_volatility_job(given, engine, prefix, options), deadline_s)

    def put_portfolio(
        self, portfolio: wire.Portfolio, expected_version: int = 0, *, deadline_s: float | None = None
    ) -> int:
        """Stores a portfolio; returns its new version. Never sent twice by itself."""
        return self._call(requests.put_portfolio(portfolio, expected_version), deadline_s)

    def get_portfolio(self, name: str, *, deadline_s: float | None = None) -> wire.Portfolio:
        """A portfolio as it was put, with its version."""
        return self._call(requests.get_portfolio(name), deadline_s)

    def list_portfolios(self, *, deadline_s: float | None = None) -> list[wire.ListPortfoliosResponse.Entry]:
        """Every portfolio that the caller may read; the deadline is that of each page."""
        entries: list[wire.ListPortfoliosResponse.Entry] = []
        token = ""
        while True:
            page = self._call(requests.list_portfolios(token), deadline_s)
            entries.extend(page.portfolios)
            token = page.next_page_token
            if not token:
                return entries

    def delete_portfolio(
        self, name: str, expected_version: int = 0, *, deadline_s: float | None = None
    ) -> None:
        """Deletes a portfolio. Never sent twice by itself."""
        self._call(requests.delete_portfolio(name, expected_version), deadline_s)

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
        ask = requests.expected_shortfall(
            portfolio, scenarios, levels, convention, with_components, with_pnl, engine
        )
        return self._call(ask, deadline_s)

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
        ask = requests.stress_test(portfolio, scenarios, named, by_group, by_position, engine)
        return self._call(ask, deadline_s)

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
        return self._call(requests.what_if(portfolio, trade, level, engine), deadline_s)

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
        ask = requests.hedge(portfolio, objective, instruments, lot_size, cost_per_lot, budget, engine)
        return self._call(ask, deadline_s)

    def list_engines(self, *, deadline_s: float | None = None) -> wire.ListEnginesResponse:
        """The engines of the service, and which one answers."""
        return self._call(requests.list_engines(), deadline_s)

    def watch_risk(
        self,
        portfolios: Sequence[str] = (),
        min_interval_ms: int = 0,
        deadline_s: float | None = None,
        *,
        resume: bool = False,
    ) -> Iterator[wire.RiskMetrics]:
        """The risk of portfolios now, then at every change, until the caller stops or the deadline passes.

        With `resume` a service that goes away is waited for; its risk then starts with how things are.
        """
        request = requests.watch_risk(portfolios, min_interval_ms)
        ends_at = None if deadline_s is None else time.monotonic() + deadline_s
        failures = 0
        while True:
            left = None if ends_at is None else max(0.0, ends_at - time.monotonic())
            stream = self._stub.WatchRisk(request, timeout=left, metadata=bearer(self._token))
            try:
                for metrics in stream:
                    failures = 0
                    yield metrics
                return
            except grpc.RpcError as error:
                fault = from_rpc(error)
                if not (resume and isinstance(fault, Unavailable)):
                    raise fault from None
            finally:
                stream.cancel()
            failures += 1
            time.sleep(backoff_s(failures))

    def close(self) -> None:
        """Ends the connection; open streams end with it."""
        self._channel.close()

    def __enter__(self) -> RiskClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, ask: Ask[Answer], deadline_s: float | None) -> Answer:
        seconds = self._deadline_s if deadline_s is None else deadline_s
        return ask.read(self._answer(ask.rpc, ask.request, seconds))

    def _answer(self, rpc: str, request: Any, seconds: float) -> Any:
        try:
            return getattr(self._stub, rpc)(request, timeout=seconds, metadata=bearer(self._token))
        except grpc.RpcError as error:
            raise from_rpc(error) from None

    def _rows(self, job: OptionJob, deadline_s: float | None) -> Any:
        """One call for what fits into one, else parts, of which the next is under way while one computes."""
        seconds = self._deadline_s if deadline_s is None else deadline_s
        if job.rows <= self._chunk_rows:
            for request in job.requests(self._chunk_rows):
                job.take(self._answer(job.rpc, request, seconds))
            return job.result()
        method = getattr(self._stub, job.rpc)
        under_way: deque[Any] = deque()
        try:
            for request in job.requests(self._chunk_rows):
                under_way.append(method.future(request, timeout=seconds, metadata=bearer(self._token)))
                if len(under_way) == PARTS_UNDER_WAY:
                    job.take(under_way.popleft().result())
            while under_way:
                job.take(under_way.popleft().result())
        except grpc.RpcError as error:
            raise from_rpc(error) from None
        finally:
            for call in under_way:
                call.cancel()
        return job.result()
