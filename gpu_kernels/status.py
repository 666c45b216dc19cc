"""What became of one row. The numbers are those of RowStatus in protos/risk/v1/risk.proto."""

from enum import IntEnum


class Status(IntEnum):
    """One row's outcome; NaN results come with INVALID_INPUT or, for an implied vol, any status but OK."""

    OK = 0
    EXPIRED = 1  # expiry is 0: the value is the intrinsic value
    INVALID_INPUT = 2  # NaN, infinite, or negative where that has no meaning
    BELOW_INTRINSIC = 3  # a price below what the option is worth at zero volatility
    ABOVE_MAXIMUM = 4  # a price at or above what the option is worth at infinite volatility
    NOT_CONVERGED = 5
    NO_TIME_VALUE = 6  # a price equal to intrinsic to the last digit: no volatility is implied
    NO_MARKET_DATA = 7  # set by services that fill columns from a market
    NOT_VALUED_LIVE = 8  # set by services: American with dividends to come, and its table is still being made
