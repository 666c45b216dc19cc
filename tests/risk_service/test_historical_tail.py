"""The live loop's tail is the library's, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

import gpu_kernels as gk
from risk_service.historical_tail import HistoricalTail


@pytest.mark.parametrize("level", [0.9, 0.95, 0.975, 0.99])
@pytest.mark.parametrize("count", [41, 100, 250, 500, 501, 1_000, 2_003])
def test_it_is_that_of_gpu_kernels(level, count, seed):
    random = np.random.default_rng(seed)
    if count * (1.0 - level) < 1.0:
        pytest.skip("too few for one in the tail")
    tail = HistoricalTail(level)
    for _ in range(3):
        pnl = random.standard_t(3, count) * 1e5
        assert tail.of(pnl).risk == gk.tail_risk(pnl, level)
    ties = np.round(random.standard_normal(count))
    assert tail.of(ties).risk == gk.tail_risk(ties, level)
    assert tail.of(np.zeros(count)).risk == gk.tail_risk(np.zeros(count), level)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(bad):
    pnl = np.zeros(500)
    pnl[77] = bad
    with pytest.raises(gk.InvalidInput, match="77"):
        HistoricalTail(0.975).of(pnl)


@pytest.mark.parametrize("count", [100, 500, 501])
def test_parts_are_mean_losses_in_the_tail(count, seed):
    rows = np.random.default_rng(seed).standard_t(3, (4, count))
    tail = HistoricalTail(0.975).of(rows.sum(axis=0))
    k = count * 0.025
    worst = np.argsort(rows.sum(axis=0))[: int(np.ceil(k))]
    weight = np.minimum(np.maximum(k - np.arange(len(worst)), 0.0), 1.0)
    np.testing.assert_allclose(tail.parts(rows), -(rows[:, worst] @ weight) / k, rtol=1e-10)
    assert tail.parts(rows).sum() == pytest.approx(tail.risk.es, rel=1e-10)
