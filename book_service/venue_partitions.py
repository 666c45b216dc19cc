"""Makes the `VenuePartition` of any partition, on Kafka, as the settings say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from book_service.audit import AuditLog
from book_service.order_events import OrderEvents
from book_service.settings import BookSettings
from book_service.snapshots import SnapshotFolder, fingerprint
from book_service.venue_output import KafkaInputLog, PlainOutput, TransactionalOutput
from book_service.venue_partition import VenuePartition
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.lookup import LogLookup
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.records import Partition
from service_kit.kafka.settings import KafkaSettings


@dataclass(frozen=True, slots=True)
class VenuePartitions:
    """What the partitions of one process share."""

    kafka: KafkaSettings
    book: BookSettings
    lookup: LogLookup
    consumer: Callable[[], Consumer[OrderEvents]]
    metrics: KafkaMetrics | None = None

    def make(self, home: Partition) -> VenuePartition:
        """A partition's venue, to be opened."""
        book = self.book
        listed, controls = book.listed(), book.first_controls()
        snapshots = None
        if book.snapshot_folder:
            snapshots = SnapshotFolder(Path(book.snapshot_folder), fingerprint(listed, controls))
        return VenuePartition(
            home=home,
            listed=listed,
            controls=controls,
            log=KafkaInputLog(self.lookup, home),
            output=self._output(home),
            snapshots=snapshots,
            audit=self._audit(home),
        )

    def _output(self, home: Partition) -> PlainOutput | TransactionalOutput:
        if self.book.transactions != "always":
            return PlainOutput(self.kafka, self.lookup, home.partition, self.metrics)
        return TransactionalOutput(
            self.kafka,
            self.lookup,
            home,
            f"{self.book.group}.venue.{home.partition}",
            lambda: self.consumer().group_metadata(),
        )

    def _audit(self, home: Partition) -> AuditLog | None:
        if not self.book.audit_folder:
            return None
        folder = Path(self.book.audit_folder)
        return AuditLog(folder, home.topic, home.partition, self.book.audit_file_bytes_max)
