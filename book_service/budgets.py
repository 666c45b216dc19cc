"""Limits that span partitions, split into budgets; and split anew without their sum ever being above them.

First every partition lowers what becomes smaller. Only when all have said so are the others raised: at every
moment the budgets add up to at most the larger of the old limit and the new. A crash in between leaves them
too low, never too high. Each splitting is a turn; a partition that has lowered for a later turn raises for no
earlier one, so that two that run at once cannot add up either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from book_service.matching import ControlCommand, Controls, Limit
from protos.control_commands import ControlRow, control_batch
from protos.orders.v1.orders_pb2 import OrderBatch
from service_kit.errors import AlreadyChanged
from service_kit.kafka.control_log import Acknowledged, Answer

NO_LIMIT: Final = -1
# What spans symbols; any other limit is of one symbol, or of an account in one symbol: of one partition.
SPLIT: Final = (Limit.OPEN_EXPOSURE, Limit.LOSS, Limit.MESSAGE_RATE, Limit.EXECUTION_RATE, Limit.BREAKER_LOSS)

# Writes a batch to each partition named and returns what they answered.
Send = Callable[[Mapping[int, OrderBatch]], list[Acknowledged]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A limit's new total over all partitions, in the venue's units; `account` None: every account's."""

    limit: Limit
    account: int | None
    total: int


@dataclass(frozen=True, slots=True)
class Budget:
    """What is in force on one partition, and the value of the account's open orders there."""

    limit: Limit
    account: int | None
    partition: int
    value: int
    open_value: int


def shares(total: int, weights: Sequence[int]) -> tuple[int, ...]:
    """The total in whole parts, near to the weights (equal, if all are nought), adding up to exactly it."""
    if total < 0:
        return (NO_LIMIT,) * len(weights)
    if any(weight < 0 for weight in weights):
        raise ValueError(f"weights: not below nought, not {min(weights)}")
    base = list(weights) if any(weights) else [1] * len(weights)
    exact = [Fraction(total * weight, sum(base)) for weight in base]
    parts = [int(one) for one in exact]
    # What rounding down has left goes to those that lost most by it, the first ones where they are equal.
    order = sorted(range(len(parts)), key=lambda place: (parts[place] - exact[place], place))
    for place in order[: total - sum(parts)]:
        parts[place] += 1
    return tuple(parts)


def shares_by_use(total: int, used: Sequence[int]) -> tuple[int, ...]:
    """Each partition gets what it uses; what is left goes half to all alike, half as it is used."""
    left = total - sum(used)
    if total < 0 or left <= 0:
        return shares(total, used)
    even, more = shares(left // 2, [1] * len(used)), shares(left - left // 2, used)
    return tuple(sum(parts) for parts in zip(used, even, more, strict=True))


def first_controls(controls: Controls, partitions: int) -> Controls:
    """What one partition starts with: its equal share of every limit that spans partitions.

    The smallest share: controls are the same for all partitions, and the sum must not be above the whole.
    """

    def part(value: int | None) -> int | None:
        return None if value is None else value // partitions

    return replace(
        controls,
        open_exposure=part(controls.open_exposure),
        loss=part(controls.loss),
        message_rate=part(controls.message_rate),
        execution_rate=part(controls.execution_rate),
        breaker_loss_ppm=part(controls.breaker_loss_ppm),
    )


@dataclass(frozen=True, slots=True)
class Splitter:
    """Carries a splitting out on all partitions."""

    send: Send
    partitions: int
    time_ns: Callable[[], int]
    client: str = ""

    def split(
        self, wanted: Sequence[Wanted], capital: Mapping[int, int] | None = None, *, by_use: bool = False
    ) -> list[Budget]:
        """Sets limits; the budgets as every partition has acknowledged them. `capital` is whole everywhere.

        AlreadyChanged: another splitting came in between; what was lowered stays so.
        """
        turn = self.time_ns()
        targets = {one: shares(one.total, [1] * self.partitions) for one in wanted}
        if by_use:
            told = self._all(ControlCommand.LOWER_LIMIT, dict.fromkeys(wanted, self._nothing()), turn=0)
            targets = {
                one: shares_by_use(one.total, [answer.amount for answer in told[one]]) for one in wanted
            }
        self._all(ControlCommand.LOWER_LIMIT, targets, turn)
        # A capital is a figure of the account, no limit to be shared; the breaker's budgets are parts of it.
        for account, value in (capital or {}).items():
            row = ControlRow(ControlCommand.SET_CAPITAL, account, value=value)
            self._checked([[row]] * self.partitions)
        return self._budgets(self._all(ControlCommand.RAISE_LIMIT, targets, turn))

    def tell(self, account: int | None) -> list[Budget]:
        """What is in force; the breaker's limit, which is of all accounts together, among it."""
        whom = {limit: None if limit is Limit.BREAKER_LOSS else account for limit in SPLIT}
        asked = {Wanted(limit, whom[limit], NO_LIMIT): self._nothing() for limit in SPLIT}
        return self._budgets(self._all(ControlCommand.LOWER_LIMIT, asked, turn=0))

    def _nothing(self) -> tuple[int, ...]:
        return (NO_LIMIT,) * self.partitions

    def _all(
        self, command: ControlCommand, values: Mapping[Wanted, tuple[int, ...]], turn: int
    ) -> dict[Wanted, list[Answer]]:
        """One command for each limit, with each partition's own value; its answers by partition."""
        if not values:
            return {}
        rows = [
            [ControlRow(command, one.account, one.limit, parts[home], turn) for one, parts in values.items()]
            for home in range(self.partitions)
        ]
        answers = self._checked(rows)
        return {one: [by_home[place] for by_home in answers] for place, one in enumerate(values)}

    def _checked(self, rows: Sequence[Sequence[ControlRow]]) -> list[list[Answer]]:
        now = self.time_ns()
        batches = {home: control_batch(some, now, self.client) for home, some in enumerate(rows)}
        found = self.send(batches)
        for one in found:
            if not all(answer.accepted for answer in one.answers):
                raise AlreadyChanged(
                    "limits",
                    f"partition {one.partition}",
                    "another change of limits came in between (or its clock is ahead); try again",
                )
        return [one.answers for one in found]

    def _budgets(self, answers: Mapping[Wanted, list[Answer]]) -> list[Budget]:
        return [
            Budget(one.limit, one.account, home, answer.value, answer.amount)
            for one, by_home in answers.items()
            for home, answer in enumerate(by_home)
        ]
