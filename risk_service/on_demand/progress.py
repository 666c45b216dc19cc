"""How far a long computation is, told from its thread to the call that waits for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Progress:
    """Revaluations done of those estimated. One thread counts, another may read at any moment."""

    total: int  # revaluations, estimated
    done: int = 0
    _most: float = 0.0

    def begin(self) -> None:
        """The computation starts, perhaps over again on another engine."""
        self.done = 0

    def add(self, revaluations: int) -> None:
        """So many more are done."""
        self.done += revaluations

    def fraction(self) -> float:
        """0 to 1; never falls, and is 1 only by an estimate that was too low."""
        self._most = max(self._most, min(1.0, self.done / max(1, self.total)))
        return self._most
