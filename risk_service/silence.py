"""How long the market has said nothing, by the host's clock: its data age though no record tells so."""

from __future__ import annotations

from dataclasses import dataclass

from protos.risk.v1.risk_pb2 import RiskMetrics

# Shorter than this is no silence.
SILENT_FROM_NS = 1_000_000_000
TOLD_EVERY_S = 0.5


@dataclass(slots=True)
class Silence:
    """Since when nothing has been heard, on the monotonic clock in seconds."""

    _heard_at: float | None = None
    _due: float = 0.0

    def note(self, heard: bool, now: float) -> None:
        """What the last round has brought."""
        if heard or self._heard_at is None:
            self._heard_at = now

    def ns(self, now: float) -> int:
        """How long it has lasted; 0 while the market talks."""
        silent_ns = 0 if self._heard_at is None else round((now - self._heard_at) * 1e9)
        return silent_ns if silent_ns >= SILENT_FROM_NS else 0

    def is_due(self, now: float, after_ns: int) -> bool:
        """Whether one that has lasted so long must be told, again after `TOLD_EVERY_S`."""
        if self.ns(now) <= after_ns or now < self._due:
            return False
        self._due = now + TOLD_EVERY_S
        return True


def aged(metrics: RiskMetrics, by_ns: int, why: str = "") -> RiskMetrics:
    """The same numbers, seen so much later; `why` says what keeps newer ones away."""
    later = RiskMetrics()
    later.CopyFrom(metrics)
    later.greeks.age_ns[:] = [age_ns + by_ns for age_ns in metrics.greeks.age_ns]
    later.provenance.data_age_ns += by_ns
    if why:
        later.provenance.degraded, later.provenance.degraded_reason = True, why
    return later
