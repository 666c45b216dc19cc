"""Settings of a gRPC server (`GPU_RISK_GRPC_…`, or `[grpc]` in a TOML file)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service_kit.settings import Secret, limited

SYMMETRIC = ("HS256", "HS384", "HS512")

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "HS256", "HS384", "HS512"
]


@dataclass(frozen=True)
class GrpcSettings:
    """Where the server listens, whom it trusts and how much it takes. Times in seconds, sizes in bytes."""

    host: str = "127.0.0.1"
    port: int = limited(50051, at_least=0, at_most=65535)  # 0 = a free one
    reflection: bool = True  # off in production
    insecure: bool = False  # True lets a plaintext or open server listen beyond this machine

    tls_cert: Path | None = None  # PEM chain of the server
    tls_key: Path | None = None
    client_ca: Path | None = None  # PEM; where set, every client must show a certificate signed by it

    auth: Literal["none", "token", "mtls"] = "none"
    token_key: Path | None = None  # PEM public key, for the asymmetric algorithms
    token_secret: Secret | None = None  # shared secret of at least 32 bytes, for the HS algorithms
    token_issuer: str | None = None
    token_audience: str | None = None
    token_algorithms: tuple[Algorithm, ...] = ("ES256",)
    token_leeway_s: float = limited(5.0, at_least=0, at_most=60)

    max_message_bytes: int = limited(64 * 1024 * 1024, at_least=1024, at_most=2**31 - 1)
    max_calls: int = limited(512, at_least=1)  # open at once, all principals
    max_calls_per_principal: int = limited(64, at_least=1)  # open at once
    rate_per_principal: float = limited(1000.0, at_least=0.001)  # calls per second
    burst_per_principal: int = limited(2000, at_least=1)  # calls
    max_principals: int = limited(10_000, at_least=1)  # remembered at once

    deadline: Literal["default", "required"] = "default"  # what a call without a deadline gets
    default_deadline_s: float = limited(10.0, at_least=0.001)
    max_deadline_s: float = limited(300.0, at_least=0.001)
    default_stream_deadline_s: float = limited(3600.0, at_least=0.001)  # calls that answer with a stream
    max_stream_deadline_s: float = limited(86_400.0, at_least=0.001)

    slow_call_s: float = limited(1.0, at_least=0.001)  # a call of this length is worth a line in the log
    drain_s: float = limited(1.0, at_least=0, at_most=3600)
    # The server pings silent clients, and takes pings of theirs no oftener than `client_ping_s`; a client
    # that pings more often gets GOAWAY, so a client's own keepalive must be at least that.
    keepalive_s: float = limited(30.0, at_least=1)
    keepalive_timeout_s: float = limited(10.0, at_least=1)
    client_ping_s: float = limited(10.0, at_least=1)

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key are set together or not at all")
        if self.client_ca is not None and self.tls_cert is None:
            raise ValueError("client_ca needs tls_cert and tls_key")
        if self.auth == "mtls" and self.client_ca is None:
            raise ValueError("auth mtls needs client_ca")
        if self.auth == "token":
            self._check_token()
        if not self.insecure and not self._local():
            if self.auth == "none":
                raise ValueError(
                    f"auth none on {self.host} is open to the network; set auth, or insecure=true"
                )
            if self.tls_cert is None:
                raise ValueError(
                    f"tokens in plain text on {self.host}; set tls_cert and tls_key, or insecure=true"
                )
        for name in ("deadline_s", "stream_deadline_s"):
            default, longest = getattr(self, f"default_{name}"), getattr(self, f"max_{name}")
            if default > longest:
                raise ValueError(f"default_{name} {default:g} is above max_{name} {longest:g}")

    def _check_token(self) -> None:
        if not self.token_audience or not self.token_issuer:
            raise ValueError("auth token needs token_audience and token_issuer")
        if not self.token_algorithms:
            raise ValueError("auth token needs at least one of token_algorithms")
        shared = [name for name in self.token_algorithms if name in SYMMETRIC]
        # One family only: a public key taken for a shared secret is the classic forgery.
        if shared and len(shared) != len(self.token_algorithms):
            raise ValueError("token_algorithms mixes shared-secret (HS) and public-key algorithms")
        if shared and (self.token_secret is None or self.token_key is not None):
            raise ValueError(f"token_algorithms {', '.join(shared)} takes token_secret and no token_key")
        if not shared and (self.token_key is None or self.token_secret is not None):
            raise ValueError(f"token_algorithms {', '.join(self.token_algorithms)} takes token_key only")
        if self.token_secret is not None and len(self.token_secret.reveal().encode()) < 32:
            raise ValueError("token_secret is shorter than 32 bytes")

    def _local(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False
