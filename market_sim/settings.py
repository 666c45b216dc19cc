"""Settings of the synthetic market's feed."""

from __future__ import annotations

from dataclasses import dataclass, field

from service_kit.kafka.settings import KafkaSettings
from service_kit.settings import limited


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """What `risk feed` simulates and how fast."""

    seed: int = limited(7, at_least=0, at_most=2**63 - 1)
    underlyings: int = limited(4, at_least=1, at_most=20)
    expiries: int = limited(2, at_least=1, at_most=12)
    strikes: int = limited(9, at_least=1, at_most=200)
    ticks_per_second: float = limited(40.0, at_least=0.0, at_most=1e6)
    orders_per_second: float = limited(40.0, at_least=0.0, at_most=1e6)
    steps_per_second: float = limited(20.0, at_least=0.1, at_most=1000.0)
    speed: float = limited(20.0, at_least=0.0, at_most=1e6)  # market seconds per second
    regime: str = "normal"
    # A full set of quotes goes out this often, so that a late reader need not wait for every option to tick.
    refresh_every_s: float = limited(20.0, at_least=0.1, at_most=86_400.0)


@dataclass(frozen=True, slots=True)
class MarketSimSettings:
    """Everything that `risk feed` reads."""

    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    feed: FeedSettings = field(default_factory=FeedSettings)

    def validate(self) -> MarketSimSettings:
        """These settings, or SettingError naming the first that cannot work."""
        self.kafka.validate()
        return self
