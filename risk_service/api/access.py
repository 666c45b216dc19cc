"""Who may see and change which portfolio: its owner, and whom the settings name; nobody else.

A name is no secret: who may not read a portfolio is told so, not that there is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from risk_service.portfolios import HeldPortfolio
from risk_service.positions import AccountRule
from service_kit.errors import PermissionDenied


@dataclass(frozen=True, slots=True)
class Access:
    """Readers see every portfolio, writers also change every one. `everyone`: no callers are told apart."""

    readers: frozenset[str] = frozenset()
    writers: frozenset[str] = frozenset()
    everyone: bool = False
    # Fills go to portfolios by name: whoever could put such a name first would see the fills of others.
    fills: AccountRule = field(default_factory=lambda: AccountRule({}))

    def may_read(self, held: HeldPortfolio, principal: str) -> bool:
        """Whether the principal may see the portfolio and its risk."""
        return self.may_write(held, principal) or principal in self.readers

    def may_write(self, held: HeldPortfolio, principal: str) -> bool:
        """Whether the principal may replace or delete the portfolio."""
        return self.everyone or held.owner == principal or principal in self.writers

    def expect_read(self, held: HeldPortfolio, principal: str) -> None:
        """Refuses a principal that may not see the portfolio."""
        if not self.may_read(held, principal):
            raise PermissionDenied(f"{principal!r} may not read portfolio {held.name!r}")

    def expect_write(self, held: HeldPortfolio, principal: str) -> None:
        """Refuses a principal that may not change the portfolio."""
        if not self.may_write(held, principal):
            raise PermissionDenied(f"{principal!r} may not change portfolio {held.name!r}")

    def owner_of_new(self, name: str, wanted: str, principal: str) -> str:
        """Who a new portfolio belongs to: who puts it, or whom a writer names.

        A name that fills are routed to is put first by a writer.
        """
        if self.everyone:
            return principal
        if principal in self.writers:
            return wanted or principal
        if self._has_fills(name):
            raise PermissionDenied(
                f"{principal!r} may not put portfolio {name!r}: fills are routed to it, so one of "
                "risk.writers puts it first, naming its owner"
            )
        return principal

    def _has_fills(self, name: str) -> bool:
        number = name.removeprefix(self.fills.prefix)
        by_prefix = bool(self.fills.prefix) and name.startswith(self.fills.prefix)
        return name in self.fills.listed.values() or (by_prefix and number.isascii() and number.isdigit())
