"""How much one principal, and all together, may ask: a token bucket for the rate, a count of open calls."""

from __future__ import annotations

from collections import OrderedDict

from service_kit.errors import QuotaExceeded
from service_kit.grpc_server.settings import GrpcSettings

# When an open call ends nobody knows; this keeps a refused client from spinning.
RETRY_WHEN_BUSY_S = 0.1
TRIES = 16  # principals looked at to make room for a new one


class Account:
    """One principal: calls it may still make, when that was counted (seconds), calls it has open."""

    __slots__ = ("at", "left", "name", "open")

    def __init__(self, name: str, left: float, at: float) -> None:
        self.name, self.left, self.at, self.open = name, left, at, 0


class Quotas:
    """Admission of calls; O(1) each, memory bounded by `max_principals`."""

    def __init__(self, settings: GrpcSettings) -> None:
        self._rate, self._burst = settings.rate_per_principal, float(settings.burst_per_principal)
        self._max_open, self._max_each = settings.max_calls, settings.max_calls_per_principal
        self._max_accounts = settings.max_principals
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self.open = 0

    @property
    def principals(self) -> int:
        """Principals remembered now."""
        return len(self._accounts)

    def enter(self, principal: str, now: float) -> Account:
        """Count a call in, at `now` seconds of a monotonic clock; raises QuotaExceeded; undone by `leave`."""
        account = self._accounts.get(principal)
        if account is None:
            account = self._new_account(principal, now)
        else:
            self._accounts.move_to_end(principal)
        account.left = min(self._burst, account.left + (now - account.at) * self._rate)
        account.at = now
        if account.left < 1.0:
            wait = (1.0 - account.left) / self._rate
            raise QuotaExceeded(f"more than {self._rate:g} calls per second", wait)
        if account.open >= self._max_each:
            raise QuotaExceeded(
                f"{account.open} calls open already, the most for one principal", RETRY_WHEN_BUSY_S
            )
        if self.open >= self._max_open:
            raise QuotaExceeded(f"{self.open} calls open already, the most of this server", RETRY_WHEN_BUSY_S)
        account.left -= 1.0
        account.open += 1
        self.open += 1
        return account

    def leave(self, account: Account) -> None:
        """Count a call out."""
        account.open -= 1
        self.open -= 1

    def _new_account(self, principal: str, now: float) -> Account:
        if len(self._accounts) >= self._max_accounts:
            self._forget_one(now)
        account = self._accounts[principal] = Account(principal, self._burst, now)
        return account

    def _forget_one(self, now: float) -> None:
        """Forget a long unseen principal, if forgetting gives it nothing: bucket full, no call open."""
        missing = 0.0
        for _ in range(min(TRIES, len(self._accounts))):
            name, oldest = next(iter(self._accounts.items()))
            missing = self._burst - oldest.left - (now - oldest.at) * self._rate
            if not oldest.open and missing <= 0:
                del self._accounts[name]
                return
            # One with a long call open must not keep the others in.
            self._accounts.move_to_end(name)
        retry = max(RETRY_WHEN_BUSY_S, missing / self._rate)
        raise QuotaExceeded(f"{self._max_accounts} principals are active, the most of this server", retry)
