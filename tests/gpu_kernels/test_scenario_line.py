"""Scenarios on a line, read from a few returns: the stated error holds, and what is no line is told."""

from __future__ import annotations

import numpy as np
import pytest

import gpu_kernels as gk
from gpu_kernels.scenario_line import NODES, ScenarioLine
from gpu_kernels.scenarios import VolShockSurface


def returns(seed, count=1_000, spread=0.02):
    return spread * np.random.default_rng(seed).standard_normal(count)


def line_through(moves, slope=-1.5, level=0.01):
    found = ScenarioLine.through(
        gk.Scenarios(moves[:, None], (level + slope * moves)[:, None], elapsed=1 / 252)
    )
    assert found is not None
    return found


def test_looks_lie_on_the_line_within_the_scenarios(seed):
    moves = returns(seed)
    looks = line_through(moves).looks
    assert looks.spot_return.min() == pytest.approx(moves.min(), rel=1e-12)
    assert looks.spot_return.max() == pytest.approx(moves.max(), rel=1e-12)
    np.testing.assert_allclose(looks.vol_change, 0.01 - 1.5 * looks.spot_return, rtol=0, atol=1e-12)
    assert (looks.elapsed == 1 / 252).all()


def test_values_of_an_option_are_read_to_rounding(seed):
    moves = returns(seed)
    line = line_through(moves)
    book = gk.Portfolio(
        options=gk.Options(spot=100.0, strike=[80.0, 100.0, 125.0], expiry=0.5, vol=0.25, rate=0.03),
        quantity=np.ones(3),
    )
    engine = gk.engine("reference")
    scenarios = gk.Scenarios(moves[:, None], (0.01 - 1.5 * moves)[:, None], elapsed=1 / 252)
    wanted = np.stack([engine.revalue(book.rows([row]), scenarios) for row in range(3)])
    found = np.stack([engine.revalue(book.rows([row]), line.looks) for row in range(3)])
    np.testing.assert_allclose(line.read(found), wanted, rtol=0, atol=1e-9)
    assert line.errors(found).max() < 1e-9


@pytest.mark.parametrize("smoothness", [1, 2])
def test_a_kink_is_within_the_error_that_is_told(seed, smoothness):
    moves = returns(seed)
    line = line_through(moves)
    for at in np.linspace(moves.min(), moves.max(), 302)[1:-1]:

        def kinked(x, at=at):
            return np.maximum(x - at, 0.0)[None] ** smoothness

        found = kinked(line.looks.spot_return[:, 0])
        off = np.abs(line.read(found) - kinked(moves)).max()
        assert 0.0 < off <= line.errors(found)[0]


def test_what_is_no_line_is_none(seed):
    moves = returns(seed)[:, None]
    assert ScenarioLine.through(gk.Scenarios(moves)) is not None
    bent = np.zeros_like(moves)
    bent[7] = 1e-6
    assert ScenarioLine.through(gk.Scenarios(moves, bent)) is None
    assert ScenarioLine.through(gk.Scenarios(moves, rate_change=0.01)) is None
    two = np.where(np.arange(len(moves)) < 3, 0.0, 0.01)
    assert ScenarioLine.through(gk.Scenarios(moves, elapsed=two)) is None
    assert ScenarioLine.through(gk.Scenarios(np.full_like(moves, 0.01))) is None
    assert ScenarioLine.through(gk.Scenarios(moves[: 4 * NODES - 1])) is None
    surface = VolShockSurface.factors(parallel=np.zeros(len(moves)))
    assert ScenarioLine.through(gk.Scenarios(moves, vol_shock_surface=surface)) is None
