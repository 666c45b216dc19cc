"""Kelly sizes for `RiskClient.hedge`, from plain words."""

from __future__ import annotations

from numpy.typing import ArrayLike

from protos.risk.v1 import risk_pb2 as wire
from risk_client.messages import message_of, write_numbers
from risk_client.scenarios import matrix


def kelly(
    expected_return: ArrayLike,
    capital: float,
    *,
    covariance: ArrayLike | None = None,
    fraction: float = 0.0,
    leverage: float = 0.0,
) -> wire.KellySizing:
    """`fraction` (0: a half) of the sizes that let `capital` (currency) grow fastest.

    `expected_return` is per instrument and year, beyond the rate; `covariance` per year, underlyings by
    underlyings (none: that of the service's history). `leverage` is the most that holdings may be worth, in
    capitals; 0: no bound.
    """
    message = message_of(
        wire.KellySizing,
        capital=capital,
        fraction=fraction,
        leverage=leverage,
        covariance=None if covariance is None else matrix(covariance, "covariance"),
    )
    write_numbers(message, expected_return=expected_return)
    return message
