"""A synthetic market to show, test and time the services on. Everything follows from a seed.

`MarketFeed` gives market data, orders and portfolios as messages; `order_flow` gives arrays of orders in five
regimes; `simulate_history` gives years of daily history. Levels and crises are made up.
"""

from __future__ import annotations

from market_sim.dirt import Dirt
from market_sim.feed import MarketFeed
from market_sim.history import History, simulate_history
from market_sim.model import Dynamics, Market
from market_sim.order_flow import order_flow
from market_sim.regimes import REGIMES
from market_sim.universe import UNIVERSE, Underlying

__all__ = [
    "REGIMES",
    "UNIVERSE",
    "Dirt",
    "Dynamics",
    "History",
    "Market",
    "MarketFeed",
    "Underlying",
    "order_flow",
    "simulate_history",
]
