"""Orders sent without a pause to a real book_service on real brokers, while processes and brokers are killed.

python -m tests.simulation.campaign --orders 200000 --kills 10 --stops 3 [--transactions]
"""

from __future__ import annotations

import argparse
import contextlib
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from book_service.venue_output import last_published
from protos import topics
from service_kit.kafka.admin import ensure_topics
from service_kit.kafka.lookup import LogLookup
from service_kit.kafka.partitioning import partition_of
from service_kit.kafka.producer import Producer
from service_kit.kafka.real import RealKafka, find_kafka
from service_kit.kafka.records import Partition
from service_kit.kafka.settings import KafkaSettings
from tests.end_to_end.running import PATIENCE_S, Service
from tests.simulation.checker import Findings, check_topics
from tests.simulation.order_flow import order_batch

PARTITIONS = 4
SYMBOLS = {
    home: tuple(f"C{n}" for n in range(100) if partition_of(f"C{n}", PARTITIONS) == home)[:2]
    for home in range(PARTITIONS)
}
INSTRUMENTS = tuple(f"{symbol}:0.01:1.0" for pair in SYMBOLS.values() for symbol in pair)


@dataclass(frozen=True)
class Plan:
    """What is sent and what is done to it."""

    orders: int
    kills: int
    stops: int
    transactions: bool
    rows: int = 100


@dataclass
class Sender:
    """Sends batches up to the number that is allowed, as fast as the brokers take them."""

    settings: KafkaSettings
    plan: Plan
    draw: random.Random
    allowed: int = 0
    sent: int = 0
    failure: BaseException | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def run(self) -> None:
        """The thread."""
        try:
            with Producer(self.settings, gapless=True) as producer:
                while self.sent < self.plan.orders:
                    with self._changed:
                        self._changed.wait_for(lambda: self.sent < self.allowed)
                    self._send(producer)
                producer.flush()
        except BaseException as failure:  # noqa: BLE001 - shown by the campaign
            self.failure = failure

    def allow(self, orders: int) -> None:
        """Lets it go on up to this many."""
        with self._changed:
            self.allowed = min(orders, self.plan.orders)
            self._changed.notify_all()

    def _send(self, producer: Producer) -> None:
        home = self.draw.randrange(PARTITIONS)
        rows = min(self.plan.rows, self.plan.orders - self.sent)
        first_id = time.time_ns()  # above those of an earlier campaign on the same topics
        value = order_batch(self.draw, rows, first_id, first_id, SYMBOLS[home])
        producer.send(topics.ORDERS_INCOMING, SYMBOLS[home][0], value, partition=home)
        self.sent += rows


