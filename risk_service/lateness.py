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

    def note(self, unread_s: float, untold_s: float) -> None:
        """How late the market is read, and how long the first book waits to be told.

        Only the first makes all numbers late: who waits behind other books of the owner says so itself.
        """
        self.seconds = max(unread_s, untold_s)
        if unread_s > LATE_S and not self.why:
            self.why = f"the live loop does not keep up: the market is read more than {LATE_S:g} s late"
            LOG.warning("%s", self.why)
        elif unread_s <= IN_TIME_S and self.why:
            self.why = ""
            LOG.info("the market is read in time again")
