"""Every instrument of the market in one table: each underlying, followed by its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from market_sim.chains import OptionChain


@dataclass(frozen=True, slots=True)
class Listing:
    """One row per instrument; `first` has the row of each underlying, and the number of rows at its end."""

    symbols: tuple[str, ...]
    first: NDArray[np.intp]
    owner: NDArray[np.intp]  # place of the underlying
    is_option: NDArray[np.bool_]
    expiry_time_ns: NDArray[np.int64]
    strike: NDArray[np.float64]
    is_call: NDArray[np.bool_]
    american: NDArray[np.bool_]
    tick: NDArray[np.float64]  # of underlyings; options have ticks by price
    rate: NDArray[np.float64]
    dividend_yield: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.symbols)

    def options_of(self, place: int) -> NDArray[np.intp]:
        """Rows of the options on the underlying at `place`."""
        return np.arange(self.first[place] + 1, self.first[place + 1])


def listing_of(chains: Sequence[OptionChain]) -> Listing:
    """The table of these chains and their underlyings."""
    sizes = np.array([1 + len(chain) for chain in chains])
    owner = np.repeat(np.arange(len(chains)), sizes)
    first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)
    is_option = np.ones(len(owner), dtype=np.bool_)
    is_option[first[:-1]] = False
    underlyings = [chain.underlying for chain in chains]

    def of_owner(name: str) -> NDArray[np.float64]:
        return np.array([getattr(u, name) for u in underlyings], dtype=np.float64)[owner]

    def of_option(name: str, none: float) -> NDArray[np.generic]:
        columns: list[NDArray[np.generic]] = []
        for chain in chains:
            column = getattr(chain, name)
            columns += [np.array([none], dtype=column.dtype), column]
        return np.concatenate(columns)

    return Listing(
        symbols=tuple(s for chain in chains for s in (chain.underlying.symbol, *chain.symbols)),
        first=first,
        owner=owner,
        is_option=is_option,
        expiry_time_ns=of_option("expiry_time_ns", 0).astype(np.int64),
        strike=of_option("strike", 0.0).astype(np.float64),
        is_call=of_option("is_call", 0).astype(np.bool_),
        american=of_option("american", 0).astype(np.bool_),
        tick=of_owner("tick"),
        rate=of_owner("rate"),
        dividend_yield=of_owner("dividend_yield"),
    )
