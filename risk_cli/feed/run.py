"""`risk feed` with sources of its own: files are played, sockets and our venue followed."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from book_service.adapters.errors import AdapterError
from book_service.adapters.feed_plan import FILES, SourcePlan
from book_service.adapters.feed_run import Publisher, SourceCounts, follow_socket, replay_files
from market_sim.settings import MarketSimSettings
from protos import osi, topics
from risk_cli.answers import Form, plain_table, show
from risk_cli.feed.sources_file import FeedPlan
from risk_cli.feed.venue import VenueFeed
from risk_cli.refusals import BadInput, CannotDo
from risk_cli.settings import loaded
from risk_client import RiskClientError
from service_kit.errors import ServiceKitError
from service_kit.kafka.admin import check_broker
from service_kit.kafka.producer import Producer
from service_kit.kafka.settings import KafkaSettings
from service_kit.lifecycle import Stop, run_service

_COLUMNS = ("source", "format", "events", "records", "left_out", "off_grid")


def run_sources(plan: FeedPlan, settings: Path | None, form: Form) -> int:
    """Plays it to its end or until a signal, then says what was sent; the exit status."""
    failures: list[Exception] = []
    started = time.monotonic()
    publishers: list[Publisher] = []

    def main(stop: Stop) -> None:
        kafka = loaded(MarketSimSettings, settings).kafka
        check_broker(kafka)
        with Producer(kafka) as producer:
            publisher = Publisher(
                lambda key, value: producer.send(topics.MARKET_DATA_RAW, key, value), record_keys(plan)
            )
            publishers.append(publisher)
            _run_all(plan, kafka, publisher, stop, failures)
            producer.flush()

    status = run_service(main, name="feed")
    if publishers:
        _tell(plan, publishers[0], time.monotonic() - started, form)
    for failure in failures:
        if isinstance(failure, AdapterError | FileNotFoundError):
            raise BadInput(str(failure))
        raise CannotDo(str(failure))
    return status


def record_keys(plan: FeedPlan) -> Callable[[str, str], str]:
    """The key of a source's symbol: itself, or an option's underlying as that source's is called here."""
    ours = {source.name: source.terms.ours for source in plan.sources}

    @cache
    def key_of(source: str, symbol: str) -> str:
        try:
            root = osi.parse(symbol).root
        except ValueError:
            return symbol
        underlying = osi.INDEX_OF_ROOT.get(root, root)
        return ours[source].get(underlying, underlying)

    return key_of


def _run_all(
    plan: FeedPlan, kafka: KafkaSettings, publisher: Publisher, stop: Stop, failures: list[Exception]
) -> None:
    live = [
        threading.Thread(
            target=_guarded, args=(_follower(source, kafka, publisher), stop, failures), name=source.name
        )
        for source in plan.sources
        if source.format not in FILES
    ]
    files = [source for source in plan.sources if source.format in FILES]
    for thread in live:
        thread.start()
    _guarded(lambda stop: replay_files(files, plan.pace, publisher, stop), stop, failures)
    for thread in live:
        thread.join()


def _follower(
    source: SourcePlan, kafka: KafkaSettings, publisher: Publisher
) -> Callable[[threading.Event], None]:
    if source.format == "venue":
        return VenueFeed(source, kafka, publisher).run
    return lambda stop: follow_socket(source, publisher, stop)


def _guarded(work: Callable[[Stop], None], stop: Stop, failures: list[Exception]) -> None:
    """One source that fails ends the others too: half a feed looks like a market that has gone quiet."""
    try:
        work(stop)
    except (AdapterError, OSError, RiskClientError, ServiceKitError) as failure:
        failures.append(failure)
        stop.set(str(failure))


def _tell(plan: FeedPlan, publisher: Publisher, seconds: float, form: Form) -> None:
    rows: list[dict[str, str | int]] = []
    total = 0
    for source in plan.sources:
        counts = publisher.counts.get(source.name, SourceCounts())
        total += counts.events
        rows.append(
            {
                "source": source.name,
                "format": source.format,
                "events": counts.events,
                "records": counts.records,
                "left_out": source.terms.left_out,
                "off_grid": source.terms.off_grid,
            }
        )
    print(f"feed: {total:,} events in {seconds:.1f} s", file=sys.stderr)
    cells = [[f"{v:,}" if isinstance(v, int) else str(v) for v in row.values()] for row in rows]
    show(form, "feed", [plain_table("", _COLUMNS, cells, left=2)], {"sources": rows}, rows)
