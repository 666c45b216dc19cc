"""Whether the live loop keeps up, and what is said when it does not."""

from __future__ import annotations

import logging
from dataclasses import dataclass

LOG = logging.getLogger(__name__)

# Numbers later than the first say so, until they are no later than the second.
LATE_S, IN_TIME_S = 5.0, 1.0


@dataclass(slots=True)
class Lateness:
    """How late numbers come, and the reason that they give for it; empty while they are in time."""

    seconds: float = 0.0
    why: str = ""

    def note(self, seconds: float, waiting: int) -> None:
        """What the last round has shown, and how many books wait to be told."""
        self.seconds = seconds
        if seconds > LATE_S and not self.why:
            self.why = f"the live loop does not keep up: numbers come more than {LATE_S:g} s late"
            LOG.warning("%s; %d books wait", self.why, waiting)
        elif seconds <= IN_TIME_S and self.why:
            self.why = ""
            LOG.info("numbers come in time again")
