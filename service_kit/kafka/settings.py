"""Settings of the Kafka clients; every limit carries its unit in its name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from service_kit.errors import SettingError
from service_kit.settings import Secret, limited

EMBEDDED = "embedded"

Compression = Literal["none", "gzip", "lz4", "snappy", "zstd"]
SecurityProtocol = Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach Kafka and how much to queue; `validate()` refuses what cannot work, by name."""

    bootstrap: str = EMBEDDED
    client_id: str = "gpu-risk"

    # Producer. Records are already batches of events, so waiting for more only adds delay.
    linger_ms: float = limited(0.0, at_least=0.0, at_most=10_000.0)
    batch_bytes_max: int = limited(1_048_576, at_least=1_024, at_most=2_147_483_647)
    batch_records_max: int = limited(10_000, at_least=1, at_most=1_000_000)
    record_bytes_max: int = limited(8_388_608, at_least=1_024, at_most=1_000_000_000)
    queue_records_max: int = limited(100_000, at_least=1, at_most=10_000_000)
    queue_kbytes_max: int = limited(262_144, at_least=1, at_most=2_097_151)
    send_wait_s_max: float = limited(5.0, at_least=0.0, at_most=3_600.0)
    delivery_timeout_ms: int = limited(30_000, at_least=100, at_most=900_000)
    close_wait_s_max: float = limited(2.0, at_least=0.0, at_most=3_600.0)
    compression: Compression = "none"
    # An open transaction blocks read_committed readers for this long when its owner dies.
    transaction_timeout_ms: int = limited(10_000, at_least=1_000, at_most=10_000)

    # Consumer. A broker answers a waiting fetch at once when a record arrives, so the wait only
    # bounds how often an idle consumer asks again.
    fetch_wait_ms_max: int = limited(100, at_least=0, at_most=300_000)
    fetch_bytes_max: int = limited(52_428_800, at_least=1_024, at_most=2_147_483_135)
    fetch_queue_kbytes_max: int = limited(65_536, at_least=1, at_most=2_097_151)
    # Brokers refuse less than 6 s unless told otherwise; the embedded one does not.
    session_timeout_ms: int = limited(10_000, at_least=1_000, at_most=1_800_000)
    # A process that is restarted under the same name takes its partitions back at once, instead of after the
    # session timeout; two at a time must not share one. Empty: members come and go without a name.
    group_instance_id: str = ""
    poll_interval_ms_max: int = limited(300_000, at_least=10_000, at_most=86_400_000)
    # Below a broker's usual limit of 1 MiB, so that a dead letter itself always fits.
    dead_letter_value_bytes_max: int = limited(900_000, at_least=0, at_most=100_000_000)

    # Both. After this long without any broker a client gives up with `BrokerUnreachable`.
    unreachable_s_max: float = limited(15.0, at_least=0.1, at_most=86_400.0)
    request_timeout_ms: int = limited(10_000, at_least=1_000, at_most=300_000)

    security_protocol: SecurityProtocol = "plaintext"
    ssl_ca_file: str = ""
    ssl_certificate_file: str = ""
    ssl_key_file: str = ""
    sasl_mechanism: str = ""
    sasl_username: str = ""
    sasl_password: Secret = field(default=Secret(""))

    def validate(self) -> KafkaSettings:
        """Return these settings, or raise `SettingError` naming the first one that is wrong."""
        self._check_bootstrap()
        if not self.client_id:
            raise SettingError("kafka.client_id", "must not be empty")
        for one in dataclasses.fields(self):
            if "at_least" in one.metadata:
                low, high = one.metadata["at_least"], one.metadata["at_most"]
                value = getattr(self, one.name)
                # Written so that NaN is refused too.
                if not low <= value <= high:
                    raise SettingError(
                        f"kafka.{one.name}", f"must be from {low:,} to {high:,}, not {value!r}"
                    )
        if self.fetch_wait_ms_max + 1_000 > self.request_timeout_ms:
            raise SettingError(
                "kafka.request_timeout_ms",
                f"{self.request_timeout_ms} must exceed fetch_wait_ms_max ({self.fetch_wait_ms_max}) by 1000",
            )
        if self.linger_ms > self.delivery_timeout_ms:
            raise SettingError("kafka.linger_ms", "must not exceed delivery_timeout_ms")
        if self.session_timeout_ms > self.poll_interval_ms_max:
            raise SettingError("kafka.poll_interval_ms_max", "must not be below session_timeout_ms")
        if self.security_protocol.startswith("sasl") and not self.sasl_mechanism:
            raise SettingError("kafka.sasl_mechanism", "is needed with a sasl security protocol")
        return self

    def at(self, bootstrap: str) -> KafkaSettings:
        """These settings with another bootstrap list."""
        return dataclasses.replace(self, bootstrap=bootstrap)

    @property
    def is_embedded(self) -> bool:
        """Whether the broker is to be the in-memory one."""
        return self.bootstrap == EMBEDDED

    def _check_bootstrap(self) -> None:
        if self.is_embedded:
            return
        for address in self.bootstrap.split(","):
            host, _, port = address.strip().rpartition(":")
            if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65_536:
                raise SettingError(
                    "kafka.bootstrap",
                    f"must be {EMBEDDED!r} or HOST:PORT[,HOST:PORT...], not {self.bootstrap!r}",
                )
