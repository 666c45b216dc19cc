"""Control commands of the venue as messages, for whoever may send them: one row of a batch each.

They span symbols and go to every partition alike, so they name no symbol. Amounts are the venue's own units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protos import packing
from protos.orders.v1.orders_pb2 import (
    ACTION_CONTROL,
    CONTROL_FLAG_ALL_ACCOUNTS,
    CONTROL_FLAG_ALL_SYMBOLS,
    OrderBatch,
)

ANY_SYMBOL = "*"  # the reports need a name where there is none


@dataclass(frozen=True, slots=True)
class ControlRow:
    """One command; `account` None: every account, also those not seen yet."""

    command: int
    account: int | None = None
    limit: int = 0
    value: int = 0
    turn: int = 0


def control_batch(rows: Sequence[ControlRow], time_ns: int, client: str = "") -> OrderBatch:
    """The commands in their order, at one time; `client` is who sends them."""
    batch = OrderBatch(symbols=[ANY_SYMBOL], symbol_index=[0], client=client)
    every = CONTROL_FLAG_ALL_SYMBOLS | CONTROL_FLAG_ALL_ACCOUNTS
    flags = [every if row.account is None else CONTROL_FLAG_ALL_SYMBOLS for row in rows]
    packing.write(batch, "action", [ACTION_CONTROL])
    packing.write(batch, "kind", [row.command for row in rows])
    packing.write(batch, "flags", flags)
    packing.write(batch, "account", [row.account or 0 for row in rows])
    packing.write(batch, "time_in_force", [row.limit for row in rows])
    packing.write(batch, "price_ticks", [row.value for row in rows])
    packing.write(batch, "stop_price_ticks", [row.turn for row in rows])
    packing.write(batch, "time_ns", [time_ns])
    return batch
