"""Sample portfolios of options desks on the simulated market."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from market_sim.chains import OPTION_MULTIPLIER, OptionChain
from market_sim.streams import stream
from protos import packing
from protos.risk.v1.risk_pb2 import (
    INSTRUMENT_KIND_FUTURE,
    INSTRUMENT_KIND_OPTION,
    INSTRUMENT_KIND_SPOT,
    Portfolio,
    Positions,
)

FUTURE_MULTIPLIER = 50.0
_DESKS = ("index vol", "dispersion", "single names", "tail hedges")


def sample_portfolios(
    chains: Sequence[OptionChain], seed: int, count: int, positions: int
) -> list[Portfolio]:
    """`count` portfolios of `positions` rows: options by desks, spot and futures against their delta."""
    if positions < 1:
        raise ValueError(f"positions: must be at least 1, got {positions}")
    return [_portfolio(chains, seed, number, positions) for number in range(count)]


def _portfolio(chains: Sequence[OptionChain], seed: int, number: int, positions: int) -> Portfolio:
    random = stream(seed, "portfolio", number)
    linear = min(2 * len(chains), positions // 4)
    owner, row, group = _pick_options(random, chains, positions - linear)
    quantity = _quantities(random, chains, owner, row, group)
    portfolio = Portfolio(
        portfolio=f"desk-{number + 1}",
        underlyings=[chain.underlying.symbol for chain in chains],
        groups=_DESKS,
        positions=Positions(
            symbol=[chains[o].symbols[r] for o, r in zip(owner.tolist(), row.tolist(), strict=True)]
        ),
    )
    against = np.arange(linear) % len(chains)
    future = np.arange(linear) >= len(chains)
    rows = portfolio.positions
    rows.symbol.extend(chains[place].underlying.symbol for place in against.tolist())
    kinds = np.where(future, INSTRUMENT_KIND_FUTURE, INSTRUMENT_KIND_SPOT)
    hedges = _hedges(chains, owner, row, quantity, against, future)
    nearest = np.array([chain.expiry_time_ns.min() for chain in chains], dtype=np.int64)
    soonest = np.where(future, nearest[against], 0)

    def both(name: str, options: list[float] | NDArray[np.generic], others: object) -> None:
        packing.write(
            rows, name, np.concatenate([np.asarray(options), np.broadcast_to(np.asarray(others), linear)])
        )

    both("underlying_index", owner, against)
    both("kind", np.full(len(owner), INSTRUMENT_KIND_OPTION), kinds)
    both("quantity", quantity, hedges)
    both("multiplier", np.full(len(owner), OPTION_MULTIPLIER), np.where(future, FUTURE_MULTIPLIER, 1.0))
    both("expiry_time_ns", _column(chains, owner, row, "expiry_time_ns"), soonest)
    both("strike", _column(chains, owner, row, "strike"), 0.0)
    both("is_call", _column(chains, owner, row, "is_call"), False)
    both("american", _column(chains, owner, row, "american"), False)
    both("group_index", group, against % len(_DESKS))
    return portfolio


def _pick_options(
    random: np.random.Generator, chains: Sequence[OptionChain], count: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Owner (place in `chains`), row and desk of each position; an option recurs once all are held."""
    owners = np.repeat(np.arange(len(chains)), [len(chain) for chain in chains])
    rows = np.concatenate([np.arange(len(chain)) for chain in chains])
    rounds = -(-count // len(owners))
    order = np.concatenate([random.permutation(len(owners)) for _ in range(rounds)])[:count]
    return owners[order], rows[order], random.integers(0, len(_DESKS), count)


def _quantities(
    random: np.random.Generator,
    chains: Sequence[OptionChain],
    owner: NDArray[np.intp],
    row: NDArray[np.intp],
    group: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Contracts: lots of heavy-tailed size, fewer where the underlying is dear; desks lean to a side."""
    spot = np.array([chain.underlying.spot for chain in chains])[owner]
    contracts = np.ceil(2000.0 / spot * (1 + random.pareto(2.0, len(owner))))
    lean = np.array([0.40, 0.50, 0.55, 0.85])[group]  # chance of being long
    return np.where(random.random(len(owner)) < lean, contracts, -contracts)


def _hedges(
    chains: Sequence[OptionChain],
    owner: NDArray[np.intp],
    row: NDArray[np.intp],
    quantity: NDArray[np.float64],
    against: NDArray[np.intp],
    future: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Spot and futures that take off most of the options' delta, guessed from moneyness alone."""
    spot = np.array([chain.underlying.spot for chain in chains])[owner]
    strike, is_call = _column(chains, owner, row, "strike"), _column(chains, owner, row, "is_call")
    delta = np.clip(0.5 + 2.5 * np.log(spot / strike), 0.0, 1.0) - np.where(is_call, 0.0, 1.0)
    total = np.bincount(owner, quantity * OPTION_MULTIPLIER * delta, minlength=len(chains))
    # 40 % in spot, 40 % in futures; what is left is the desk's view.
    return np.round(-0.4 * total[against] / np.where(future, FUTURE_MULTIPLIER, 1.0))


def _column(
    chains: Sequence[OptionChain], owner: NDArray[np.intp], row: NDArray[np.intp], name: str
) -> NDArray[np.generic]:
    starts = np.cumsum([0] + [len(chain) for chain in chains[:-1]])
    joined = np.concatenate([getattr(chain, name) for chain in chains])
    return np.asarray(joined[starts[owner] + row])
