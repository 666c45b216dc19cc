"""What producer, consumer and admin share: the client library's configuration and a watch on the brokers."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException

from service_kit.errors import BrokerUnreachable, SettingError
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.settings import KafkaSettings

LOG = logging.getLogger("service_kit.kafka")

# A probe holds up the caller's poll, so it is short and rare.
_PROBE_S = 0.25
_PROBE_EVERY_S = 1.0
_WARN_EVERY_S = 5.0
# "HOST:PORT/bootstrap: " before and "(after 0ms in state CONNECT)" after the reason say nothing new.
_NOISE = re.compile(r"^\S+/(?:bootstrap|\d+): |\s*\(after \d+ms in state [^)]*\)|ipv[46]#")


def plain(error: ClientError) -> str:
    """The client library's reason, without its own bookkeeping."""
    return _NOISE.sub("", error.str())


def client_config(settings: KafkaSettings) -> dict[str, Any]:
    """The part of librdkafka's configuration that all clients share."""
    settings.validate()
    if settings.is_embedded:
        raise SettingError("kafka.bootstrap", "is 'embedded': start an EmbeddedBroker and use its address")
    config: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap,
        "client.id": settings.client_id,
        "security.protocol": settings.security_protocol,
        "socket.timeout.ms": settings.request_timeout_ms,
        "socket.nagle.disable": True,
        # A broker that comes back is noticed within a second (the default waits up to ten).
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "log.connection.close": False,
        # Its own log lines repeat what the error callback says, at every attempt to connect.
        "log_level": 2,
    }
    optional = {
        "ssl.ca.location": settings.ssl_ca_file,
        "ssl.certificate.location": settings.ssl_certificate_file,
        "ssl.key.location": settings.ssl_key_file,
        "sasl.mechanism": settings.sasl_mechanism,
        "sasl.username": settings.sasl_username,
        "sasl.password": settings.sasl_password.reveal(),
    }
    config.update({name: value for name, value in optional.items() if value})
    return config


def member_config(settings: KafkaSettings, group: str) -> dict[str, Any]:
    """What all clients that read, or are members of a group, have besides."""
    named = {"group.instance.id": settings.group_instance_id} if settings.group_instance_id else {}
    return (
        client_config(settings)
        | named
        | {
            "group.id": group,
            "enable.auto.commit": False,
            "session.timeout.ms": settings.session_timeout_ms,
            "heartbeat.interval.ms": min(1_000, settings.session_timeout_ms // 3),
            "max.poll.interval.ms": settings.poll_interval_ms_max,
            "fetch.min.bytes": 1,
            "fetch.wait.max.ms": settings.fetch_wait_ms_max,
            "fetch.max.bytes": max(settings.fetch_bytes_max, settings.record_bytes_max + 65_536),
            "message.max.bytes": settings.record_bytes_max + 65_536,
            "queued.max.messages.kbytes": settings.fetch_queue_kbytes_max,
            # Records are large batches: a few thousand in the queue are plenty, and when the queue is
            # full a fetch is tried again soon instead of after the default second.
            "queued.min.messages": 2_000,
            "fetch.queue.backoff.ms": 5,
            "fetch.error.backoff.ms": 50,
        }
    )


class BrokerWatch:
    """Turns a silence of all brokers that lasts too long into `BrokerUnreachable`.

    The client library retries for ever. It tells when the last connection is lost, but not reliably when
    one is back, so while the brokers are down a short metadata request asks now and then.
    """

    def __init__(self, settings: KafkaSettings, metrics: KafkaMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._down_since: float | None = None
        self._next_probe = 0.0
        self._next_warning = 0.0
        self.why = "no connection"

    def on_error(self, error: ClientError) -> None:
        """The client library's error callback."""
        self._metrics.client_errors.labels(error.name()).inc()
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + _WARN_EVERY_S
            LOG.warning("kafka %s: %s", self._settings.bootstrap, plain(error))
        if error.code() == ClientError._ALL_BROKERS_DOWN:
            if self._down_since is None:
                self._down_since = time.monotonic()
        else:
            self.why = plain(error)

    def heard(self) -> None:
        """A broker has answered."""
        self._down_since = None

    @property
    def down(self) -> bool:
        """Whether no broker has answered lately."""
        return self._down_since is not None

    def check(self, list_topics: Callable[..., Any]) -> None:
        """Raise when no broker has answered for `unreachable_s_max`; cheap while all is well."""
        if self._down_since is None:
            return
        now = time.monotonic()
        if now < self._next_probe:
            return
        try:
            list_topics(timeout=_PROBE_S)
        except KafkaException:
            self._next_probe = time.monotonic() + _PROBE_EVERY_S
            if now - self._down_since > self._settings.unreachable_s_max:
                silence = f"no answer for {now - self._down_since:.0f} s ({self.why})"
                raise BrokerUnreachable(self._settings.bootstrap, silence) from None
        else:
            self.heard()
