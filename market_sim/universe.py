"""The underlyings of the synthetic market. All levels are illustrative; only the tickers look familiar."""

from __future__ import annotations

from dataclasses import dataclass

MARKET_VOL = 0.16
"""Long-run volatility of the market factor, per year; betas are relative to it."""


@dataclass(frozen=True, slots=True)
class Underlying:
    """One underlying: opening levels (rates continuous per year, vol per 1.00) and its ties."""

    symbol: str
    spot: float
    vol: float
    rate: float
    dividend_yield: float
    market_correlation: float
    sector: str
    sector_correlation: float
    american: bool
    tick: float = 0.01
    activity: float = 1.0

    def __post_init__(self) -> None:
        if not self.symbol or len(self.symbol) > 6:
            raise ValueError(
                f"symbol: {self.symbol!r} must have 1 to 6 characters (the root of an OSI symbol)"
            )
        for field in ("spot", "vol", "tick", "activity"):
            if not getattr(self, field) > 0:
                raise ValueError(f"{field}: must be positive for {self.symbol}, got {getattr(self, field)}")
        if self.market_correlation**2 + self.sector_correlation**2 > 1:
            raise ValueError(
                f"market_correlation, sector_correlation: squares of {self.symbol} add up to over 1"
            )

    @property
    def beta(self) -> float:
        """Move per unit move of the market factor."""
        return self.market_correlation * self.vol / MARKET_VOL


_RATE = 0.04


def _index(symbol: str, spot: float, vol: float, dividend: float, tie: float, activity: float) -> Underlying:
    return Underlying(
        symbol, spot, vol, _RATE, dividend, tie, "index", 0.0, american=False, activity=activity
    )


def _stock(
    symbol: str, spot: float, vol: float, dividend: float, tie: float, sector: str, activity: float = 1.0
) -> Underlying:
    return Underlying(symbol, spot, vol, _RATE, dividend, tie, sector, 0.35, american=True, activity=activity)


UNIVERSE: tuple[Underlying, ...] = (
    _index("SPX", 5000.0, 0.16, 0.014, 0.98, 4.0),
    _stock("AAPL", 210.0, 0.26, 0.005, 0.70, "technology", 2.0),
    _stock("NVDA", 125.0, 0.45, 0.0003, 0.65, "technology", 3.0),
    _stock("JPM", 205.0, 0.24, 0.022, 0.62, "financials"),
    _index("NDX", 18000.0, 0.21, 0.008, 0.94, 2.0),
    _index("RUT", 2100.0, 0.22, 0.013, 0.88, 1.0),
    _stock("MSFT", 430.0, 0.24, 0.007, 0.72, "technology", 2.0),
    _stock("AMZN", 185.0, 0.32, 0.0, 0.66, "consumer", 2.0),
    _stock("TSLA", 240.0, 0.55, 0.0, 0.50, "consumer", 2.5),
    _stock("GOOG", 172.0, 0.29, 0.004, 0.66, "technology", 1.5),
    _stock("META", 510.0, 0.35, 0.004, 0.62, "technology", 1.5),
    _stock("AMD", 155.0, 0.48, 0.0, 0.60, "technology", 1.5),
    _stock("BAC", 41.0, 0.27, 0.024, 0.60, "financials"),
    _stock("GS", 480.0, 0.27, 0.024, 0.63, "financials"),
    _stock("XOM", 115.0, 0.25, 0.033, 0.42, "energy"),
    _stock("CVX", 155.0, 0.25, 0.042, 0.42, "energy"),
    _stock("PFE", 29.0, 0.26, 0.057, 0.38, "health", 0.7),
    _stock("UNH", 530.0, 0.26, 0.015, 0.40, "health", 0.7),
    _stock("WMT", 69.0, 0.20, 0.012, 0.42, "consumer", 0.8),
    _stock("BA", 180.0, 0.36, 0.0, 0.50, "industry", 0.8),
)
