"""Limits held against losses, of the whole file or of one portfolio of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from risk_cli.refusals import BadInput
from risk_cli.stress.book import Layout
from risk_cli.stress.outcome import Distribution, Stress, Usage
from risk_cli.stress.scenario_file import WHOLE_FILE, Limit

ES_LEVEL = 0.975


def usages(
    limits: Sequence[Limit], layout: Layout, stresses: Sequence[Stress], distributions: Sequence[Distribution]
) -> tuple[Usage, ...]:
    """How much of each limit is used: by the worst stress, or by the largest ES of the distributions."""
    return tuple(_usage(limit, layout, stresses, distributions) for limit in limits)


def _usage(
    limit: Limit, layout: Layout, stresses: Sequence[Stress], distributions: Sequence[Distribution]
) -> Usage:
    inside = np.array([limit.scope in (WHOLE_FILE, cell.portfolio) for cell in layout.cells])
    if not inside.any():
        raise BadInput(f"limits.{limit.scope}: the portfolio file has no portfolio of this name")
    if limit.name == "stress_loss":
        losses = [(-float(one.by_cell[inside].sum()), one.name) for one in stresses]
    else:
        losses = [(_shortfall(one, limit.scope, inside), one.name) for one in distributions]
    used, by = max(losses)
    return Usage(limit.scope, limit.name, used, limit.amount, by)


def _shortfall(distribution: Distribution, scope: str, inside: NDArray[np.bool_]) -> float:
    if scope == WHOLE_FILE:
        return distribution.tails[0].es
    if distribution.by_cell is None:
        raise BadInput(f"limits.{scope}.es_975: the server does not tell the losses of one portfolio")
    pnl = distribution.by_cell[inside].sum(axis=0)
    return gk.tail_risk(pnl, ES_LEVEL, weights=distribution.weights).es
