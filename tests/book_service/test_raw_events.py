"""Raw batches decoded: the quick way for short records says what the packing rules say."""

from __future__ import annotations

import numpy as np
import pytest

from book_service import raw_events
from protos import packing
from protos.market.v1.market_pb2 import RawBatch


def random_batch(draw: np.random.Generator) -> RawBatch:
    """Each column absent, of one entry, or of all; lengths around those where the reader changes its way."""
    rows = int(draw.choice((1, 2, 15, 16, 17, 4_096, 4_097)))
    batch = RawBatch(source="s", symbols=["A", "B", "C"])
    for name in raw_events.COLUMNS:
        kept = rows if name == "bid" else int(draw.choice((0, 1, rows)))
        dtype = packing.read(batch, name).dtype
        top = 3 if name == "symbol_index" else 5
        packing.write(batch, name, draw.integers(0, top, kept).astype(dtype))
    return batch


def test_it_reads_what_the_packing_rules_read(seed: int) -> None:
    draw = np.random.default_rng(seed)
    for _ in range(60):
        batch = random_batch(draw)
        events = raw_events.decode(batch.SerializeToString())
        rows = packing.row_count(batch, raw_events.COLUMNS)
        assert (len(events), events.symbols) == (rows, ("A", "B", "C"))
        for name in raw_events.COLUMNS:
            wanted = packing.column(batch, name, rows)
            found = getattr(events, name)
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)


def test_columns_that_are_not_there_cannot_be_written_to() -> None:
    batch = RawBatch(source="s", symbols=["A"], bid=[1.0])
    events = raw_events.decode(batch.SerializeToString())
    with pytest.raises(ValueError, match="read-only"):
        events.ask[0] = 1.0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source": ""}, "source: is empty"),
        ({"symbols": ["A", "A"]}, "names a symbol twice"),
        ({"bid": [1.0, 2.0], "ask": [1.0] * 3}, "bid: has 2 entries where the message has 3 rows"),
        ({"bid": [], "kind": []}, "the batch has no events"),
        ({"bid": [1.0] * 3, "symbol_index": [0, 0, 1]}, r"symbol_index\[2\]: 1 is outside symbols"),
        ({"symbols": []}, r"symbol_index\[0\]: 0 is outside symbols"),
    ],
)
def test_what_is_no_batch_is_refused_by_name(change: dict[str, object], says: str) -> None:
    fields = {"source": "s", "symbols": ["A"], "bid": [1.0], "kind": [1]} | change
    with pytest.raises(packing.PackingError, match=says):
        raw_events.decode(RawBatch(**fields).SerializeToString())
