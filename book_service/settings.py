"""Settings of book_service."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from book_service.api.access import Access
from book_service.budgets import first_controls
from book_service.matching import Controls
from book_service.matching.layout import HIGHEST_MULTIPLIER
from book_service.normaliser import FailoverRules, NormaliserRules
from book_service.venue import Listed
from service_kit.errors import SettingError
from service_kit.grpc_server.settings import GrpcSettings
from service_kit.kafka.control_log import PARTITIONS
from service_kit.kafka.settings import KafkaSettings
from service_kit.settings import limited
from service_kit.telemetry.logs import LogSettings
from service_kit.telemetry.metrics import MetricsSettings
from service_kit.telemetry.traces import TraceSettings

_BLUR = 1e-9  # relative: a decimal tick over a decimal unit is this near to a whole number


@dataclass(frozen=True, slots=True)
class BookSettings:
    """What book_service trades and how it reads the market."""

    # The instruments of our own venue, each SYMBOL:TICK_SIZE or SYMBOL:TICK_SIZE:REFERENCE_PRICE. Their
    # places are the core's symbols, so the list is part of the log's meaning: append to it, never reorder it.
    instruments: tuple[str, ...] = ()
    # Pre-trade controls. With them an order in an instrument without a reference price is refused, until a
    # logged command gives it one.
    controls: bool = True
    # The venue's amounts (values, exposures, losses, capital) are whole numbers of this much currency, the
    # same for all instruments: every tick must be a whole number of it.
    money_unit: float = limited(0.0001, at_least=1e-12, at_most=1e6)
    # Principals that may kill, set limits, command and send orders for any account; and the accounts of the
    # others, each PRINCIPAL=ACCOUNT or PRINCIPAL=FIRST-LAST. With auth "none" everybody may everything.
    operators: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    group: str = "book-service"
    poll_records_max: int = limited(500, at_least=1, at_most=100_000)
    poll_wait_s: float = limited(0.05, at_least=0.001, at_most=10.0)
    commit_every_s: float = limited(1.0, at_least=0.0, at_most=60.0)
    # Where snapshots of the venue are kept; instances that share it hand partitions over by it. Empty:
    # none, a partition that is taken is rebuilt from its log's beginning.
    snapshot_folder: str = ""
    snapshot_every_s: float = limited(60.0, at_least=0.0, at_most=86_400.0)
    # Where the audit log is kept. Empty: none.
    audit_folder: str = ""
    audit_file_bytes_max: int = limited(268_435_456, at_least=1_048_576, at_most=1_099_511_627_776)
    # Executions and offsets in Kafka transactions: where every broker is of version 4 or newer, always (older
    # ones are then refused), or never. Without them a process that was paused can double a batch.
    transactions: Literal["auto", "always", "never"] = "auto"
    band_relative: float = limited(0.25, at_least=0.001, at_most=100.0)
    band_absolute: float = limited(1.0, at_least=0.0, at_most=1e9)
    band_confirmations: int = limited(5, at_least=1, at_most=1_000_000)
    stale_after_s: float = limited(2.0, at_least=0.0, at_most=86_400.0)
    # Sources that stand in for each other, best first; none: every source is passed on.
    sources: tuple[str, ...] = ()
    silent_after_s: float = limited(3.0, at_least=0.001, at_most=86_400.0)
    return_after_events: int = limited(20, at_least=1, at_most=1_000_000)
    # Names that a source has for our symbols, each SOURCE:ITS_SYMBOL=OUR_SYMBOL. A feed may map them itself
    # (its records then share one key); sources whose records have different keys cannot stand in.
    symbol_map: tuple[str, ...] = ()

    def rules(self) -> NormaliserRules:
        """The normaliser's limits."""
        return NormaliserRules(
            band_relative=self.band_relative,
            band_absolute=self.band_absolute,
            band_confirmations=self.band_confirmations,
            stale_after_ns=round(self.stale_after_s * 1e9),
        )

    def failover(self) -> FailoverRules:
        """Which sources stand in for each other, and when."""
        if len(set(self.sources)) != len(self.sources) or not all(self.sources):
            raise SettingError("book.sources", "names a source twice, or none")
        return FailoverRules(self.sources, round(self.silent_after_s * 1e9), self.return_after_events)

    def house_symbols(self) -> dict[tuple[str, str], str]:
        """Our symbol by source and its symbol."""
        found = dict(_mapped(entry) for entry in self.symbol_map)
        if len(found) != len(self.symbol_map):
            raise SettingError("book.symbol_map", "names a source's symbol twice")
        return found

    def access(self, *, everyone: bool) -> Access:
        """Who may do what."""
        return Access.of(self.operators, self.accounts, everyone=everyone)

    def first_controls(self) -> Controls | None:
        """The limits that every partition of the venue starts with; commands change them."""
        return first_controls(Controls(), PARTITIONS) if self.controls else None

    def listed(self) -> tuple[Listed, ...]:
        """The instruments, in the order of the setting."""
        found = tuple(_listed(entry, self.money_unit) for entry in self.instruments)
        if len({one.symbol for one in found}) != len(found):
            raise SettingError("book.instruments", "names a symbol twice")
        return found


def _mapped(entry: str) -> tuple[tuple[str, str], str]:
    theirs, _, ours = entry.rpartition("=")
    source, _, symbol = theirs.partition(":")
    if not (source and symbol and ours):
        raise SettingError("book.symbol_map", f"{entry!r} is not SOURCE:ITS_SYMBOL=OUR_SYMBOL")
    return (source, symbol), ours


def _listed(entry: str, money_unit: float) -> Listed:
    symbol, *numbers = entry.split(":")
    try:
        tick, *reference = (float(number) for number in numbers)
    except ValueError:
        tick, reference = 0.0, []
    if not symbol or len(reference) > 1 or not all(0.0 < number < math.inf for number in (tick, *reference)):
        raise SettingError("book.instruments", f"{entry!r} is not SYMBOL:TICK_SIZE[:REFERENCE_PRICE]")
    units = tick / money_unit
    if not 1.0 <= round(units) <= HIGHEST_MULTIPLIER or abs(units - round(units)) > _BLUR * units:
        why = f"the tick of {entry!r} is no whole number of book.money_unit ({money_unit:g}), or too many"
        raise SettingError("book.instruments", why)
    return Listed(symbol, tick, reference[0] if reference else None, round(units))


@dataclass(frozen=True, slots=True)
class BookServiceSettings:
    """Everything that `risk book` reads."""

    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    grpc: GrpcSettings = field(default_factory=GrpcSettings)
    log: LogSettings = field(default_factory=LogSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    traces: TraceSettings = field(default_factory=TraceSettings)
    book: BookSettings = field(default_factory=BookSettings)

    def validate(self) -> BookServiceSettings:
        """These settings, or SettingError naming the first that cannot work."""
        self.kafka.validate()
        self.book.listed()
        self.book.failover()
        self.book.house_symbols()
        self.book.access(everyone=False)
        return self
