"""Settings of risk_service."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from service_kit.errors import SettingError
from service_kit.grpc_server.settings import GrpcSettings
from service_kit.kafka.settings import KafkaSettings
from service_kit.settings import limited
from service_kit.telemetry.logs import LogSettings
from service_kit.telemetry.metrics import MetricsSettings
from service_kit.telemetry.traces import TraceSettings


@dataclass(frozen=True, slots=True)
class RiskSettings:
    """What risk_service computes and how often."""

    engine: str = "auto"  # or the name of one, which must then be there
    # Whether the engine runs in a process of its own: auto is for those of a device only (cuda, xla).
    engine_process: Literal["auto", "always", "never"] = "auto"
    history: Path | None = None  # CSV of daily closes and vols; without it there is no historical ES
    history_days_max: int = limited(500, at_least=20, at_most=100_000)
    es_level: float = limited(0.975, at_least=0.5, at_most=0.9999)
    poll_records_max: int = limited(1_000, at_least=1, at_most=100_000)
    poll_wait_s: float = limited(0.05, at_least=0.001, at_most=10.0)
    stale_after_s: float = limited(5.0, at_least=0.1, at_most=86_400.0)
    # Of the quotes that vols come from: single options are quoted less often than what is under them.
    option_quotes_stale_after_s: float = limited(300.0, at_least=0.1, at_most=86_400.0)
    # Where the market is kept, so that a start reads on from there instead of from the beginning of the log.
    market_file: Path | None = None
    market_file_every_s: float = limited(30.0, at_least=1.0, at_most=3_600.0)
    rows_per_request_max: int = limited(2_000_000, at_least=1, at_most=50_000_000)
    watchers_max: int = limited(1_000, at_least=1, at_most=100_000)
    snapshots_waiting_max: int = limited(256, at_least=1, at_most=100_000)  # calls that wait for the market
    # Principals that may see, or see and change, every portfolio; others only their own.
    readers: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()
    # Portfolios that are held, in all and of one owner, and how fast one principal may put positions.
    portfolios_max: int = limited(10_000, at_least=1, at_most=1_000_000)
    positions_max: int = limited(5_000_000, at_least=1, at_most=100_000_000)
    portfolio_underlyings_max: int = limited(30_000, at_least=1, at_most=10_000_000)
    portfolios_per_owner_max: int = limited(1_000, at_least=1, at_most=1_000_000)
    positions_per_owner_max: int = limited(1_000_000, at_least=1, at_most=100_000_000)
    positions_put_per_second_max: float = limited(20_000.0, at_least=1.0, at_most=1e9)
    # Whose fills are whose: "ACCOUNT=PORTFOLIO" each; any other account belongs to the portfolio named by the
    # prefix and its number, or to none where the prefix is empty.
    accounts: tuple[str, ...] = ()
    account_prefix: str = ""
    # Whether to start where orders.executed has lost its beginning, and with it fills of positions.
    partial_fills: bool = False
    # "PORTFOLIO=CAPITAL" each: when it has lost this share of it, its accounts are killed on the venue.
    capital: tuple[str, ...] = ()
    breaker_loss: float = limited(0.02, at_least=0.0001, at_most=1.0)
    breaker_reset: str = ""  # "HH:MM" UTC by the market's clock: losses count anew from there each day
    # Work let in at once, in seconds that it takes; what does not fit is refused with a delay.
    backlog_s_max: float = limited(2.0, at_least=0.01, at_most=600.0)
    backlog_share_max: float = limited(0.5, at_least=0.01, at_most=1.0)  # of it, for one principal
    # What one request may ask for. A revaluation is one European option under one scenario.
    revaluations_per_request_max: int = limited(5_000_000_000, at_least=1)
    values_per_answer_max: int = limited(4_000_000, at_least=1, at_most=100_000_000)


@dataclass(frozen=True, slots=True)
class RiskServiceSettings:
    """Everything that `risk serve` reads."""

    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    grpc: GrpcSettings = field(default_factory=GrpcSettings)
    log: LogSettings = field(default_factory=LogSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    traces: TraceSettings = field(default_factory=TraceSettings)
    risk: RiskSettings = field(default_factory=RiskSettings)

    def validate(self) -> RiskServiceSettings:
        """These settings, or SettingError naming the first that cannot work."""
        self.kafka.validate()
        if self.risk.history is not None and not self.risk.history.is_file():
            raise SettingError("risk.history", f"there is no file {self.risk.history}")
        return self
