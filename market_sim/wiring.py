"""The only place that makes the feed's real clients."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from market_sim.feed import MarketFeed
from market_sim.history import simulate_history, write_csv
from market_sim.publish_loop import PublishLoop
from market_sim.settings import FeedSettings, MarketSimSettings
from market_sim.universe import UNIVERSE
from service_kit.kafka.admin import check_broker
from service_kit.kafka.producer import Producer
from service_kit.lifecycle import Stop


def market_feed(settings: FeedSettings) -> MarketFeed:
    """The market that these settings describe, its options listed today."""
    return MarketFeed(
        settings.seed,
        start=datetime.now(UTC).date(),
        underlyings=settings.underlyings,
        expiries=settings.expiries,
        strikes=settings.strikes,
        ticks_per_second=settings.ticks_per_second,
        orders_per_second=settings.orders_per_second,
        regime=settings.regime,
        speed=settings.speed,
    )


def write_history(settings: FeedSettings, path: Path, years: float) -> None:
    """Years of daily closes and vols of the feed's underlyings, up to today, as risk_service reads them."""
    start = datetime.now(UTC).date() - timedelta(days=round(years * 365.25))
    write_csv(simulate_history(UNIVERSE[: settings.underlyings], years, settings.seed, start), path)


def run_feed(settings: MarketSimSettings, stop: Stop) -> None:
    """Runs the feed until told to stop."""
    check_broker(settings.kafka)
    with Producer(settings.kafka) as producer:
        loop = PublishLoop(
            feed=market_feed(settings.feed),
            producer=producer,
            step_s=1.0 / settings.feed.steps_per_second,
            refresh_every_s=settings.feed.refresh_every_s,
        )
        loop.run(stop)
