"""Which partition a key belongs to: the hash of Java's default partitioner, so that all clients agree."""

from __future__ import annotations

# The partitioner of librdkafka that computes the same.
LIBRDKAFKA_PARTITIONER = "murmur2_random"

_MASK = 0xFFFFFFFF
_SEED = 0x9747B28C
_M = 0x5BD1E995


def murmur2(data: bytes) -> int:
    """32-bit MurmurHash2 with the seed that Kafka's Java client uses, as an unsigned integer."""
    length = len(data)
    h = _SEED ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * _M & _MASK
        k = (k ^ (k >> 24)) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if whole != length:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


def partition_of(key: str | bytes, partitions: int) -> int:
    """The partition, 0 to `partitions`-1, that records with this key go to."""
    if partitions < 1:
        raise ValueError(f"partitions must be at least 1, not {partitions}")
    data = key.encode() if isinstance(key, str) else key
    return (murmur2(data) & 0x7FFFFFFF) % partitions
