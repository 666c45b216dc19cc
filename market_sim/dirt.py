"""Faults of a feed, injected by seed: what the normaliser has to catch."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from market_sim.raw_columns import RawColumns


@dataclass(frozen=True, slots=True)
class Dirt:
    """The share of quotes and trades that suffers each fault."""

    gaps: float = 0.0  # events lost on the way: their sequence numbers are missing
    duplicates: float = 0.0  # events sent twice
    crossed: float = 0.0  # bid and ask the wrong way round
    stale: float = 0.0  # stamped `stale_by_ns` too early
    nan: float = 0.0  # a price that is no number
    spikes: float = 0.0  # prices ten times too high
    stale_by_ns: int = 10_000_000_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "stale_by_ns" and not 0 <= value <= 1:
                raise ValueError(f"{field.name}: must lie in [0, 1], got {value}")


def soil(columns: RawColumns, dirt: Dirt, random: np.random.Generator) -> RawColumns:
    """The events with faults in them; sequence numbers stay those of the clean events."""
    count = len(columns)
    hit = {
        name: random.random(count) < getattr(dirt, name)
        for name in ("gaps", "duplicates", "crossed", "stale", "nan", "spikes")
    }
    bid, ask, price = columns.bid.copy(), columns.ask.copy(), columns.price.copy()
    time = columns.source_time_ns.copy()
    crossed = hit["crossed"] & (bid > 0)
    bid[crossed], ask[crossed] = columns.ask[crossed], columns.bid[crossed]
    for column in (bid, ask, price):
        column[hit["nan"]] = np.nan
        column[hit["spikes"]] *= 10.0
    time[hit["stale"]] -= dirt.stale_by_ns
    soiled = columns.with_values(bid=bid, ask=ask, price=price, source_time_ns=time)
    times_sent = np.where(hit["gaps"], 0, np.where(hit["duplicates"], 2, 1))
    return soiled.take(np.repeat(np.arange(count), times_sent))
