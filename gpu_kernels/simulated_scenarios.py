"""Monte-Carlo scenarios: correlated normal, Student-t or jump returns from Sobol or Philox streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from gpu_kernels.covariance import CovarianceRoot, book_first, covariance_root
from gpu_kernels.errors import InvalidInput
from gpu_kernels.random_streams import normals, philox_uniforms, sobol_uniforms
from gpu_kernels.scenarios import Scenarios

Floats = NDArray[np.float64]
Distribution = Literal["normal", "student_t", "jump"]
Sampler = Literal["sobol", "philox"]

DISTRIBUTIONS = ("normal", "student_t", "jump")
SAMPLERS = ("sobol", "philox")
# Uniforms drawn at once: they stay in the second-level cache, and no block takes longer than some 20 ms. The
# streams give the same numbers in any blocks; the matrix product may round a block's last rows otherwise.
BLOCK_UNIFORMS = 1 << 16
# Jumps in one horizon beyond this have no probability worth a table entry.
JUMPS_MAX = 1000


def _unheard(scenarios: int) -> None:
    """Nobody asked to be told."""


def simulate_scenarios(
    n: int,
    *,
    mean: ArrayLike,
    cov: ArrayLike,
    seed: int,
    horizon: float,
    distribution: Distribution = "normal",
    dof: float = 5,
    vol_beta: ArrayLike = 0.0,
    sampler: Sampler = "sobol",
    jump_intensity: float = 4.0,
    jump_mean: ArrayLike = 0.0,
    jump_share: float = 0.5,
    start: int = 0,
    exposure: ArrayLike | None = None,
    drawn: Callable[[int], object] = _unheard,
) -> Scenarios:
    """``n`` scenarios of log returns over ``horizon`` years, of yearly ``mean`` (U,) and ``cov`` (U, U).

    ``cov`` is the covariance whatever the distribution: Student's t with ``dof`` degrees of freedom is scaled
    to it, and ``jump`` splits it. Jumps come ``jump_intensity`` times a year, all underlyings at once, by
    ``jump_mean`` log return each plus ``jump_share`` of the remaining covariance. The vol change is
    ``vol_beta`` times the return. ``start`` is the number of the first scenario, for work in blocks.
    ``exposure`` (U,) is what a book gains per unit of each return (delta · spot, say): the distribution is
    the same with or without, but the first dimension of the sampler goes along it, where Sobol is best.
    ``drawn`` is told after each block how many scenarios it had; what it raises ends the work.
    """
    centre, root, notes = _checked(n, mean, cov, horizon, distribution, dof, sampler)
    along = None if exposure is None else _exposure(exposure, len(centre))
    law = _law(distribution, root, along, horizon, dof, jump_intensity, jump_mean, jump_share)
    columns = root.root.shape[1] + law.extra
    draw = sobol_uniforms if sampler == "sobol" else philox_uniforms
    returns = np.empty((n, len(centre)))
    step = max(1, BLOCK_UNIFORMS // columns)
    for first in range(0, n, step):
        count = min(step, n - first)
        uniforms = draw(seed, start + first, count, columns)
        returns[first : first + count] = centre * horizon + law.returns(uniforms)
        drawn(count)
    return Scenarios(
        spot_return=returns,
        vol_change=_vol_changes(vol_beta, returns),
        elapsed=horizon,
        notes=[*notes, *law.notes],
    )


class _Law:
    """How uniforms (n, extra + U) become centred returns (n, U)."""

    def __init__(self, extra: int, returns: Callable[[Floats], Floats], notes: tuple[str, ...] = ()) -> None:
        self.extra = extra
        self.returns = returns
        self.notes = notes


def _law(
    distribution: str,
    root: CovarianceRoot,
    along: Floats | None,
    horizon: float,
    dof: float,
    intensity: float,
    jump_mean: ArrayLike,
    share: float,
) -> _Law:
    spread = book_first(root, along) * np.sqrt(horizon)
    if distribution == "normal":
        return _Law(0, lambda uniforms: normals(uniforms) @ spread.T)
    if distribution == "student_t":

        def student(uniforms: Floats) -> Floats:
            # Large χ² belongs to small uniforms, so that the first dimension orders the tail.
            chi_square = special.chdtri(dof, uniforms[:, 0])
            return np.asarray(
                (normals(uniforms[:, 1:]) @ spread.T) * np.sqrt((dof - 2.0) / chi_square)[:, None]
            )

        return _Law(1, student)
    return _jump_law(root, along, horizon, intensity, jump_mean, share)


def _jump_law(
    root: CovarianceRoot,
    along: Floats | None,
    horizon: float,
    intensity: float,
    jump_mean: ArrayLike,
    share: float,
) -> _Law:
    """Given the number of jumps all is normal, so one normal per underlying carries diffusion and jumps."""
    if not (np.isfinite(intensity) and intensity > 0.0 and intensity * horizon < JUMPS_MAX / 2):
        raise InvalidInput("jump_intensity", f"must be above 0 and moderate, got {intensity}")
    if not 0.0 <= share <= 1.0:
        raise InvalidInput("jump_share", f"must lie between 0 and 1, got {share}")
    sizes = _per_underlying(jump_mean, "jump_mean", len(root.cov))
    rest = root.cov - intensity * np.outer(sizes, sizes)
    too_much = "jumps of this size and frequency have more covariance than cov"
    beyond = np.flatnonzero(np.diag(rest) < 0.0)
    if beyond.size:
        raise InvalidInput("jump_mean", too_much, int(beyond[0]))
    remaining = covariance_root(rest, "jump_mean")
    if remaining.note is not None:
        raise InvalidInput("jump_mean", too_much)
    spread = book_first(remaining, along) * np.sqrt(horizon)
    expected = intensity * horizon
    cumulative = special.pdtr(np.arange(JUMPS_MAX), expected)

    def jumping(uniforms: Floats) -> Floats:
        jumps = np.searchsorted(cumulative, uniforms[:, 0], side="left").astype(np.float64)
        scale = np.sqrt(1.0 - share + share * jumps / expected)
        centred = (jumps - expected)[:, None] * sizes
        return np.asarray(centred + (normals(uniforms[:, 1:]) @ spread.T) * scale[:, None])

    return _Law(1, jumping)


def _checked(
    n: int, mean: ArrayLike, cov: ArrayLike, horizon: float, distribution: str, dof: float, sampler: str
) -> tuple[Floats, CovarianceRoot, list[str]]:
    if not isinstance(n, (int, np.integer)) or n < 1:
        raise InvalidInput("n", f"must be an integer of at least 1, got {n!r}")
    if distribution not in DISTRIBUTIONS:
        raise InvalidInput("distribution", f"must be one of {DISTRIBUTIONS}, got {distribution!r}")
    if sampler not in SAMPLERS:
        raise InvalidInput("sampler", f"must be one of {SAMPLERS}, got {sampler!r}")
    if not (np.isfinite(horizon) and horizon > 0.0):
        raise InvalidInput("horizon", f"must be above 0 years, got {horizon}")
    if distribution == "student_t" and not (np.isfinite(dof) and dof > 2.0):
        raise InvalidInput("dof", f"must be above 2 for a covariance to exist, got {dof}")
    root = covariance_root(cov)
    centre = _per_underlying(mean, "mean", len(root.cov))
    return centre, root, [] if root.note is None else [root.note]


def _per_underlying(value: ArrayLike, field: str, underlyings: int) -> Floats:
    column = np.asarray(value, dtype=np.float64)
    if column.shape not in ((), (1,), (underlyings,)):
        raise InvalidInput(field, f"must be a number or have shape ({underlyings},), got {column.shape}")
    column = np.array(np.broadcast_to(column, (underlyings,)))
    bad = np.flatnonzero(~np.isfinite(column))
    if bad.size:
        raise InvalidInput(field, f"is {column[bad[0]]}", int(bad[0]))
    return column


def _exposure(value: ArrayLike, underlyings: int) -> Floats | None:
    """Exposures, finite; None where all are 0 and say nothing."""
    column = np.asarray(value, dtype=np.float64)
    if column.shape != (underlyings,):
        raise InvalidInput("exposure", f"must have shape ({underlyings},), got {column.shape}")
    bad = np.flatnonzero(~np.isfinite(column))
    if bad.size:
        raise InvalidInput("exposure", f"is {column[bad[0]]}", int(bad[0]))
    return column if column.any() else None


def _vol_changes(vol_beta: ArrayLike, returns: Floats) -> ArrayLike:
    beta = _per_underlying(vol_beta, "vol_beta", returns.shape[1])
    return 0.0 if not beta.any() else beta * returns
