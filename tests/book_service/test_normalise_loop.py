"""The normalise loop on a broker: a trace goes on through it, and its lag is told."""

from __future__ import annotations

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from book_service import raw_events
from book_service.normalise_loop import NormaliseLoop
from book_service.normaliser import Normaliser
from book_service.service_metrics import BookMetrics
from protos import topics
from protos.market.v1.market_pb2 import EVENT_KIND_TRADE, RawBatch
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.producer import Producer
from service_kit.telemetry.traces import RecordedTraces

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_trace_goes_on_and_the_lag_is_told():
    registry, spans = CollectorRegistry(), InMemorySpanExporter()
    with EmbeddedBroker() as broker, Producer(broker.settings()) as producer:
        kafka = broker.settings()
        loop = NormaliseLoop(
            consumer=Consumer(
                kafka,
                [topics.MARKET_DATA_RAW],
                "normaliser",
                raw_events.decode,
                metrics=KafkaMetrics(registry),
            ),
            producer=producer,
            normaliser=Normaliser(),
            metrics=BookMetrics.on(registry),
            poll_records_max=10,
            poll_wait_s=0.05,
            commit_every_s=0.0,
            traces=RecordedTraces(SimpleSpanProcessor(spans), "test"),
        )
        raw = RawBatch(source="s", symbols=["A"], symbol_index=[0], kind=[EVENT_KIND_TRADE], price=[1.0])
        header = ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01".encode())
        producer.send(topics.MARKET_DATA_RAW, "A", raw.SerializeToString(), [header])
        producer.flush()
        with Consumer(kafka, [topics.MARKET_DATA_NORMALIZED], "reader", bytes) as reader:
            found = []
            while not found:
                loop.turn()
                found = reader.poll(10, 0.05)
        loop.consumer.close()
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
