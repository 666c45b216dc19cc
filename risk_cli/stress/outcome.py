"""What a stress run found, whoever worked it out; P&L in currency, losses of VaR and ES positive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from risk_cli.stress.book import Cell, Layout

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Stress:
    """One stress scenario; `kind` is scenario, ladder, named or replay."""

    kind: str
    name: str
    pnl: float
    by_cell: Floats  # (C,)
    what: str = ""  # one line: what moves


@dataclass(frozen=True, slots=True)
class Ladder:
    """A grid of spot moves (rows, simple returns) and vol changes (columns, absolute)."""

    name: str
    spot: tuple[float, ...]
    vol: tuple[float, ...]
    pnl: Floats  # (spots, vols)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Losses that the past or a simulation gives, with their tail."""

    name: str
    what: str  # one line: how the scenarios were made
    labels: tuple[str, ...]  # a name per scenario: the day of the past, or its number
    pnl: Floats  # (S,)
    by_cell: Floats | None  # (C, S); None where a server keeps it to itself
    weights: Floats | None
    tails: tuple[gk.TailRisk, ...]  # by level, 97.5 % first
    components: Floats  # (P,) parts of the first ES, by position
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Exposure:
    """Sums over the positions of one underlying, per usual unit of a desk."""

    underlying: str
    spot: float
    value: float
    delta: float  # currency gained per 1.00 of relative spot move
    gamma: float  # change of `delta` when the spot moves by 1 %
    vega: float  # per vol point (0.01)
    theta: float  # per calendar day
    rho: float  # per basis point (0.0001)


@dataclass(frozen=True, slots=True)
class Usage:
    """A limit and how much of it is used; `by` names what used most."""

    scope: str  # portfolio, or empty for the whole file
    name: str
    used: float
    limit: float
    by: str

    @property
    def breached(self) -> bool:
        """Whether more than the limit is used."""
        return self.used > self.limit


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that tables, JSON and the report are made of."""

    layout: Layout
    value_today: float
    exposures: tuple[Exposure, ...]
    stresses: tuple[Stress, ...]
    ladders: tuple[Ladder, ...]
    distributions: tuple[Distribution, ...]
    worst_by_position: Floats  # (P,) P&L under the worst stress; empty without stresses
    made_with: Mapping[str, str]
    usages: tuple[Usage, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def worst(self) -> Stress | None:
        """The stress with the largest loss."""
        return min(self.stresses, key=lambda one: one.pnl, default=None)

    def by(self, what: Callable[[Cell], str], by_cell: Floats) -> dict[str, float]:
        """Sums over cells by portfolio, group or underlying."""
        sums: dict[str, float] = {}
        for cell, amount in zip(self.layout.cells, by_cell.tolist(), strict=True):
            sums[what(cell)] = sums.get(what(cell), 0.0) + amount
        return sums

    def cell_sums(self, by_position: Floats) -> Floats:
        """Numbers by position summed to cells (C,)."""
        sums = np.zeros(len(self.layout.cells))
        np.add.at(sums, self.layout.cell, by_position)
        return sums
