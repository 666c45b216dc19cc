"""What a topic must be set to so that nothing is lost from it, and what is wrong with one that is there."""

from __future__ import annotations

from collections.abc import Mapping

from protos.topics import Topic

# Room for the framing of a record of `record_bytes_max`.
FRAMING_BYTES = 65_536
# What a service needs to know of a topic that is there; brokers that have no such setting leave it out.
ASKED = (
    "cleanup.policy",
    "retention.ms",
    "retention.bytes",
    "max.message.bytes",
    "message.timestamp.type",
    "min.insync.replicas",
)
_FOR_EVER = {"retention.ms": "-1", "retention.bytes": "-1"}


def keeping(topic: Topic) -> dict[str, str]:
    """The settings that say what becomes of old records."""
    policy = {"cleanup.policy": "compact" if topic.compacted else "delete"}
    return policy | _FOR_EVER if topic.kept else policy


def wanted(topic: Topic, replication: int, record_bytes_max: int) -> dict[str, str]:
    """The settings that a topic is made with."""
    return keeping(topic) | {
        "max.message.bytes": str(record_bytes_max + FRAMING_BYTES),
        "min.insync.replicas": str(max(1, replication - 1)),
        # The log's own clock, not a sender's word: services hold the times within a record against it.
        "message.timestamp.type": "LogAppendTime",
    }


def losses(topic: Topic, found: Mapping[str, str]) -> list[str]:
    """Why records that are needed would be lost; empty where none would."""
    policy = found.get("cleanup.policy", "").split(",")
    out = []
    if "compact" in policy and not topic.compacted:
        out.append("cleanup.policy=delete is needed: compaction drops all but the last record of each key")
    if "delete" in policy and (topic.kept or topic.compacted):
        # One that is never compacted is only larger than it need be.
        out += [
            f"{name}=-1 is needed, not {found[name]}: everything is made of its records from the first on"
            for name in _FOR_EVER
            if found.get(name, "-1") != "-1"
        ]
    return out


def doubts(found: Mapping[str, str], replication: int, record_bytes_max: int) -> list[str]:
    """What works and should be otherwise."""
    out = []
    if int(found.get("max.message.bytes", record_bytes_max)) < record_bytes_max:
        out.append(
            f"max.message.bytes={found['max.message.bytes']} is below kafka.record_bytes_max "
            f"({record_bytes_max}): larger records are refused"
        )
    if found.get("message.timestamp.type", "LogAppendTime") != "LogAppendTime":
        out.append("message.timestamp.type=LogAppendTime is missing: a sender's clock is taken for the log's")
    if replication > 1 and int(found.get("min.insync.replicas", 2)) < 2:
        out.append("min.insync.replicas=1: what one broker alone has taken is lost with it")
    return out
