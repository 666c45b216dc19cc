"""Monte-Carlo ES and where it comes from, beside the live loop: at lower priority, about once a second.

Works on snapshots of the live state, in a process of its own (`slow_process`) or, where the engine has one
already, in a thread; the loop tells the newest result, and how old it is, with each of its numbers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.tail_risk import tail_scenarios
from protos.risk.v1.risk_pb2 import TailRisk
from risk_service.analytics import Analytics, Result
from risk_service.book_parts import BookParts
from risk_service.desk import Desk
from risk_service.desk_risk import DeskRisk
from risk_service.live_risk import ScenarioSource, tail_message
from risk_service.live_snapshot import LiveSnapshot, NotYet, SnapshotDesk
from risk_service.price_history import BUSINESS_DAYS_PER_YEAR, PriceHistory
from risk_service.valuation import Book
from risk_service.wide_premiums import WidePremiums
from service_kit.errors import QuotaExceeded, Unavailable
from service_kit.lifecycle import Stop

LOG = logging.getLogger(__name__)

SCENARIOS = 4_096
SEED = 20_240
EVERY_S = 0.8
# Each takes 0.4 ms when its interpolant is made and 0.02 at each look, and 2 KB.
AMERICAN_CONTRACTS_MAX = 20_000
SAID_MAX = 100  # reasons that are remembered, not to be logged every second
# Underlyings of groups, counted beyond those of the books: each is a number per scenario, 32 KiB.
CELLS_MAX = 8_192


@dataclass(frozen=True, slots=True)
class SlowNumbers:
    """A book's Monte-Carlo tail at one moment of the market."""

    book: Book
    tail: TailRisk
    component_es: tuple[float, ...]  # per underlying of the book; they add up to the ES
    component_es_by_group: tuple[float, ...]  # the same per group; none where the book has none
    time_ns: int  # by the source's clock


@dataclass(slots=True)
class MonteCarloSource(ScenarioSource):
    """Scenarios of a day drawn from the history's covariance, jointly, the same at every start.

    Each vol moves with its underlying as it did in the history: by the slope of its regression.
    """

    _joint: gk.Scenarios | None = None

    def _make(self, history: PriceHistory, underlyings: tuple[str, ...]) -> gk.Scenarios:
        if self._joint is None:
            days = min(self.days, history.days)
            self._joint = gk.simulate_scenarios(
                SCENARIOS,
                mean=[0.0] * len(history.underlyings),
                cov=history.covariance(history.underlyings, days).cov,
                seed=SEED,
                horizon=1.0 / BUSINESS_DAYS_PER_YEAR,
                vol_beta=_vol_betas(history.closes[-days - 1 :], history.vols[-days - 1 :]),
            )
        returns, columns = self._joint.spot_return, [history.place[name] for name in underlyings]
        return gk.Scenarios(
            spot_return=returns[:, columns],
            # One column where no vol moves.
            vol_change=np.broadcast_to(self._joint.vol_change, returns.shape)[:, columns],
            elapsed=self._joint.elapsed,
        )


