"""The protocol's numbers: requests that are answered, and reasons for a refusal."""

from __future__ import annotations

from enum import IntEnum


class Api(IntEnum):
    """Kinds of requests."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    INIT_PRODUCER_ID = 22
    DESCRIBE_CONFIGS = 32


# Oldest and newest version of each: the newest before the compact encoding came, which nothing here needs.
# Fetch begins below 4, as on brokers before version 4: those have no transactions to rely on, nor has this.
VERSIONS: dict[Api, tuple[int, int]] = {
    Api.PRODUCE: (3, 7),
    Api.FETCH: (3, 11),
    Api.LIST_OFFSETS: (1, 5),
    Api.METADATA: (1, 5),
    Api.OFFSET_COMMIT: (2, 7),
    Api.OFFSET_FETCH: (1, 5),
    Api.FIND_COORDINATOR: (0, 2),
    Api.JOIN_GROUP: (0, 5),
    Api.HEARTBEAT: (0, 3),
    Api.LEAVE_GROUP: (0, 1),
    Api.SYNC_GROUP: (0, 3),
    Api.API_VERSIONS: (0, 3),
    Api.CREATE_TOPICS: (2, 4),
    Api.INIT_PRODUCER_ID: (0, 1),
    Api.DESCRIBE_CONFIGS: (1, 1),
}


class Code(IntEnum):
    """Why something was refused."""

    NONE = 0
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    MESSAGE_TOO_LARGE = 10
    INVALID_TOPIC = 17
    ILLEGAL_GENERATION = 22
    INCONSISTENT_GROUP_PROTOCOL = 23
    UNKNOWN_MEMBER_ID = 25
    INVALID_SESSION_TIMEOUT = 26
    REBALANCE_IN_PROGRESS = 27
    UNSUPPORTED_VERSION = 35
    TOPIC_ALREADY_EXISTS = 36
    INVALID_PARTITIONS = 37
    INVALID_REPLICATION_FACTOR = 38
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43
    OUT_OF_ORDER_SEQUENCE = 45
    INVALID_PRODUCER_EPOCH = 47
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
    FENCED_INSTANCE_ID = 82
