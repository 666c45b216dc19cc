"""Who may send orders for which accounts, and who may command: whom the settings name, nobody else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service_kit.errors import PermissionDenied, SettingError

ACCOUNT_LAST: Final = (1 << 32) - 1

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Access:
    """Operators may all, traders what their accounts allow. `everyone`: no callers are told apart."""

    operators: frozenset[str] = frozenset()
    accounts: Mapping[str, tuple[Range, ...]] = field(default_factory=dict)
    everyone: bool = False

    @classmethod
    def of(cls, operators: Iterable[str], accounts: Iterable[str], *, everyone: bool = False) -> Access:
        """From settings, accounts each "PRINCIPAL=ACCOUNT" or "PRINCIPAL=FIRST-LAST"."""
        found: dict[str, tuple[Range, ...]] = {}
        for entry in accounts:
            principal, _, numbers = entry.rpartition("=")
            first, _, last = numbers.partition("-")
            last = last or first
            if not (principal and all(one.isascii() and one.isdigit() for one in (first, last))):
                raise SettingError("book.accounts", f"{entry!r} is not PRINCIPAL=ACCOUNT or =FIRST-LAST")
            if not int(first) <= int(last) <= ACCOUNT_LAST:
                raise SettingError("book.accounts", f"{entry!r}: accounts go up, to at most {ACCOUNT_LAST}")
            found[principal] = (*found.get(principal, ()), (int(first), int(last)))
        return cls(frozenset(operators), found, everyone)

    def expect_operator(self, principal: str, what: str) -> None:
        """Refuses a caller that is no operator."""
        if not self.everyone and principal not in self.operators:
            raise PermissionDenied(f"{principal!r} is no operator and may not {what}")

    def expect_accounts(self, principal: str, accounts: NDArray[np.unsignedinteger]) -> None:
        """Refuses a caller that may not send for one of these accounts, naming it."""
        if self.everyone or principal in self.operators:
            return
        mine = np.zeros(len(accounts), np.bool_)
        for first, last in self.accounts.get(principal, ()):
            mine |= (accounts >= first) & (accounts <= last)
        if not mine.all():
            other = int(accounts[np.argmin(mine)])
            raise PermissionDenied(f"{principal!r} may not send orders for account {other}")
