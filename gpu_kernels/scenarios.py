"""Scenarios in columns: what the market may do to a portfolio's inputs, one row per scenario."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_kernels.errors import InvalidInput

Floats = NDArray[np.float64]

# A shocked vol is never below this: with none at all a barrier between in and out of the money appears.
VOL_FLOOR = 1e-4
# Shocks further out than these are refused: a spot times e^100, a rate 1,000 % up or down.
MOST_RETURN = 100.0
MOST_RATE_CHANGE = 10.0


@dataclass(frozen=True)
class VolShockSurface:
    """Vol shocks per scenario on a grid of moneyness and tenor, added to ``vol_change``.

    ``log_moneyness`` (M,) is ln(strike/spot) and ``tenor`` (T,) the time to expiry in years, both of the
    position today, so that a shock sticks to the contract. Between nodes the shock is bilinear, outside it
    is that of the nearest edge. ``shock`` is (S, M, T) for all underlyings or (S, U, M, T), absolute.
    """

    log_moneyness: Floats
    tenor: Floats
    shock: Floats

    @classmethod
    def of(cls, *, log_moneyness: ArrayLike, tenor: ArrayLike, shock: ArrayLike) -> VolShockSurface:
        """A validated surface; a grid with one node in a direction is flat in it."""
        moneyness = _nodes(log_moneyness, "vol_shock_surface.log_moneyness")
        tenors = _nodes(tenor, "vol_shock_surface.tenor")
        shocks = _real(shock, "vol_shock_surface.shock")
        if shocks.ndim == 3:
            shocks = shocks[:, None]
        if shocks.ndim != 4 or shocks.shape[2:] != (len(moneyness), len(tenors)):
            raise InvalidInput(
                "vol_shock_surface.shock",
                f"must have shape (S, {len(moneyness)}, {len(tenors)}) or "
                f"(S, U, {len(moneyness)}, {len(tenors)}), got {np.shape(shock)}",
            )
        _finite(shocks, "vol_shock_surface.shock")
        return cls(log_moneyness=_own(moneyness), tenor=_own(tenors), shock=_own(shocks))

    @classmethod
    def factors(
        cls,
        *,
        parallel: ArrayLike = 0.0,
        skew: ArrayLike = 0.0,
        term_twist: ArrayLike = 0.0,
        log_moneyness: ArrayLike = (-0.5, 0.0, 0.5),
        tenor: ArrayLike = (1 / 52, 1 / 12, 0.25, 0.5, 1.0, 2.0, 5.0),
        pivot: float = 1.0,
    ) -> VolShockSurface:
        """Shocks parallel + skew·ln(K/S) + term_twist·(√(pivot/tenor) − 1), each factor (S,) or a scalar.

        ``skew`` is per 1.00 of log-moneyness; a positive ``term_twist`` lifts tenors below ``pivot`` (years).
        """
        level, slope, twist = np.broadcast_arrays(
            *(np.atleast_1d(np.asarray(f, dtype=np.float64)) for f in (parallel, skew, term_twist))
        )
        moneyness = _nodes(log_moneyness, "vol_shock_surface.log_moneyness")
        tenors = _nodes(tenor, "vol_shock_surface.tenor")
        if not (pivot > 0.0 and tenors[0] > 0.0):
            raise InvalidInput("vol_shock_surface.tenor", "pivot and tenor must be above 0 years")
        shock = (
            level[:, None, None]
            + slope[:, None, None] * moneyness[None, :, None]
            + twist[:, None, None] * (np.sqrt(pivot / tenors) - 1.0)[None, None, :]
        )
        return cls.of(log_moneyness=moneyness, tenor=tenors, shock=shock)

    def rows(self, chosen: slice | NDArray[np.generic]) -> VolShockSurface:
        """The shocks of the chosen scenarios."""
        return VolShockSurface(self.log_moneyness, self.tenor, self.shock[chosen])


class Scenarios:
    """S scenarios over U underlyings, validated.

    ``spot_return`` (S, U) log returns; ``vol_change`` (S, U), (S, 1) or a scalar, absolute; ``rate_change``
    (S,) or a scalar, parallel and absolute; ``elapsed`` years, a scalar or (S,). ``weights`` (S,) are
    probabilities (age-weighted history), else all are equally likely. ``notes`` say what a builder did.
    The columns are copies and cannot be changed afterwards.
    """

    def __init__(
        self,
        spot_return: ArrayLike,
        vol_change: ArrayLike = 0.0,
        rate_change: ArrayLike = 0.0,
        elapsed: ArrayLike = 0.0,
        *,
        vol_shock_surface: VolShockSurface | None = None,
        names: Sequence[str] = (),
        weights: ArrayLike | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        returns = _real(spot_return, "spot_return")
        if returns.ndim != 2:
            raise InvalidInput("spot_return", f"must have shape (S, U), got {returns.shape}")
        _finite(returns, "spot_return")
        _at_most(returns, "spot_return", MOST_RETURN, np.inf)
        self.spot_return = _own(returns)
        count = len(returns)
        self.vol_change = self._vol_change(vol_change)
        self.rate_change = _column(rate_change, "rate_change", count)
        _at_most(self.rate_change, "rate_change", MOST_RATE_CHANGE, MOST_RATE_CHANGE)
        self.elapsed = self._elapsed(elapsed)
        self.vol_shock_surface = self._surface(vol_shock_surface)
        self.names = tuple(names)
        if self.names and len(self.names) != count:
            raise InvalidInput("names", f"has {len(self.names)} entries for {count} scenarios")
        self.weights = None if weights is None else _weights(weights, count)
        self.notes = tuple(notes)

    def _vol_change(self, value: ArrayLike) -> Floats:
        count, underlyings = self.spot_return.shape
        changes = _real(value, "vol_change")
        if changes.ndim == 0:
            changes = np.full((count, 1), float(changes))
        if changes.shape not in ((count, underlyings), (count, 1)):
            raise InvalidInput(
                "vol_change", f"must have shape ({count}, {underlyings}) or ({count}, 1), got {changes.shape}"
            )
        _finite(changes, "vol_change")
        return _own(changes)

    def _elapsed(self, value: ArrayLike) -> Floats:
        elapsed = _column(value, "elapsed", len(self.spot_return))
        bad = np.flatnonzero(elapsed < 0.0)
        if bad.size:
            raise InvalidInput("elapsed", f"must not be negative, got {elapsed[bad[0]]}", int(bad[0]))
        return elapsed

    def _surface(self, surface: VolShockSurface | None) -> VolShockSurface | None:
        if surface is None:
            return None
        if not isinstance(surface, VolShockSurface):
            raise InvalidInput("vol_shock_surface", "must be a VolShockSurface")
        count, underlyings = self.spot_return.shape
        if surface.shock.shape[0] not in (1, count) or surface.shock.shape[1] not in (1, underlyings):
            raise InvalidInput(
                "vol_shock_surface.shock",
                f"holds {surface.shock.shape[0]} scenarios of {surface.shock.shape[1]} "
                f"underlyings, spot_return {count} of {underlyings}",
            )
        shape = (count, *surface.shock.shape[1:])
        return VolShockSurface(surface.log_moneyness, surface.tenor, np.broadcast_to(surface.shock, shape))

    def __len__(self) -> int:
        return len(self.spot_return)

    @property
    def underlyings(self) -> int:
        """Number of underlyings (columns)."""
        return int(self.spot_return.shape[1])

    def select(self, chosen: slice | ArrayLike) -> Scenarios:
        """The scenarios in ``chosen`` (row numbers, mask or slice), in that order."""
        rows = chosen if isinstance(chosen, slice) or np.size(chosen) else slice(0)
        numbers = np.arange(len(self))[rows if isinstance(rows, slice) else np.asarray(rows)]
        part = object.__new__(Scenarios)
        part.spot_return = self.spot_return[numbers]
        part.vol_change = self.vol_change[numbers]
        part.rate_change = self.rate_change[numbers]
        part.elapsed = self.elapsed[numbers]
        surface = self.vol_shock_surface
        part.vol_shock_surface = None if surface is None else surface.rows(numbers)
        part.names = tuple(self.names[row] for row in numbers) if self.names else ()
        part.weights = None if self.weights is None else self.weights[numbers]
        part.notes = self.notes
        return part

    @classmethod
    def stacked(cls, parts: Sequence[Scenarios]) -> Scenarios:
        """All scenarios of ``parts``, one after another; no weights, and one grid for all vol surfaces."""
        if not parts:
            raise InvalidInput("parts", "is empty")
        for number, part in enumerate(parts):
            if part.weights is not None:
                raise InvalidInput("parts", f"{number} has weights", number)
            if part.underlyings != parts[0].underlyings:
                raise InvalidInput(
                    "parts",
                    f"{number} has {part.underlyings} underlyings, the first {parts[0].underlyings}",
                    number,
                )
        named = all(part.names for part in parts)
        return cls(
            spot_return=np.concatenate([part.spot_return for part in parts]),
            vol_change=np.concatenate(
                [np.broadcast_to(part.vol_change, part.spot_return.shape) for part in parts]
            ),
            rate_change=np.concatenate([part.rate_change for part in parts]),
            elapsed=np.concatenate([part.elapsed for part in parts]),
            vol_shock_surface=_stacked_surfaces(parts),
            names=[name for part in parts for name in part.names] if named else (),
            notes=[note for part in parts for note in part.notes],
        )


def _stacked_surfaces(parts: Sequence[Scenarios]) -> VolShockSurface | None:
    """The surfaces one after another; a part without one has no shock."""
    given = [part.vol_shock_surface for part in parts if part.vol_shock_surface is not None]
    if not given:
        return None
    grid = given[0]
    wide = max(surface.shock.shape[1] for surface in given)
    shocks = []
    for number, part in enumerate(parts):
        own = part.vol_shock_surface
        if own is not None and not _same_grid(own, grid):
            raise InvalidInput("parts", f"{number} has a vol surface on another grid than the first", number)
        shape = (len(part), wide, *grid.shock.shape[2:])
        shocks.append(np.zeros(shape) if own is None else np.broadcast_to(own.shock, shape))
    return VolShockSurface(grid.log_moneyness, grid.tenor, np.concatenate(shocks))


def _same_grid(one: VolShockSurface, other: VolShockSurface) -> bool:
    return np.array_equal(one.log_moneyness, other.log_moneyness) and np.array_equal(one.tenor, other.tenor)


def _real(value: ArrayLike, field: str) -> Floats:
    raw = np.asarray(value)
    if raw.dtype.kind not in "fiu":
        raise InvalidInput(field, f"must hold real numbers, got dtype {raw.dtype}")
    return raw.astype(np.float64, copy=False)


def _own(values: Floats) -> Floats:
    """A copy that nobody can change: what has been checked stays as it was."""
    own = np.array(values, order="C")
    own.setflags(write=False)
    return own


def _finite(values: Floats, field: str) -> None:
    if not np.isfinite(values).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        where = f"row {place[0]}" + (f", column {place[1]}" if len(place) > 1 else "")
        raise InvalidInput(field, f"is {values[place]} in {where}", place[0])


def _at_most(values: Floats, field: str, most: float, fall: float) -> None:
    """Refuse what is above ``most`` or below −``fall``."""
    bad = np.argwhere((values > most) | (values < -fall))
    if len(bad):
        place = tuple(int(i) for i in bad[0])
        where = f" in column {place[1]}" if len(place) > 1 else ""
        raise InvalidInput(field, f"is {values[place]:g}{where}, further than any market goes", place[0])


def _column(value: ArrayLike, field: str, count: int) -> Floats:
    column = _real(value, field)
    if column.ndim == 0:
        column = np.full(count, float(column))
    if column.shape != (count,):
        raise InvalidInput(field, f"must have shape ({count},) or be a scalar, got {column.shape}")
    _finite(column, field)
    return _own(column)


def _nodes(value: ArrayLike, field: str) -> Floats:
    nodes = np.atleast_1d(_real(value, field))
    if nodes.ndim != 1 or not len(nodes):
        raise InvalidInput(field, f"must have one dimension, got shape {nodes.shape}")
    _finite(nodes, field)
    bad = np.flatnonzero(np.diff(nodes) <= 0.0)
    if bad.size:
        raise InvalidInput(field, "must increase, it does not", int(bad[0]) + 1)
    return nodes


def _weights(value: ArrayLike, count: int) -> Floats:
    weights = _column(value, "weights", count)
    bad = np.flatnonzero(weights < 0.0)
    if bad.size or weights.sum() <= 0.0:
        row = int(bad[0]) if bad.size else 0
        raise InvalidInput("weights", f"must not be negative nor all zero, got {weights[row]}", row)
    return _own(weights / float(weights.sum()))
