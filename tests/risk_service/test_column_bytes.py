"""Answers written as bytes are those that protobuf writes."""

from __future__ import annotations

import numpy as np
import pytest

import gpu_kernels as gk
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_service.api.column_bytes import ColumnBytes
from risk_service.api.option_rpcs import GREEKS, PRICES, VOLS

CAME = wire.Provenance(engine="cpu", device="a machine", method="greeks", degraded=True)


@pytest.mark.parametrize("rows", [1, 2, 15, 16, 127, 128, 16_383, 16_384, 40_000])
@pytest.mark.parametrize(
    ("writer", "kind", "result"),
    [
        (PRICES, wire.PriceResponse, gk.PriceResult),
        (GREEKS, wire.GreeksResponse, gk.GreeksResult),
        (VOLS, wire.ImpliedVolatilityResponse, gk.ImpliedVolResult),
    ],
)
def test_the_bytes_are_those_of_the_message(writer, kind, result, rows, seed):
    random = np.random.default_rng(seed)
    columns = [random.standard_normal(rows) for _ in result.COLUMNS[:-1]]
    columns[0][0] = np.nan
    status = random.integers(0, 8, rows).astype(np.uint8)
    data = writer.written(result(*columns, status), CAME)
    assert type(data) is bytes
    message = kind(provenance=CAME)
    for name, values in zip(result.COLUMNS, (*columns, status), strict=True):
        packing.write(message, name, values)
    assert data == message.SerializeToString(deterministic=True)
    read = kind.FromString(data)
    np.testing.assert_array_equal(packing.read(read, "status"), status)


def test_strided_columns_are_made_plain():
    values, status = np.arange(10.0)[::2], np.zeros(10, np.uint8)[::2]
    data = PRICES.written(gk.PriceResult(values, status), CAME)
    assert list(wire.PriceResponse.FromString(data).price) == [0.0, 2.0, 4.0, 6.0, 8.0]


def test_what_is_no_such_message_is_refused():
    with pytest.raises(ValueError, match="2 rows, status 3"):
        PRICES.written(gk.PriceResult(np.zeros(2), np.zeros(3, np.uint8)), CAME)
    with pytest.raises(ValueError, match="no enum number"):
        PRICES.written(gk.PriceResult(np.zeros(1), np.full(1, 200, np.uint8)), CAME)
    with pytest.raises(TypeError, match="are no columns of doubles"):
        ColumnBytes(wire.PriceResponse, ("status",))
