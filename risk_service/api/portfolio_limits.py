"""How much may be held and changed: every portfolio that is put costs the live loop, whoever put it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from protos.risk.v1.risk_pb2 import Portfolio
from risk_service.portfolios import HeldPortfolio
from service_kit.errors import QuotaExceeded, TooLarge

# A change takes the loop's time however small the portfolio is: as much as about so many positions.
CHANGE_POSITIONS_MIN = 100
# Principals remembered; of more, those whose budget is whole are forgotten.
SPENDERS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class PortfolioLimits:
    """Of the portfolios that the service holds, in all and for one owner."""

    portfolios: int = 10_000
    positions: int = 5_000_000
    # Counted portfolio by portfolio: of each, P&L under every scenario is kept, 4 KiB in the live loop and 32
    # beside it for Monte Carlo.
    underlyings: int = 30_000
    portfolios_each: int = 1_000
    positions_each: int = 1_000_000
    underlyings_each: int = 10_000
    # Positions that one principal may put, on average and in one go. Laid out again, 200,000 of them held up
    # the live risk of everybody for more than a second.
    changed_per_second: float = 20_000.0
    changed_at_once: float = 200_000.0

    def expect_room(self, held: Sequence[HeldPortfolio], put: Portfolio, owner: str | None) -> None:
        """Refuses a portfolio that would be one too many, or too large; without an owner all are alike."""
        others = [one for one in held if one.name != put.portfolio]
        new = len(others) == len(held)
        self._expect("in all", others, put, (self.portfolios, self.positions, self.underlyings), new=new)
        if owner is not None:
            own = [one for one in others if one.owner == owner]
            most = self.portfolios_each, self.positions_each, self.underlyings_each
            self._expect(f"of {owner!r}", own, put, most, new=new)

    def _expect(
        self,
        whose: str,
        others: list[HeldPortfolio],
        put: Portfolio,
        most: tuple[int, int, int],
        *,
        new: bool,
    ) -> None:
        if new and len(others) >= most[0]:
            raise TooLarge(f"portfolio: {len(others)} portfolios {whose} are the most that are held")
        for what, count, total, bound in (
            ("positions", len(put.positions.symbol), sum(map(len, others)), most[1]),
            ("underlyings", len(put.underlyings), sum(len(one.underlyings) for one in others), most[2]),
        ):
            if total + count > bound:
                raise TooLarge(
                    f"portfolio.{what}: {count} {what} would make {total + count} {whose}, "
                    f"more than the {bound} held"
                )


@dataclass(slots=True)
class ChangeBudget:
    """What each principal may still change. Used by one thread."""

    limits: PortfolioLimits
    clock: Callable[[], float] = time.monotonic
    _spent: dict[str, tuple[float, float]] = field(default_factory=dict)  # positions, and when that was

    def spend(self, principal: str, rows: int) -> None:
        """Counts a change in; QuotaExceeded with the time to wait where there have been too many."""
        now = self.clock()
        spent = self._at(principal, now)
        cost = max(rows, CHANGE_POSITIONS_MIN)
        # One change is let in whatever its size while nothing is owed: its own limits have let it through.
        excess = spent + cost - self.limits.changed_at_once
        if spent and excess > 0.0:
            wait_s = min(spent, excess) / self.limits.changed_per_second
            raise QuotaExceeded(
                f"more than {self.limits.changed_per_second:g} positions put per second by {principal!r}",
                wait_s,
            )
        if len(self._spent) >= SPENDERS_MAX:
            self._spent = {one: owed for one, owed in self._spent.items() if self._at(one, now)}
        self._spent[principal] = spent + cost, now

    def _at(self, principal: str, now: float) -> float:
        spent, at = self._spent.get(principal, (0.0, now))
        return max(0.0, spent - (now - at) * self.limits.changed_per_second)
