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
from risk_service.desk_risk import DeskRisk
from risk_service.live_risk import ScenarioSource, stress_scenarios, tail_message
from risk_service.live_snapshot import LiveSnapshot, NotYet, SnapshotDesk
from risk_service.price_history import BUSINESS_DAYS_PER_YEAR
from risk_service.valuation import Book
from risk_service.wide_premiums import WidePremiums
from service_kit.errors import QuotaExceeded, Unavailable
from service_kit.lifecycle import Stop

LOG = logging.getLogger(__name__)

SCENARIOS = 4_096
SEED = 20_240
EVERY_S = 0.8
# Each is read in every scenario, at about 0.1 ms, and takes 2 KB.
AMERICAN_CONTRACTS_MAX = 4_000


@dataclass(frozen=True, slots=True)
class SlowNumbers:
    """A book's Monte-Carlo tail at one moment of the market."""

    book: Book
    tail: TailRisk
    component_es: tuple[float, ...]  # per underlying of the book; they add up to the ES
    time_ns: int  # by the source's clock


@dataclass(slots=True)
class MonteCarloSource(ScenarioSource):
    """Scenarios of a day drawn from the history's covariance, jointly, the same at every start.

    Each vol moves with its underlying as it did in the history: by the slope of its regression.
    """

    _joint: gk.Scenarios | None = None

    def _make(self, underlyings: tuple[str, ...]) -> tuple[gk.Scenarios, int, str]:
        stresses = stress_scenarios(len(underlyings))
        if self.history is None:
            return stresses, 0, "no price history is loaded"
        every = self.history.underlyings
        missing = [name for name in underlyings if name not in every]
        if missing:
            return stresses, 0, f"no price history of {missing[0]}"
        if self._joint is None:
            days = min(self.days, self.history.days)
            self._joint = gk.simulate_scenarios(
                SCENARIOS,
                mean=[0.0] * len(every),
                cov=self.history.covariance(every, days).cov,
                seed=SEED,
                horizon=1.0 / BUSINESS_DAYS_PER_YEAR,
                vol_beta=_vol_betas(self.history.closes[-days - 1 :], self.history.vols[-days - 1 :]),
            )
        returns, columns = self._joint.spot_return, [every.index(name) for name in underlyings]
        own = gk.Scenarios(
            spot_return=returns[:, columns],
            # One column where no vol moves.
            vol_change=np.broadcast_to(self._joint.vol_change, returns.shape)[:, columns],
            elapsed=self._joint.elapsed,
        )
        return gk.Scenarios.stacked([own, stresses]), SCENARIOS, ""


@dataclass(slots=True)
class SlowRisk:
    """Measures every live book under the Monte-Carlo scenarios, again and again."""

    risk: DeskRisk
    level: float
    latest: dict[str, SlowNumbers] = field(default_factory=dict)  # replaced as a whole
    _held: list[Book] = field(default_factory=list)
    _said: str = ""

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
                self.update(snapshot, stop)
            except NotYet:
                LOG.debug("the logs are still being read; Monte Carlo waits")
            except (Unavailable, CancelledError):
                return
            except QuotaExceeded:
                LOG.info("the live loop is busy; Monte Carlo waits")
            stop.wait(max(0.0, EVERY_S - (time.monotonic() - began)))

    def update(self, snapshot: LiveSnapshot, stop: Stop) -> None:
        """As `measure`; where the engine refuses, every book is told why it has no numbers."""
        try:
            self.measure(snapshot, stop)
        except gk.GpuKernelsError as refusal:
            # One contract that the engine refuses: nobody's numbers can be trusted to be without it.
            self.latest = {book.held.name: self._none(book, str(refusal)) for book in self._held}
            self._say(str(refusal))

    def measure(self, snapshot: LiveSnapshot, stop: Stop) -> None:
        """All books of the snapshot; where they hold too many American contracts each is told so."""
        books = [book for _, book in sorted(snapshot.books.items())]
        if not books or not snapshot.market.clocks.source_time_ns:
            self.latest = {}
            return
        if len(books) != len(self._held) or any(a is not b for a, b in zip(books, self._held, strict=True)):
            self.risk.hold(books)
            self._held = books
        american = sum(len(block.american) for block in self.risk.desk.blocks)
        if american > AMERICAN_CONTRACTS_MAX:
            why = (
                f"no Monte-Carlo risk: the books hold {american} American contracts, "
                f"{AMERICAN_CONTRACTS_MAX} are the most"
            )
            self.latest = {book.held.name: self._none(book, why) for book in books}
            self._say(why)
            return
        marks = snapshot.marks.copy()
        for block in self.risk.desk.blocks:
            # A stop must not wait for tables that nobody will read.
            if stop.is_set():
                return
            self.risk.measure(snapshot.market, marks, {block.name})
        time_ns = snapshot.market.clocks.source_time_ns
        self.latest = {
            book.held.name: self._numbers(number, book, time_ns) for number, book in enumerate(books)
        }

    def _numbers(self, number: int, book: Book, time_ns: int) -> SlowNumbers:
        numbers = self.risk.numbers(number)
        pnl = numbers.historical_pnl
        if not pnl.size:
            return self._none(book, numbers.why_no_history, time_ns)
        try:
            tail = tail_scenarios(pnl, self.level)
        except gk.InvalidInput as refusal:
            # A position beyond all numbers takes the tail from its own book only.
            return self._none(book, f"no Monte-Carlo risk: {refusal}", time_ns)
        inside = self.risk.pnl_by_underlying(number)[:, tail.index]
        components = tuple((-(inside @ tail.weight)).tolist())
        return SlowNumbers(book, tail_message(gk.tail_risk(pnl, self.level)), components, time_ns)

    def _none(self, book: Book, why: str, time_ns: int = 0) -> SlowNumbers:
        none = TailRisk(level=self.level, warnings=[why])
        none.value_at_risk = none.expected_shortfall = float("nan")
        return SlowNumbers(book, none, (), time_ns)

    def _say(self, why: str) -> None:
        """Once, not every second."""
        if why != self._said:
            self._said = why
            LOG.warning("%s", why)


def _vol_betas(closes: NDArray[np.float64], vols: NDArray[np.float64]) -> NDArray[np.float64]:
    """Change of each vol per unit of its underlying's log return, by regression over the days."""
    returns, changes = np.diff(np.log(closes), axis=0), np.diff(vols, axis=0)
    returns = returns - returns.mean(axis=0)
    variance = np.square(returns).sum(axis=0)
    slope = (returns * (changes - changes.mean(axis=0))).sum(axis=0)
    return np.asarray(np.divide(slope, variance, out=np.zeros_like(slope), where=variance > 0.0))
