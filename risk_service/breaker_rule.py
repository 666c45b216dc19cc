"""Which portfolios have a breaker, at which loss it trips, and from when on losses count."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from service_kit.errors import SettingError

DEFAULT_LOSS: Final = 0.02  # of the capital
DAY_NS: Final = 86_400_000_000_000


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """The loss, in currency, at which each portfolio is stopped; one that is not named has no breaker."""

    losses: Mapping[str, float]
    reset_ns: int | None = None  # time of day (UTC) from which losses count anew; None: never

    @classmethod
    def of(cls, capital: Iterable[str], loss: float = DEFAULT_LOSS, reset: str = "") -> BreakerRule:
        """From settings: "PORTFOLIO=CAPITAL" each, the share of it that may be lost, "HH:MM" or nothing."""
        losses: dict[str, float] = {}
        for entry in capital:
            name, _, amount = entry.rpartition("=")
            try:
                value = float(amount)
            except ValueError:
                value = math.nan
            if not name.strip() or not 0.0 < value < math.inf:
                raise SettingError("risk.capital", f"{entry!r} is not PORTFOLIO=CAPITAL")
            if name.strip() in losses:
                raise SettingError("risk.capital", f"names {name.strip()!r} twice")
            losses[name.strip()] = value * loss
        return cls(losses, _time_of_day_ns(reset) if reset else None)

    def day(self, time_ns: int) -> int:
        """Which of the days from reset to reset a moment is in."""
        return 0 if self.reset_ns is None else (time_ns - self.reset_ns) // DAY_NS


def _time_of_day_ns(text: str) -> int:
    hours, colon, minutes = text.partition(":")
    digits = hours + minutes
    known = colon and digits.isascii() and digits.isdigit() and len(hours) == len(minutes) == 2
    if known and int(hours) < 24 and int(minutes) < 60:
        return (int(hours) * 60 + int(minutes)) * 60_000_000_000
    raise SettingError("risk.breaker_reset", f"{text!r} is not HH:MM")