@dataclass
class Campaign:
    """One run; `run` gives what the checker found."""

    kafka: RealKafka
    plan: Plan
    folder: Path
    seed: int
    starts: int = 0
    exits: int = 0  # of the service by itself, as when no broker answered for too long; it is started again
    service: Service = field(init=False)

    def run(self) -> Findings:
        """Sends, kills, waits until all is executed, checks."""
        draw = random.Random(self.seed)
        settings = KafkaSettings(bootstrap=self.kafka.bootstrap)
        ensure_topics(settings)
        sender = Sender(settings, self.plan, random.Random(draw.random()))
        thread = threading.Thread(target=sender.run, name="sender", daemon=True)
        thread.start()
        faults = ["kill"] * self.plan.kills + ["stop"] * self.plan.stops
        draw.shuffle(faults)
        with LogLookup(settings) as look, contextlib.ExitStack() as stack:
            self.service = self._start(stack)
            done = _executed(look)
            for place, fault in enumerate(faults):
                sender.allow(self.plan.orders * (place + 1) // (len(faults) + 1))
                # Not before it works again, then at a random moment of its work.
                done = self._wait_beyond(look, done, sender, stack)
                time.sleep(draw.random() * 0.3)
                if fault == "kill":
                    self.service.process.kill()
                    self.service.process.wait()
                    self.service = self._start(stack)
                else:
                    broker = draw.randint(1, 3)
                    self.kafka.kill(broker)
                    time.sleep(draw.random())
                    self.kafka.restart(broker)
            sender.allow(self.plan.orders)
            thread.join(PATIENCE_S)
            if sender.failure is not None:
                raise sender.failure
            self._wait_for_all(look, stack)
            assert self.service.stop() == 0, self.service.err.read_text()[-2000:]
        return check_topics(self.kafka.bootstrap, INSTRUMENTS)

    def _start(self, stack: contextlib.ExitStack) -> Service:
        self.starts += 1
        folder = self.folder / f"life-{self.starts}"
        folder.mkdir(parents=True)
        environment = {
            "GPU_RISK_KAFKA_BOOTSTRAP": self.kafka.bootstrap,
            "GPU_RISK_KAFKA_GROUP_INSTANCE_ID": "campaign",
            "GPU_RISK_GRPC_PORT": "0",
            "GPU_RISK_BOOK_INSTRUMENTS": ",".join(INSTRUMENTS),
            "GPU_RISK_BOOK_SNAPSHOT_FOLDER": str(self.folder / "snapshots"),
            "GPU_RISK_BOOK_SNAPSHOT_EVERY_S": "0.5",
            "GPU_RISK_BOOK_AUDIT_FOLDER": str(self.folder / "audit"),
            "GPU_RISK_BOOK_COMMIT_EVERY_S": "0.2",
            "GPU_RISK_BOOK_POLL_RECORDS_MAX": "20",
            "GPU_RISK_BOOK_TRANSACTIONS": "always" if self.plan.transactions else "never",
        }
        return stack.enter_context(Service(folder, "book", settings=environment))

    def _wait_beyond(self, look: LogLookup, before: int, sender: Sender, stack: contextlib.ExitStack) -> int:
        """Until something more is executed, or all that may be sent is."""
        deadline = time.monotonic() + PATIENCE_S
        while (now := _executed(look)) <= before and not all_executed(look):
            self._keep_alive(stack, deadline)
            if sender.failure is not None:
                raise sender.failure
            time.sleep(0.02)
        return now

    def _wait_for_all(self, look: LogLookup, stack: contextlib.ExitStack) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not all_executed(look):
            self._keep_alive(stack, deadline)
            time.sleep(0.1)

    def _keep_alive(self, stack: contextlib.ExitStack, deadline: float) -> None:
        """As a supervisor does."""
        said = self.service.err.read_text()[-3000:]
        assert time.monotonic() < deadline, f"nothing more is executed: {said}"
        if self.service.process.poll() is not None:
            assert "VenueUnrecoverable" not in said, said
            assert self.exits < 10, said
            print(f"the service ended by itself: {said[-300:]}")
            self.exits += 1
            self.service = self._start(stack)


def _executed(look: LogLookup) -> int:
    """A number that grows with what is visible on orders.executed."""
    return sum(look.bounds(Partition(topics.ORDERS_EXECUTED, home))[1] for home in range(PARTITIONS))


def all_executed(look: LogLookup) -> bool:
    """Whether the executions of every order that is there are visible."""
    for home in range(PARTITIONS):
        end = look.bounds(Partition(topics.ORDERS_INCOMING, home))[1]
        last = last_published(look, home) if end else None
        if end and (last is None or last.offset != end - 1):
            return False
    return True


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="campaign-") as name:
        yield Path(name)


def main() -> None:
    """Runs one campaign and prints what was found."""
    parser = argparse.ArgumentParser()
    for name, default in (("orders", 200_000), ("kills", 5), ("stops", 2), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--transactions", action="store_true")
    given = parser.parse_args()
    begun = time.monotonic()
    with find_kafka(3, to_kill=True) as kafka, _folder() as folder:
        plan = Plan(given.orders, given.kills, given.stops, given.transactions)
        campaign = Campaign(kafka, plan, folder, given.seed)
        print(campaign.run(), f"exits {campaign.exits}", f"{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
