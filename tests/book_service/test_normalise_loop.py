"""The normalise loop on a broker: a trace goes on through it, and its lag is told."""

from __future__ import annotations

import time

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from book_service import raw_events
from book_service.normalise_loop import NormaliseLoop
from book_service.normaliser import Normaliser
from book_service.service_metrics import BookMetrics
from protos import topics
from protos.market.v1.market_pb2 import EVENT_KIND_TRADE, NormalizedBatch, RawBatch
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.partitioning import partition_of
from service_kit.kafka.producer import Producer
from service_kit.telemetry.traces import RecordedTraces

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def loop_on(kafka, producer, registry, spans, house_symbols=None):
    return NormaliseLoop(
        consumer=Consumer(
            kafka,
            [topics.MARKET_DATA_RAW],
            "normaliser",
            raw_events.decode,
            accept=raw_events.expect_present,
            metrics=KafkaMetrics(registry),
        ),
        producer=producer,
        normaliser=Normaliser(house_symbols=house_symbols or {}),
        metrics=BookMetrics.on(registry),
        poll_records_max=10,
        poll_wait_s=0.05,
        commit_every_s=0.0,
        traces=RecordedTraces(SimpleSpanProcessor(spans), "test"),
    )


def clean(loop, kafka, count):
    """The records of the clean topic, once so many are there."""
    with Consumer(kafka, [topics.MARKET_DATA_NORMALIZED], "reader", NormalizedBatch.FromString) as reader:
        found = []
        while len(found) < count:
            loop.turn()
            found += reader.poll(10, 0.05)
    loop.consumer.close()
    return found


def test_an_underlying_and_its_options_share_a_partition_under_their_mapped_name():
    with EmbeddedBroker() as broker, Producer(broker.settings()) as producer:
        kafka = broker.settings()
        house = {("a", "XYZ"): "XYZ.N", ("a", "XYZ-C1"): "XYZ.N-C1", ("b", "X"): "XYZ.N"}
        loop = loop_on(kafka, producer, CollectorRegistry(), InMemorySpanExporter(), house)
        # Keyed by each source's name of the underlying, for its options too.
        for source, key, symbol in (
            ("a", "XYZ", "XYZ"),
            ("a", "XYZ", "XYZ-C1"),
            ("b", "X", "X"),
            ("c", "XYZ", "XYZ"),
        ):
            raw = RawBatch(source=source, symbols=[symbol], symbol_index=[0], price=[1.0])
            raw.kind.append(EVENT_KIND_TRADE)
            producer.send(topics.MARKET_DATA_RAW, key, raw.SerializeToString())
        producer.flush()
        found = clean(loop, kafka, 4)
    places = {one.value.symbols[0]: set() for one in found}
    for one in found:
        places[one.value.symbols[0]].add((one.record.key, one.record.partition))
    home = ("XYZ.N", partition_of("XYZ.N", 4))
    assert places["XYZ.N"] == places["XYZ.N-C1"] == {home}
    assert places["XYZ"] == {("XYZ", partition_of("XYZ", 4))}  # of a source that is not mapped


def test_an_event_from_the_future_is_set_aside_and_the_rest_is_not_stale():
    with EmbeddedBroker() as broker, Producer(broker.settings()) as producer:
        kafka = broker.settings()
        loop = loop_on(kafka, producer, CollectorRegistry(), InMemorySpanExporter())
        now = time.time_ns()
        for time_ns in (now, 2**62, now + 1):
            raw = RawBatch(source="a", symbols=["A"], symbol_index=[0], price=[1.0], source_time_ns=[time_ns])
            raw.kind.append(EVENT_KIND_TRADE)
            producer.send(topics.MARKET_DATA_RAW, "A", raw.SerializeToString())
        producer.flush()
        found = clean(loop, kafka, 2)
    assert [one.value.source_time_ns[0] for one in found] == [now, now + 1]
    assert [one.value.flags[0] for one in found] == [0, 0]


def test_a_trace_goes_on_and_the_lag_is_told():
    registry, spans = CollectorRegistry(), InMemorySpanExporter()
    with EmbeddedBroker() as broker, Producer(broker.settings()) as producer:
        kafka = broker.settings()
        loop = loop_on(kafka, producer, registry, spans)
        raw = RawBatch(source="s", symbols=["A"], symbol_index=[0], kind=[EVENT_KIND_TRADE], price=[1.0])
        header = ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01".encode())
        producer.send(topics.MARKET_DATA_RAW, "A", raw.SerializeToString(), [header])
        producer.flush()
        found = clean(loop, kafka, 1)
        headers = dict(found[0].record.headers)
        [span] = spans.get_finished_spans()
        assert span.name == "normalise"
        assert headers["traceparent"].decode().split("-")[1] == TRACE
        assert headers["traceparent"].decode().split("-")[2] == f"{span.context.span_id:016x}"
    lags = [
        one
        for metric in registry.collect()
        for one in metric.samples
        if "kafka" in one.name and "lag" in one.name
    ]
    assert {one.value for one in lags} == {0.0}
