"""Settings, headers, records and partitioning: everything that needs no broker."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from service_kit.errors import SettingError
from service_kit.kafka.connection import client_config
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.partitioning import murmur2, partition_of
from service_kit.kafka.settings import KafkaSettings
from service_kit.settings import as_environment, load


def test_default_settings_are_valid() -> None:
    assert KafkaSettings().validate().is_embedded


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bootstrap", "localhost"),
        ("bootstrap", "localhost:0"),
        ("bootstrap", "a:1,,b:2"),
        ("bootstrap", ":9092"),
        ("bootstrap", "a:٣"),
        ("client_id", ""),
        ("linger_ms", -1.0),
        ("linger_ms", math.nan),
        ("queue_records_max", 0),
        ("transaction_timeout_ms", 10_001),
        ("request_timeout_ms", 1_000),
        ("unreachable_s_max", math.inf),
        ("poll_interval_ms_max", 10_000),
    ],
)
def test_a_bad_setting_is_refused_by_name(name: str, value: object) -> None:
    settings = dataclasses.replace(
        KafkaSettings(),
        session_timeout_ms=20_000,
        **{name: value},  # type: ignore[arg-type]
    )
    with pytest.raises(SettingError, match=r"kafka\.") as caught:
        settings.validate()
    assert name.split("_")[0] in caught.value.name


def test_a_sasl_protocol_needs_its_mechanism() -> None:
    with pytest.raises(SettingError, match=r"kafka\.sasl_mechanism"):
        KafkaSettings(security_protocol="sasl_ssl").validate()


def test_settings_survive_the_environment() -> None:
    @dataclasses.dataclass(frozen=True)
    class Process:
        kafka: KafkaSettings

    chosen = Process(KafkaSettings(bootstrap="a:1,b:2", linger_ms=2.5, compression="lz4"))
    assert load(Process, as_environment(chosen)) == chosen


def test_the_embedded_broker_has_no_address_of_its_own() -> None:
    with pytest.raises(SettingError, match="start an EmbeddedBroker"):
        client_config(KafkaSettings())


def test_a_password_is_never_shown() -> None:
    settings = load(KafkaSettings, {"GPU_RISK_SASL_PASSWORD": "hunter2", "GPU_RISK_SASL_MECHANISM": "PLAIN"})
    assert settings.sasl_password.reveal() == "hunter2"
    assert "hunter2" not in repr(settings)


# From Kafka's own UtilsTest.testMurmur2, as signed 32-bit integers.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_murmur2_is_the_hash_of_kafkas_java_client(text: str, expected: int) -> None:
    assert murmur2(text.encode()) == expected % 2**32


@given(st.binary(max_size=40), st.integers(1, 1_000))
def test_every_key_has_one_partition_in_range(key: bytes, partitions: int) -> None:
    assert 0 <= partition_of(key, partitions) < partitions


def test_a_topic_has_at_least_one_partition() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        partition_of("AAPL", 0)


def test_metrics_go_to_the_registry_they_were_given() -> None:
    registry = CollectorRegistry()
    KafkaMetrics(registry).dead_letters.labels("t").inc()
    assert registry.get_sample_value("gpu_risk_kafka_dead_letters_total", {"topic": "t"}) == 1.0
    assert all(family.name.startswith("gpu_risk_kafka_") for family in registry.collect())
