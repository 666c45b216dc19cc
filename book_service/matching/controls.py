"""Pre-trade controls: what can be limited, and the commands that change a limit during the day.

A command is a message of action CONTROL, so that the log holds it and a replay applies it at the same place:
`kind` is the ControlCommand, `tif` the Limit of SET_LIMIT, `price` the value, `symbol` and `account` say for
whom (`flags` bit 1: every symbol, bit 2: every account, also those not seen yet), `order_id` comes back in
the answer. Values: money is ticks x multiplier x quantity, shares are parts per million, times are ns; -1
takes a limit off.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from book_service.matching.layout import (
    HIGHEST_MULTIPLIER,
    HIGHEST_POSITION,
    HIGHEST_PPM,
    HIGHEST_PRICE,
    HIGHEST_VALUE,
)

SECOND: Final = 1_000_000_000


class ControlCommand(IntEnum):
    """Commands; the answer is a report accepted, or rejected with BAD_CONTROL_COMMAND."""

    SET_LIMIT = 0
    SET_REFERENCE = 1  # price: the symbol's reference price
    CLEAR_REFERENCE = 2
    KILL = 3  # an account, or every account: cancels all its orders (answer's maker_leaves), refuses new ones
    REVIVE = 4
    RESTRICT = 5  # a symbol: no new orders
    UNRESTRICT = 6
    HALT = 7  # a symbol: no new orders, open ones stay, until RESUME
    RESUME = 8
    REDUCING_ONLY = 9  # an account may only make its positions smaller
    RELEASE = 10  # ends REDUCING_ONLY
    TRIP_BREAKER = 11  # everybody: cancels all orders and refuses new ones, until RESET_BREAKER
    RESET_BREAKER = 12
    SET_CAPITAL = 13  # price: an account's capital, which also puts it into the breaker's portfolio; -1: none
    SET_POSITION = 14  # price: an account's position in a symbol, stop_price: what it cost per unit, in ticks
    RESET_THROTTLE = 15  # lets an account that the repeated-execution throttle stopped trade again
    # A limit that spans partitions is split into budgets, and split anew without their sum being above it:
    # every partition lowers, and only when all have said so some raise. `stop_price` is the turn: a later one
    # shuts an earlier one out. Price of the answer: the limit in force, maker_leaves: what the account has.
    LOWER_LIMIT = 16  # a limit from 7 on: takes the smaller of it and the value; -1 in turn 0 only tells
    RAISE_LIMIT = 17  # sets it, if no later turn has lowered since


class Limit(IntEnum):
    """What SET_LIMIT sets: 0-6 for a symbol, 7-13 for an account, 14 for the partition."""

    STATIC_COLLAR = 0  # ppm around the reference price
    MOVING_COLLAR = 1  # ppm around the last trade price, before the first trade around the reference price
    MAXIMUM_QUANTITY = 2
    MAXIMUM_VALUE = 3
    SYMBOL_POSITION = 4  # of any one account, its open orders included
    VOLATILITY_BAND = 5  # ppm around the mean trade price of five minutes: no trade outside, trading pauses
    VOLATILITY_PAUSE = 6  # ns
    MESSAGE_RATE = 7  # messages in a second
    EXECUTION_RATE = 8  # orders that traded in a second; above it the account stops until RESET_THROTTLE
    ACCOUNT_POSITION = 9  # in any one symbol, open orders included
    CONCENTRATION = 10  # ppm of the account's capital that its position in one symbol may be worth
    OPEN_EXPOSURE = 11  # value of all open orders of the account
    LOSS = 12  # beyond it the account may only reduce
    DUPLICATE_WINDOW = 13  # ns in which the same order again is refused
    BREAKER_LOSS = 14  # ppm of the portfolio's capital


@dataclass(frozen=True)
class Instrument:
    """What the controls know about a symbol from the start."""

    symbol: str = ""
    multiplier: int = 1
    reference: int | None = None  # ticks

    def __post_init__(self) -> None:
        if not 1 <= self.multiplier <= HIGHEST_MULTIPLIER:
            raise ValueError(f"multiplier: from 1 to {HIGHEST_MULTIPLIER}, not {self.multiplier}")
        if self.reference is not None and abs(self.reference) > HIGHEST_PRICE:
            raise ValueError(f"reference: at most {HIGHEST_PRICE} ticks from zero, not {self.reference}")


@dataclass(frozen=True)
class Controls:
    """The limits an engine starts with; None is no limit. Commands change them later."""

    static_collar_ppm: int | None = None
    moving_collar_ppm: int | None = 200_000
    maximum_quantity: int | None = 10_000_000
    maximum_value: int | None = 10**15
    symbol_position: int | None = 1_000_000_000
    volatility_band_ppm: int | None = 300_000
    volatility_pause_ns: int = 300 * SECOND
    message_rate: int | None = 1_000_000
    execution_rate: int | None = 1_000_000
    account_position: int | None = 1_000_000_000
    concentration_ppm: int | None = None
    open_exposure: int | None = 10**17
    loss: int | None = None
    duplicate_window_ns: int | None = None
    breaker_loss_ppm: int | None = 20_000
    # True: an order is refused when a limit needs a reference price that is missing. False: a symbol that has
    # not traded and was given no reference trades without collar and band until its first trade.
    strict_reference: bool = True
    most_accounts: int = 65_536

    def __post_init__(self) -> None:
        if not 1 <= self.most_accounts <= 1 << 24:
            raise ValueError(f"most_accounts: from 1 to {1 << 24}, not {self.most_accounts}")
        for limit, value in self.limits().items():
            if not -1 <= value <= highest(limit):
                raise ValueError(f"{limit.name.lower()}: from 0 to {highest(limit)}, not {value}")

    def limits(self) -> dict[Limit, int]:
        """Every limit as SET_LIMIT would set it."""
        values = (
            self.static_collar_ppm, self.moving_collar_ppm, self.maximum_quantity, self.maximum_value,
            self.symbol_position, self.volatility_band_ppm, self.volatility_pause_ns, self.message_rate,
            self.execution_rate, self.account_position, self.concentration_ppm, self.open_exposure, self.loss,
            self.duplicate_window_ns, self.breaker_loss_ppm,
        )  # fmt: skip
        return {limit: -1 if value is None else value for limit, value in zip(Limit, values, strict=True)}


def highest(limit: Limit) -> int:
    """The largest value a limit may be set to."""
    if limit in (
        Limit.STATIC_COLLAR,
        Limit.MOVING_COLLAR,
        Limit.VOLATILITY_BAND,
        Limit.CONCENTRATION,
        Limit.BREAKER_LOSS,
    ):
        return HIGHEST_PPM
    if limit in (Limit.SYMBOL_POSITION, Limit.ACCOUNT_POSITION):
        return HIGHEST_POSITION
    if limit in (Limit.MAXIMUM_VALUE, Limit.OPEN_EXPOSURE, Limit.LOSS):
        return HIGHEST_VALUE
    return (1 << 63) - 1
