"""Covariances: from history with shrinkage, repaired to positive semi-definite, and their square roots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_kernels.errors import InvalidInput

Floats = NDArray[np.float64]

# Negative eigenvalues up to this share of the largest are rounding, not a fault of the matrix.
ROUNDING = 1e-12
# Entries that differ from their mirror image by more than this share of the largest make it asymmetric.
ASYMMETRY = 1e-8


@dataclass(frozen=True)
class CovarianceEstimate:
    """A covariance per year, and how far it was shrunk towards its target (0 not at all, 1 wholly)."""

    cov: Floats
    shrinkage: float


def covariance_from_returns(
    returns: ArrayLike, *, periods_per_year: float = 252.0, shrinkage: float | None = None
) -> CovarianceEstimate:
    """Covariance per year of log returns (T, U), shrunk towards equal variances without correlation.

    ``shrinkage`` None takes the weight of Ledoit and Wolf (2004), which minimises the expected squared error.
    """
    history = np.asarray(returns, dtype=np.float64)
    if history.ndim != 2 or len(history) < 2:
        raise InvalidInput("returns", f"must have shape (T, U) with at least 2 rows, got {history.shape}")
    bad = np.argwhere(~np.isfinite(history))
    if len(bad):
        row, column = (int(i) for i in bad[0])
        raise InvalidInput("returns", f"is {history[row, column]} in column {column}", row)
    if shrinkage is not None and not 0.0 <= shrinkage <= 1.0:
        raise InvalidInput("shrinkage", f"must lie between 0 and 1, got {shrinkage}")
    centred = history - history.mean(axis=0)
    sample = centred.T @ centred / len(centred)
    level = float(np.trace(sample)) / len(sample)
    target = level * np.eye(len(sample))
    weight = _ledoit_wolf_weight(centred, sample, target) if shrinkage is None else shrinkage
    shrunk = (weight * target + (1.0 - weight) * sample) * periods_per_year
    return CovarianceEstimate(cov=(shrunk + shrunk.T) / 2.0, shrinkage=float(weight))


def _ledoit_wolf_weight(centred: Floats, sample: Floats, target: Floats) -> float:
    """Share of the target: the sample's estimated error over its distance from the target."""
    count = len(centred)
    distance = float(np.square(sample - target).sum())
    if distance == 0.0:
        return 1.0
    lengths = np.square(centred).sum(axis=1)
    error = (float(np.square(lengths).sum()) / count - float(np.square(sample).sum())) / count
    return min(1.0, max(0.0, error / distance))


@dataclass(frozen=True)
class CovarianceRoot:
    """``root`` (U, U) with root·rootᵀ = cov, columns by falling variance; a note if cov was repaired."""

    root: Floats
    cov: Floats
    note: str | None


def covariance_root(cov: ArrayLike, field: str = "cov") -> CovarianceRoot:
    """Principal square root columns of a covariance; a matrix that is not one is repaired, and that is said.

    Negative eigenvalues are set to 0 and the variances restored by scaling rows and columns.
    """
    matrix = _checked_covariance(cov, field)
    values, vectors = np.linalg.eigh(matrix)
    largest = max(float(values[-1]), 0.0)
    lowest = float(values[0])
    note = None
    if lowest < -ROUNDING * max(largest, np.finfo(float).tiny):
        note = (
            f"{field} was not positive semi-definite (lowest eigenvalue {lowest:.6g}) and has been repaired"
        )
        matrix = _repaired(matrix, values, vectors)
        values, vectors = np.linalg.eigh(matrix)
    return CovarianceRoot(root=_principal(values, vectors), cov=matrix, note=note)


def _principal(values: Floats, vectors: Floats) -> Floats:
    """Eigenvectors times the roots of their eigenvalues, largest first."""
    order = np.argsort(values)[::-1]
    columns = vectors[:, order] * np.sqrt(np.maximum(values[order], 0.0))
    # The sign of an eigenvector is the library's whim: the largest entry is made positive.
    strongest = np.abs(columns).argmax(axis=0)
    signs = np.where(columns[strongest, np.arange(columns.shape[1])] < 0.0, -1.0, 1.0)
    return np.asarray(columns * signs)


def book_first(root: CovarianceRoot, exposure: Floats | None = None) -> Floats:
    """A square root (U, U) whose first column moves all underlyings as a book of this ``exposure`` sees them.

    Without one the book is equally weighted. The others are principal components of what is left, which
    that book does not feel. Quasi-random points are best in their first dimension.
    """
    weights = np.ones(len(root.cov)) if exposure is None else exposure / float(np.abs(exposure).max())
    along = root.cov @ weights
    total = float(weights @ along)
    if total <= ROUNDING * float(np.trace(root.cov)):
        return root.root
    first = along / np.sqrt(total)
    # What is left has lost one dimension; rounding may leave it a hair below 0.
    rest = _principal(*np.linalg.eigh(root.cov - np.outer(first, first)))
    return np.concatenate([first[:, None], rest[:, :-1]], axis=1)


def _repaired(matrix: Floats, values: Floats, vectors: Floats) -> Floats:
    clipped = (vectors * np.maximum(values, 0.0)) @ vectors.T
    had = np.sqrt(np.diag(matrix))
    has = np.sqrt(np.maximum(np.diag(clipped), 0.0))
    scale = np.divide(had, has, out=np.zeros_like(had), where=has > 0.0)
    repaired = clipped * np.outer(scale, scale)
    return np.asarray((repaired + repaired.T) / 2.0)


def _checked_covariance(cov: ArrayLike, field: str) -> Floats:
    matrix = np.atleast_2d(np.asarray(cov, dtype=np.float64))
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InvalidInput(field, f"must be square, got shape {np.shape(cov)}")
    bad = np.argwhere(~np.isfinite(matrix))
    if len(bad):
        row, column = (int(i) for i in bad[0])
        raise InvalidInput(field, f"is {matrix[row, column]} in column {column}", row)
    negative = np.flatnonzero(np.diag(matrix) < 0.0)
    if len(negative):
        row = int(negative[0])
        raise InvalidInput(field, f"has a negative variance, {matrix[row, row]}", row)
    skewed = np.argwhere(np.abs(matrix - matrix.T) > ASYMMETRY * float(np.abs(matrix).max(initial=0.0)))
    if len(skewed):
        row, column = (int(i) for i in skewed[0])
        raise InvalidInput(field, f"is not symmetric in column {column}", row)
    return np.asarray((matrix + matrix.T) / 2.0)
