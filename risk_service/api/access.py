"""Who may see and change which portfolio: its owner, and whom the settings name; nobody else."""

from __future__ import annotations

from dataclasses import dataclass

from risk_service.portfolios import HeldPortfolio
from service_kit.errors import PermissionDenied


@dataclass(frozen=True, slots=True)
class Access:
    """Readers see every portfolio, writers also change every one. `everyone`: no callers are told apart."""

    readers: frozenset[str] = frozenset()
    writers: frozenset[str] = frozenset()
    everyone: bool = False

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
