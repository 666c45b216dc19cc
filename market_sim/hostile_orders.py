"""Messages that a book has to refuse, strewn into a flow of good ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from market_sim.order_plan import CANCEL, NEW, REPLACE
from market_sim.streams import stream

_FORMS = 10


def with_hostile(orders: NDArray[np.void], count: int, seed: int, symbols: int) -> NDArray[np.void]:
    """`orders` with `count` hostile messages among them, each a damaged copy of the message before it."""
    if count == 0 or len(orders) == 0:
        return orders
    random = stream(seed, "hostile")
    after = np.sort(random.integers(0, len(orders), count))
    bad = orders[after].copy()
    form = random.integers(0, _FORMS, count)
    noise = random.integers(0, 2**63, count, dtype=np.uint64)

    unknown = form == 0  # a cancel or replace of an id that nobody ever sent
    bad["action"][unknown] = np.where(noise[unknown] % 2, CANCEL, REPLACE)
    bad["order_id"][unknown] |= np.uint64(1 << 62)
    stranger = form == 1  # another account's order
    bad["action"][stranger] = np.where(noise[stranger] % 2, CANCEL, REPLACE)
    bad["account"][stranger] += 100_000
    bad["action"][form == 2] = NEW  # an id that may rest already
    bad["quantity"][form == 2] = 0
    bad["symbol"][form == 3] = symbols + noise[form == 3] % 1000
    bad["action"][form == 4] = REPLACE
    bad["quantity"][form == 4] = 0
    bad["action"][form == 5] = NEW  # a price that no book holds
    bad["order_id"][form == 5] |= np.uint64(1 << 61)
    bad["price"][form == 5] = np.where(noise[form == 5] % 2, -1, np.iinfo(np.int64).min)
    bad["action"][form == 6] = 5 + noise[form == 6] % 250
    bad["kind"][form == 7] = 4 + noise[form == 7] % 250
    bad["side"][form == 8] = 2 + noise[form == 8] % 250
    bad["tif"][form == 9] = 5 + noise[form == 9] % 250
    for code in (7, 8, 9):  # codes are read in new orders only
        bad["action"][form == code] = NEW
        bad["order_id"][form == code] |= np.uint64(1 << 60)
    return np.insert(orders, after + 1, bad)
