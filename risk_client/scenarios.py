"""Scenarios for `RiskClient.expected_shortfall` and `stress_test`, from arrays and plain words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from protos import packing
from protos.risk.v1 import risk_pb2 as wire

Weighting = Literal["plain", "age", "filtered_ewma", "filtered_garch"]
Distribution = Literal["normal", "student_t", "jump"]
Sampler = Literal["sobol", "philox"]

ScenarioMessage = wire.HistoricalScenarios | wire.MonteCarloScenarios | wire.ScenarioColumns


def historical(
    window_days: int = 0, *, horizon_days: int = 1, weighting: Weighting = "plain", decay: float = 0.0
) -> wire.HistoricalScenarios:
    """The last `window_days` of the service's history over again (0: all); `decay` 0 is the usual one."""
    return wire.HistoricalScenarios(
        window_days=window_days,
        horizon_days=horizon_days,
        weighting=wire.HistoricalScenarios.Weighting.Value(f"WEIGHTING_{weighting.upper()}"),
        decay=decay,
    )


def monte_carlo(
    scenarios: int,
    *,
    seed: int,
    horizon: float = 0.0,
    distribution: Distribution = "normal",
    degrees_of_freedom: float = 0.0,
    vol_beta: float = 0.0,
    sampler: Sampler = "sobol",
) -> wire.MonteCarloScenarios:
    """Draws with the covariance of the service's history; `horizon` in years, 0 is one business day."""
    return wire.MonteCarloScenarios(
        scenarios=scenarios,
        seed=seed,
        horizon=horizon,
        distribution=wire.MonteCarloScenarios.Distribution.Value(f"DISTRIBUTION_{distribution.upper()}"),
        degrees_of_freedom=degrees_of_freedom,
        vol_beta=vol_beta,
        sampler=wire.MonteCarloScenarios.Sampler.Value(f"SAMPLER_{sampler.upper()}"),
    )


def shocks(
    spot_return: ArrayLike,
    vol_change: ArrayLike | None = None,
    rate_change: ArrayLike | None = None,
    *,
    elapsed: float = 0.0,
    names: Sequence[str] = (),
) -> wire.ScenarioColumns:
    """Given scenarios: `spot_return` (S, U) log returns, `vol_change` (S, U) or (S, 1), `elapsed` years."""
    columns = wire.ScenarioColumns(spot_return=matrix(spot_return), elapsed=elapsed, name=names)
    if vol_change is not None:
        columns.vol_change.CopyFrom(matrix(vol_change))
    if rate_change is not None:
        packing.write(columns, "rate_change", np.atleast_1d(np.asarray(rate_change, dtype=np.float64)))
    return columns


def matrix(values: ArrayLike) -> wire.Matrix:
    """An array of two dimensions as a message."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"a matrix has two dimensions, not {array.ndim}")
    message = wire.Matrix(rows=array.shape[0], columns=array.shape[1])
    packing.write(message, "values", array.reshape(-1))
    return message


def array_of(message: wire.Matrix) -> NDArray[np.float64]:
    """A message as an array of two dimensions."""
    values: NDArray[np.float64] = packing.read(message, "values")
    return values.reshape(message.rows, message.columns)
