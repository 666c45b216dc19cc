"""The search for whole lots asks again and again whether to go on, and asking changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_kernels.optimise import greek_hedge as greeks
from gpu_kernels.optimise import min_es_hedge as shortfall

INSTRUMENTS = 6


class Enough(Exception):
    """Nobody waits any more."""


class Patience:
    """Goes on for so many looks."""

    def __init__(self, looks):
        self.left, self.seen = looks, 0

    def __call__(self):
        self.seen += 1
        if self.seen > self.left:
            raise Enough


def least_shortfall(seed, scenarios, check=None):
    random = np.random.default_rng(seed)
    units = random.standard_normal((INSTRUMENTS, scenarios))
    book = random.standard_normal(INSTRUMENTS) * 20.0 @ units + random.standard_t(3, scenarios)
    return shortfall.min_es_hedge(book, units, limit=100.0, level=0.9, cost_per_lot=0.01, check=check)


def least_greeks(seed, _, check=None):
    random = np.random.default_rng(seed)
    exposure, units = 50.0 * random.standard_normal(4), random.standard_normal((4, INSTRUMENTS))
    return greeks.greek_hedge(exposure, units, limit=1_000.0, cost_per_lot=0.1, check=check)


SEARCHES = [(least_shortfall, 500), (least_shortfall, 2_500), (least_greeks, 0)]


@pytest.mark.parametrize(("search", "scenarios"), SEARCHES)
def test_it_ends_at_any_look_and_otherwise_finds_the_same(search, scenarios, seed):
    alone, free = search(seed, scenarios), Patience(10**9)
    asked = search(seed, scenarios, free)
    np.testing.assert_array_equal(asked.trades, alone.trades)
    assert free.seen > 10
    for looks in (0, free.seen // 2, free.seen - 1):
        patience = Patience(looks)
        with pytest.raises(Enough):
            search(seed, scenarios, patience)
        assert patience.seen == looks + 1


def test_each_trade_that_is_tried_is_after_a_look(monkeypatch, seed):
    tried, inner = [0], shortfall.tail_risk

    def counted(*args, **keywords):
        tried[0] += 1
        return inner(*args, **keywords)

    monkeypatch.setattr(shortfall, "tail_risk", counted)
    patience = Patience(50)
    with pytest.raises(Enough):
        least_shortfall(seed, 500, patience)
    # One more for the book as it is, before any trade.
    assert tried[0] <= 50 + 1
