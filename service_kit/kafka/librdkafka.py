"""The mock-cluster functions of the client library that confluent-kafka ships but does not wrap."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from collections.abc import Iterator
from pathlib import Path

import confluent_kafka

from service_kit.kafka.errors import MockClusterUnavailable

PRODUCER = 0
ERROR_TEXT_BYTES = 512

_P, _I, _C = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
_SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "rd_kafka_conf_new": (_P, ()),
    "rd_kafka_conf_set": (_I, (_P, _C, _C, _C, ctypes.c_size_t)),
    "rd_kafka_new": (_P, (_I, _P, _C, ctypes.c_size_t)),
    "rd_kafka_destroy": (None, (_P,)),
    "rd_kafka_err2str": (_C, (_I,)),
    "rd_kafka_mock_cluster_new": (_P, (_P, _I)),
    "rd_kafka_mock_cluster_destroy": (None, (_P,)),
    "rd_kafka_mock_cluster_bootstraps": (_C, (_P,)),
    "rd_kafka_mock_topic_create": (_I, (_P, _C, _I, _I)),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, (_P, ctypes.c_int32)),
    "rd_kafka_mock_push_request_errors_array": (
        None,
        (_P, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(_I)),
    ),
    "rd_kafka_mock_clear_request_errors": (None, (_P, ctypes.c_int16)),
    "rd_kafka_mock_broker_set_down": (_I, (_P, ctypes.c_int32)),
    "rd_kafka_mock_broker_set_up": (_I, (_P, ctypes.c_int32)),
    "rd_kafka_mock_broker_set_rtt": (_I, (_P, ctypes.c_int32, _I)),
    "rd_kafka_mock_partition_set_leader": (_I, (_P, _C, ctypes.c_int32, ctypes.c_int32)),
}


@functools.cache
def load() -> ctypes.CDLL:
    """The very library that confluent-kafka uses, with typed functions."""
    tried: list[str] = []
    for path in _candidates():
        try:
            library = ctypes.CDLL(path)
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            tried.append(f"{path}: {error}")
            continue
        return library
    raise MockClusterUnavailable(
        "fault injection needs a librdkafka with its mock cluster, and this confluent-kafka "
        f"({confluent_kafka.version()}) has none that can be reached; "
        + ("; ".join(tried) or "no librdkafka was found beside it")
    )


def _candidates() -> Iterator[str]:
    package = Path(confluent_kafka.__file__).parent
    # Wheels: Linux puts it beside the package, macOS inside. A source build links the system's.
    for folder, pattern in (
        (package.parent / "confluent_kafka.libs", "librdkafka*"),
        (package / ".dylibs", "librdkafka*"),
    ):
        yield from (str(path) for path in sorted(folder.glob(pattern)))
    found = ctypes.util.find_library("rdkafka")
    if found:
        yield found
