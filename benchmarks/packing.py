"""Columns in and out of protobuf messages, beside a plain copy of their bytes and protobuf's own way."""

from __future__ import annotations

import numpy as np

from benchmarks.measure import Case, interleaved, machine, table, write
from protos import packing
from protos.market.v1.market_pb2 import RawBatch

VALUES = 100_000
REPEATS = 50  # per round: one write takes microseconds
LIMIT = 3.0  # times a plain copy


def main() -> None:
    """Measure, check, write the results."""
    values = np.random.default_rng(1).standard_normal(VALUES)
    raw = values.tobytes()
    full = RawBatch(bid=values)

    def copied() -> bytes:
        return bytes(memoryview(raw))

    def written() -> RawBatch:
        message = RawBatch()
        packing.write(message, "bid", values)
        return message

    def read() -> object:
        return packing.read(full, "bid")

    def extended() -> RawBatch:
        message = RawBatch()
        message.bid.extend(values)
        return message

    assert written().SerializeToString() == extended().SerializeToString()
    np.testing.assert_array_equal(packing.read(full, "bid"), values)
    cases = [_many("plain copy of the bytes", copied), _many("packing.write", written)]
    cases += [_many("packing.read", read), _many("protobuf's extend", extended, 2)]
    timings = interleaved(cases)
    plain = timings["plain copy of the bytes"].rate
    ratios = {name: plain / timings[name].rate for name in ("packing.write", "packing.read")}
    notes = [f"{name}: {ratio:.2f} times a plain copy (limit {LIMIT:g})" for name, ratio in ratios.items()]
    result = {
        "machine": machine(),
        "values": VALUES,
        "times_a_plain_copy": ratios,
        "within_limit": all(ratio <= LIMIT for ratio in ratios.values()),
        "timings": [timing.as_dict() for timing in timings.values()],
    }
    write("packing", result, table("Packed columns (values, not options)", list(timings.values()), notes))


def _many(name: str, run: object, repeats: int = REPEATS) -> Case:
    assert callable(run)

    def rounds() -> None:
        for _ in range(repeats):
            run()

    return Case(name, VALUES * repeats, rounds, 16)


if __name__ == "__main__":
    main()
