"""The methods that both clients have, listed once.

Each is made of the function that describes it. How a job is run is the client's own: `RiskClient` waits for
its result, `AsyncRiskClient` gives it to be awaited.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from risk_client import requests, risk_requests
from risk_client.errors import ClientClosed
from risk_client.jobs import Job, as_method

if TYPE_CHECKING:
    from risk_client.async_client import AsyncRiskClient
    from risk_client.client import RiskClient

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Method(Generic[Given, Result]):
    """What a type checker sees of a method: its result depends on whose it is. It is a plain function."""

    @overload
    def __get__(self, one: RiskClient, kind: type) -> Callable[Given, Result]: ...
    @overload
    def __get__(self, one: AsyncRiskClient, kind: type) -> Callable[Given, Coroutine[Any, Any, Result]]: ...
    def __get__(self, one: Any, kind: type) -> Any:
        raise NotImplementedError


def _method(describe: Callable[Given, Job[Result]]) -> Method[Given, Result]:
    def call(self: Any, /, *args: Given.args, **kwargs: Given.kwargs) -> Any:
        return self._run(lambda: describe(*args, **kwargs))

    method: Any = as_method(describe, call)
    typed: Method[Given, Result] = method
    return typed


class RiskMethods:
    """The RPCs in snake_case, arrays and tables in and out."""

    _closed = False

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("this client was closed: make a new one")

    price = _method(requests.price)
    greeks = _method(requests.greeks)
    implied_volatility = _method(requests.implied_volatility)
    put_portfolio = _method(requests.put_portfolio)
    get_portfolio = _method(requests.get_portfolio)
    list_portfolios = _method(requests.list_portfolios)
    delete_portfolio = _method(requests.delete_portfolio)
    expected_shortfall = _method(risk_requests.expected_shortfall)
    stress_test = _method(risk_requests.stress_test)
    what_if = _method(risk_requests.what_if)
    hedge = _method(risk_requests.hedge)
    list_engines = _method(requests.list_engines)
