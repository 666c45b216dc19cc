"""Scenarios for `RiskClient.expected_shortfall` and `stress_test`, from arrays and plain words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from google.protobuf.message import Message
from numpy.typing import ArrayLike, NDArray

from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_client.messages import chosen, message_of, table_of_numbers, write_numbers

Weighting = Literal["plain", "age", "filtered_ewma", "filtered_garch"]
Distribution = Literal["normal", "student_t", "jump"]
Sampler = Literal["sobol", "philox"]


def historical(
    window_days: int = 0, *, horizon_days: int = 1, weighting: Weighting = "plain", decay: float = 0.0
) -> wire.HistoricalScenarios:
    """The last `window_days` of the service's history over again; 0: those of the live numbers.

    `decay` 0 is the usual one of the weighting.
    """
    return message_of(
        wire.HistoricalScenarios,
        window_days=window_days,
        horizon_days=horizon_days,
        weighting=_enum("weighting", weighting, wire.HistoricalScenarios.Weighting),
        decay=decay,
    )


def monte_carlo(
    scenarios: int,
    *,
    seed: int,
    horizon: float = 0.0,
    distribution: Distribution = "normal",
    degrees_of_freedom: float = 0.0,
    vol_beta: ArrayLike = 0.0,
    sampler: Sampler = "sobol",
    mean: ArrayLike = 0.0,
    covariance: ArrayLike | None = None,
    window_days: int = 0,
    shrinkage: float | None = None,
    jump_intensity: float | None = None,
    jump_mean: ArrayLike = 0.0,
    jump_share: float | None = None,
    along_book: bool = False,
) -> wire.MonteCarloScenarios:
    """Draws with this `covariance` per year (U, U), or that of `window_days` of the service's history.

    `horizon` is in years, 0 is one business day; `mean` is per year. `mean`, `vol_beta` and `jump_mean` are
    numbers or have one entry per underlying. `along_book` draws where a Sobol sequence errs least.
    """
    message = message_of(
        wire.MonteCarloScenarios,
        scenarios=scenarios,
        seed=seed,
        horizon=horizon,
        distribution=_enum("distribution", distribution, wire.MonteCarloScenarios.Distribution),
        degrees_of_freedom=degrees_of_freedom,
        sampler=_enum("sampler", sampler, wire.MonteCarloScenarios.Sampler),
        covariance=None if covariance is None else matrix(covariance, "covariance"),
        window_days=window_days,
        shrinkage=shrinkage,
        jump_intensity=jump_intensity,
        jump_share=jump_share,
        along_book=along_book,
    )
    _write(message, mean=mean, vol_beta=vol_beta, jump_mean=jump_mean)
    return message


def shocks(
    spot_return: ArrayLike,
    vol_change: ArrayLike | None = None,
    rate_change: ArrayLike | None = None,
    *,
    elapsed: ArrayLike = 0.0,
    names: Sequence[str] = (),
    weights: ArrayLike | None = None,
    vol_shock_surface: wire.VolShockSurface | None = None,
) -> wire.ScenarioColumns:
    """Given scenarios: `spot_return` (S, U) log returns, `vol_change` (S, U) or (S, 1).

    `rate_change`, `elapsed` (years) and, for tail risk, `weights` are numbers or (S,).
    """
    columns = message_of(
        wire.ScenarioColumns,
        spot_return=matrix(spot_return, "spot_return"),
        name=names,
        vol_shock_surface=vol_shock_surface,
    )
    if vol_change is not None:
        columns.vol_change.CopyFrom(matrix(vol_change, "vol_change"))
    _write(columns, rate_change=rate_change, elapsed=elapsed, weight=weights)
    return columns


def vol_shock_surface(log_moneyness: ArrayLike, tenor: ArrayLike, shock: ArrayLike) -> wire.VolShockSurface:
    """Vol shocks on a grid of ln(strike/spot) (M,) and years (T,): (S, M, T), or (S, U, M, T)."""
    shocks = table_of_numbers("shock", shock, (3, 4))
    surface = wire.VolShockSurface(by_underlying=shocks.ndim == 4)
    _write(surface, log_moneyness=log_moneyness, tenor=tenor, shock=shocks.reshape(-1))
    return surface


def _enum(field: str, value: Any, kind: Any) -> Any:
    """The number of a choice, whose names on the wire all begin with the field's."""
    prefix = f"{field.upper()}_"
    return chosen(field, value, {name.removeprefix(prefix).lower(): number for name, number in kind.items()})


def _write(message: Message, **columns: Any) -> None:
    """Each of the columns but those that are plainly 0, which is what none means."""
    nought = {name for name, one in columns.items() if isinstance(one, int | float) and one == 0.0}
    write_numbers(message, **{name: one for name, one in columns.items() if name not in nought})


def matrix(values: ArrayLike, field: str = "matrix") -> wire.Matrix:
    """An array of two dimensions as a message."""
    array = table_of_numbers(field, values, (2,))
    message = wire.Matrix(rows=array.shape[0], columns=array.shape[1])
    packing.write(message, "values", array.reshape(-1))
    return message


def array_of(message: wire.Matrix) -> NDArray[np.float64]:
    """A message as an array of two dimensions."""
    values: NDArray[np.float64] = packing.read(message, "values")
    return values.reshape(message.rows, message.columns)
