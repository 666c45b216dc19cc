"""The connection: TLS, tokens, retries and message sizes, the same for both clients."""

from __future__ import annotations

import ipaddress
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
DEADLINE_S = 10.0  # of a call that names none
# A part of Greeks takes 3.7 MB: below the 4 MiB at which gRPC peers and proxies stop unless told otherwise.
CHUNK_ROWS = 50_000
PARTS_UNDER_WAY = 2  # of one job; the service computes one while the next one travels
TRIES_MAX = 4  # of one call, the first included
# As large as what a call of many rows takes in all. glibc learns from buffers up to 32 MiB.
LARGE_BYTES = 16 << 20
BACKOFF_S, BACKOFF_S_MAX = 0.1, 2.0
KEEPALIVE_S = 60.0

SERVICE = "gpu_risk.risk.v1.RiskService"
# Asked twice, these answer the same and change nothing. A second PutPortfolio would be another version, and a
# second DeletePortfolio of one that is gone would fail, so those two are left to the caller. What never left
# this machine is sent again by the channel in any case.
IDEMPOTENT = (
    "Price",
    "Greeks",
    "ImpliedVolatility",
    "PriceStream",
    "GreeksStream",
    "ImpliedVolatilityStream",
    "GetPortfolio",
    "ListPortfolios",
    "ExpectedShortfall",
    "StressTest",
    "Hedge",
    "ExpectedShortfallWithProgress",
    "StressTestWithProgress",
    "HedgeWithProgress",
    "WhatIf",
    "WatchRisk",
    "ListEngines",
)
BOOK_SERVICE = "gpu_risk.book.v1.BookService"
IDEMPOTENT_OF_BOOKS = ("GetBook",)  # an order sent twice is two orders

Token = str | Callable[[], str]
Pem = str | Path | bytes


def service_config() -> str:
    """gRPC's own retries: each wait is drawn between 0.8 and 1.2 of the backoff, and a failing service gets
    fewer and fewer of them."""
    return json.dumps(
        {
            "methodConfig": [
                {
                    "name": [
                        {"service": service, "method": method}
                        for service, methods in ((SERVICE, IDEMPOTENT), (BOOK_SERVICE, IDEMPOTENT_OF_BOOKS))
                        for method in methods
                    ],
                    "retryPolicy": {
                        "maxAttempts": TRIES_MAX,
                        "initialBackoff": f"{BACKOFF_S}s",
                        "maxBackoff": f"{BACKOFF_S_MAX}s",
                        "backoffMultiplier": 2,
                        "retryableStatusCodes": ["UNAVAILABLE"],
                    },
                }
            ],
            "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.2},
        }
    )


def channel_options() -> list[tuple[str, Any]]:
    """Options of a channel to risk_service."""
    return [
        ("grpc.service_config", service_config()),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        # A request above this is sent once and never again; gRPC's own 256 KiB is 5,000 options.
        ("grpc.per_rpc_retry_buffer_size", MESSAGE_BYTES_MAX),
        # A stream through a firewall that forgets it ends, instead of staying silent for ever.
        ("grpc.keepalive_time_ms", int(KEEPALIVE_S * 1000)),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]


def open_channel(
    library: Any, target: str, credentials: grpc.ChannelCredentials | None, token: object
) -> Any:
    """A channel of `grpc` or `grpc.aio`; a token may not cross a network in the clear."""
    _expect_large_answers()
    if credentials is not None:
        return library.secure_channel(target, credentials, channel_options())
    if token is not None and not _on_this_machine(target):
        raise ValueError(
            f"a token for {target} would travel in the clear; give credentials=risk_client.tls(...)"
        )
    return library.insecure_channel(target, channel_options())


def _expect_large_answers() -> None:
    """Lets the C library see that a buffer of this size comes and goes in this process.

    glibc then keeps the memory of answers for the next ones; until it has seen one, it gives each back to the
    system and takes it anew, page by page. No page of the buffer is touched, and what the process has chosen
    by itself stays.
    """
    bytearray(LARGE_BYTES)


def tls(
    ca: Pem | None = None, certificate: Pem | None = None, key: Pem | None = None
) -> grpc.ChannelCredentials:
    """Credentials for TLS, and for mTLS with `certificate` and `key`; PEM files, or their bytes.

    Without `ca` the usual authorities are trusted.
    """
    if (certificate is None) != (key is None):
        raise ValueError("certificate and key are given together or not at all")
    return grpc.ssl_channel_credentials(_pem(ca), _pem(key), _pem(certificate))


def checked_deadline(seconds: float) -> float:
    """Seconds that a call may take; refuses what is no time at all."""
    if not isinstance(seconds, int | float) or not 0.0 < seconds < math.inf:
        raise ValueError(f"deadline_s must be above 0, in seconds, not {seconds!r}")
    return seconds


def bearer(token: Token | None) -> tuple[tuple[str, str], ...]:
    """The metadata of a call; a function gives a fresh token for each."""
    if token is None:
        return ()
    return (("authorization", f"Bearer {token() if callable(token) else token}"),)


def backoff_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row, drawn so that clients do not all come at once."""
    longest = min(BACKOFF_S * 2.0 ** (failures - 1), BACKOFF_S_MAX)
    return random.uniform(0.5 * longest, longest)


def _pem(given: Pem | None) -> bytes | None:
    return Path(given).read_bytes() if isinstance(given, str | Path) else given


def _on_this_machine(target: str) -> bool:
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    address = target.removeprefix("dns:").removeprefix("ipv4:").removeprefix("ipv6:").lstrip("/")
    host = address.rpartition(":")[0].strip("[]") if not address.endswith("]") else address.strip("[]")
    if (host or address) == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or address).is_loopback
    except ValueError:
        return False