@dataclass(slots=True)
class SlowRisk:
    """Measures every live book under the Monte-Carlo scenarios, again and again."""

    risk: DeskRisk
    level: float
    latest: dict[str, SlowNumbers] = field(default_factory=dict)  # replaced as a whole
    _held: list[Book] = field(default_factory=list)
    _left_out: dict[str, str] = field(default_factory=dict)  # books held that are not measured, and why
    _measured: list[BookParts] = field(default_factory=list)  # the others
    _parts: dict[int, BookParts] = field(default_factory=dict)  # of the books held, by their id
    _said: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, engine: gk.Engine, source: ScenarioSource, level: float) -> SlowRisk:
        """Over its own desk, with the history of the live one."""
        scenarios = MonteCarloSource(source.history, source.days)
        # The stresses are the live loop's: a second horizon would double what interpolants cost.
        premiums = WidePremiums(gk.engine("cpu"), with_points=False)
        risk = DeskRisk(engine, scenarios, premiums, with_stresses=False)
        return cls(risk, level)

    def run(self, desk: SnapshotDesk, tell: Callable[[Sequence[Result]], None], stop: Stop) -> None:
        """Until told to stop, or until the live market is not followed any more; `tell` gets analytics."""
        analytics = Analytics()
        while not stop.is_set():
            began = time.monotonic()
            try:
                snapshot = desk.ask().result()
                tell(analytics.results(snapshot.bars))
                self.measure(snapshot, stop)
            except NotYet:
                LOG.debug("the logs are still being read; Monte Carlo waits")
            except (Unavailable, CancelledError):
                return
            except QuotaExceeded:
                LOG.info("the live loop is busy; Monte Carlo waits")
            stop.wait(max(0.0, EVERY_S - (time.monotonic() - began)))

    def measure(self, snapshot: LiveSnapshot, stop: Stop) -> None:
        """All books of the snapshot, but those that hold more American contracts than there is time for, and
        those with an underlying that the engine refuses: they are told so."""
        books = [book for _, book in sorted(snapshot.books.items())]
        if not books or not snapshot.market.clocks.source_time_ns:
            self.latest = {}
            return
        if len(books) != len(self._held) or any(a is not b for a, b in zip(books, self._held, strict=True)):
            self._hold(books)
        marks, refused = snapshot.marks.copy(), dict[str, str]()
        for block in self.risk.desk.blocks:
            # A stop must not wait for tables that nobody will read.
            if stop.is_set():
                return
            try:
                self.risk.measure(snapshot.market, marks, {block.name})
            except gk.GpuKernelsError as refusal:
                refused[block.name] = str(refusal)
                self._say(str(refusal))
        time_ns = snapshot.market.clocks.source_time_ns
        latest = {name: self._none(snapshot.books[name], why) for name, why in self._left_out.items()}
        first = 0
        for one in self._measured:
            book = one.book
            why = next((refused[name] for name in book.held.underlyings if name in refused), "")
            latest[book.held.name] = self._none(book, why) if why else self._numbers(first, one, time_ns)
            first += len(one.parts)
        self.latest = latest

    def _hold(self, books: list[Book]) -> None:
        """Those with the fewest American contracts first, until there are too many."""
        self._parts = {id(book): self._parts.get(id(book)) or BookParts.by_group(book) for book in books}
        held = _within_reason([self._parts[id(book)] for book in books])
        self._held, self._left_out = books, {}
        self.risk.hold([part for one in held for part in one.parts])
        too_many = _too_many(self.risk.desk, held)
        for number, count in too_many.items():
            self._left_out[books[number].held.name] = why = (
                f"no Monte-Carlo risk: the book holds {count} American contracts, and with those of smaller "
                f"books there are more than {AMERICAN_CONTRACTS_MAX}"
            )
            self._say(why)
        self._measured = [one for number, one in enumerate(held) if number not in too_many]
        if too_many:
            self.risk.hold([part for one in self._measured for part in one.parts])

    def _numbers(self, first: int, held: BookParts, time_ns: int) -> SlowNumbers:
        """Of the book whose parts are the desk's from number `first` on."""
        book, why = held.book, self.risk.scenarios.why_none(held.book.held.underlyings)
        if why:
            return self._none(book, why, time_ns)
        by_cell = self.risk.historical_by_cell(first, first + len(held.parts))
        pnl = by_cell.sum(axis=0)
        try:
            tail = tail_scenarios(pnl, self.level)
        except gk.InvalidInput as refusal:
            # A position beyond all numbers takes the tail from its own book only.
            return self._none(book, f"no Monte-Carlo risk: {refusal}", time_ns)
        components = -(by_cell[:, tail.index] @ tail.weight)
        message = tail_message(gk.tail_risk(pnl, self.level))
        by_group: list[float] = []
        if held is not self._parts[id(book)]:
            message.warnings.append(f"no components by group: the live books have more than {CELLS_MAX:,}")
        elif book.held.groups:
            by_group = held.sums_by_group(components).tolist()
        by_underlying = held.by_underlying(components).tolist()
        return SlowNumbers(book, message, tuple(by_underlying), tuple(by_group), time_ns)

    def _none(self, book: Book, why: str, time_ns: int = 0) -> SlowNumbers:
        none = TailRisk(level=self.level, warnings=[why])
        none.value_at_risk = none.expected_shortfall = float("nan")
        return SlowNumbers(book, none, (), (), time_ns)

    def _say(self, why: str) -> None:
        """Once, not every second."""
        if why not in self._said:
            if len(self._said) >= SAID_MAX:
                self._said.clear()
            self._said.add(why)
            LOG.warning("%s", why)


def _within_reason(held: list[BookParts]) -> list[BookParts]:
    """Whole books in place of those whose groups would take too much memory: those that take most."""
    left, found = CELLS_MAX, list(held)
    for number in sorted(range(len(held)), key=lambda one: held[one].more_cells):
        left -= held[number].more_cells
        if left < 0 and len(held[number].parts) > 1:
            found[number] = BookParts.whole(held[number].book)
    return found


def _too_many(desk: Desk, books: list[BookParts]) -> dict[int, int]:
    """Books that are left out, and how many American contracts each holds: those with the most."""
    if sum(len(block.american) for block in desk.blocks) <= AMERICAN_CONTRACTS_MAX:
        return {}
    edges = np.concatenate(([0], np.cumsum([len(one.parts) for one in books])))
    held = [_american(desk, *desk.first_cell[edges[n : n + 2]].tolist()) for n in range(len(books))]
    found, taken = {}, np.zeros(0, np.int64)
    for number in sorted(range(len(held)), key=lambda one: len(held[one])):
        more = np.union1d(taken, held[number])
        if len(held[number]) and len(more) > AMERICAN_CONTRACTS_MAX:
            found[number] = len(held[number])
        else:
            taken = more
    return found


def _american(desk: Desk, first: int, stop: int) -> NDArray[np.int64]:
    """The American contracts that these cells hold, each as a number."""
    parts = [np.zeros(0, np.int64)]
    for block, at in map(desk.where, range(first, stop)):
        own = np.unique(block.contract_of[block.first_position[at] : block.first_position[at + 1]])
        own = own[block.contracts["american"][own]]
        parts.append(own + (block.slot << 32))
    return np.unique(np.concatenate(parts))


def _vol_betas(closes: NDArray[np.float64], vols: NDArray[np.float64]) -> NDArray[np.float64]:
    """Change of each vol per unit of its underlying's log return, by regression over the days."""
    returns, changes = np.diff(np.log(closes), axis=0), np.diff(vols, axis=0)
    returns = returns - returns.mean(axis=0)
    variance = np.square(returns).sum(axis=0)
    slope = (returns * (changes - changes.mean(axis=0))).sum(axis=0)
    return np.asarray(np.divide(slope, variance, out=np.zeros_like(slope), where=variance > 0.0))
