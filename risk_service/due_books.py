"""Books whose numbers have changed and are not told yet: whose turn it is, and how long they have waited."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class DueBooks:
    """Owners take turns, one book each; an owner's own books go by how long they have waited.

    So nobody waits for another's many books, and a book is not told again before all of its owner's are.
    """

    _since: dict[str, float] = field(default_factory=dict)  # by book, on the monotonic clock (s)
    _turns: dict[str, dict[str, None]] = field(default_factory=dict)  # books by owner, in their order

    def __len__(self) -> int:
        return len(self._since)

    def __contains__(self, book: str) -> bool:
        return book in self._since

    def add(self, book: str, owner: str, now: float) -> None:
        """Its numbers have changed, perhaps not for the first time since they were told."""
        if book not in self._since:
            self._since[book] = now
            self._turns.setdefault(owner, {})[book] = None

    def clear(self) -> None:
        """Nobody waits any more."""
        self._since.clear()
        self._turns.clear()

    def take(self) -> Iterator[tuple[str, float]]:
        """The books, and since when they wait, as their turns come; those not asked for go on waiting."""
        while self._turns:
            owner, books = next(iter(self._turns.items()))
            del self._turns[owner]
            book = next(iter(books))
            del books[book]
            if books:
                self._turns[owner] = books
            yield book, self._since.pop(book)

    def waited_s(self, now: float) -> float:
        """How long the first of them has waited."""
        return now - min(self._since.values(), default=now)
