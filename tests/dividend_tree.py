"""An independent oracle: a binomial tree of what is left of the spot, exercised at the whole spot."""

from __future__ import annotations

import numpy as np


def american(spot, strike, years, vol, rate, carried, is_call, dividends, steps=1_500, *, early=True):
    """American (or European) value with (years, amount) dividends; the mean of trees of two sizes."""
    alive = [(when, amount) for when, amount in dividends if 0.0 < when < years]
    carry, sign = rate - carried, 1.0 if is_call else -1.0

    def ahead(now):
        return sum(amount * np.exp(-carry * (when - now)) for when, amount in alive if when > now)

    left = spot - ahead(0.0)
    values = []
    for count in (steps, steps + 1):
        dt = years / count
        up = np.exp(vol * np.sqrt(dt))
        chance, discount = (np.exp(carry * dt) - 1.0 / up) / (up - 1.0 / up), np.exp(-rate * dt)
        nodes = left * up ** np.arange(-count, count + 1, 2.0)
        value = np.maximum(sign * (nodes - strike), 0.0)
        for step in range(count - 1, -1, -1):
            value = discount * (chance * value[1:] + (1.0 - chance) * value[:-1])
            if early:
                nodes = left * up ** np.arange(-step, step + 1, 2.0)
                value = np.maximum(value, sign * (nodes + ahead(step * dt) - strike))
        values.append(value[0])
    return float(np.mean(values))
