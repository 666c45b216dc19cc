"""Which of several sources of one symbol is the one to believe.

Sources are ranked; the rules, symbol by symbol:

- A source is silent once the newest event of any ranked source is later than its own last by the limit. The
  times are those that the sources put on their events, so their clocks must agree better than that. One batch
  moves the newest time by the limit at most: a single event with a wild time silences nobody.
- A source whose book waits for a snapshot cannot be active while another can.
- The active source stays so while it is neither silent nor without a book. Then the best-ranked one that can
  takes over. A better-ranked one that came back takes over again after enough events.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FailoverRules:
    """Which sources stand in for each other, best first; none: every source is passed on."""

    sources: tuple[str, ...] = ()
    silent_after_ns: int = 3_000_000_000
    return_after_events: int = 20  # in order, from a better source that was silent, before it is active again


@dataclass(slots=True)
class _Seen:
    last_ns: int
    steady: int = 0  # events since it came, or came back
    usable: bool = True


@dataclass(slots=True)
class _Symbol:
    newest_ns: int
    active: str | None = None
    seen: dict[str, _Seen] = field(default_factory=dict)


@dataclass(slots=True)
class Failover:
    """Remembers for each symbol (the house's name) who was heard when, and who is active."""

    rules: FailoverRules = field(default_factory=FailoverRules)
    _symbols: dict[str, _Symbol] = field(default_factory=dict)

    def heard(self, symbol: str, source: str, time_ns: int, events: int, *, usable: bool) -> bool:
        """Takes note of a batch's events (the latest at `time_ns`); whether `source` is active after them."""
        limit = self.rules.silent_after_ns
        state = self._symbols.get(symbol)
        if state is None:
            state = self._symbols[symbol] = _Symbol(time_ns)
        seen = state.seen.get(source)
        if seen is None:
            seen = state.seen[source] = _Seen(time_ns)
        state.newest_ns = max(state.newest_ns, min(time_ns, state.newest_ns + limit))
        if state.newest_ns - seen.last_ns > limit or not usable:
            seen.steady = 0
        seen.last_ns = max(seen.last_ns, min(time_ns, state.newest_ns))
        seen.steady, seen.usable = seen.steady + events, usable
        state.active = self._choose(state)
        return state.active == source

    def active(self, symbol: str) -> str | None:
        """The source that is passed on for a symbol; None before any was heard."""
        state = self._symbols.get(symbol)
        return state.active if state else None

    def _choose(self, state: _Symbol) -> str | None:
        alive = [source for source in self.rules.sources if self._alive(state, source)]
        able = [source for source in alive if state.seen[source].usable] or alive
        if state.active not in able:
            return able[0] if able else state.active
        for source in able:
            if source == state.active or state.seen[source].steady >= self.rules.return_after_events:
                return source
        return state.active

    def _alive(self, state: _Symbol, source: str) -> bool:
        seen = state.seen.get(source)
        return seen is not None and state.newest_ns - seen.last_ns <= self.rules.silent_after_ns
