"""Certificates and tokens for tests, made by an authority and an issuer that live as long as the test."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import ipaddress
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ISSUER, AUDIENCE = "https://issuer.test", "gpu-risk"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, PEM."""

    cert: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write `name.pem` and `name.key`; their paths."""
        cert, key = folder / f"{name}.pem", folder / f"{name}.key"
        cert.write_bytes(self.cert)
        key.write_bytes(self.key)
        return cert, key


class Authority:
    """A self-made certificate authority that lives as long as the test."""

    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        cert = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.cert = cert.public_bytes(serialization.Encoding.PEM)

    def server(self) -> Pair:
        """A certificate for this machine's loopback names."""
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        return self._issue("localhost", ExtendedKeyUsageOID.SERVER_AUTH, names)

    def client(self, common_name: str) -> Pair:
        """A client certificate; its common name is the principal, "" leaves it out."""
        names = x509.SubjectAlternativeName([x509.DNSName("client.test")])
        return self._issue(common_name, ExtendedKeyUsageOID.CLIENT_AUTH, names)

    def _issue(self, name: str, usage: x509.ObjectIdentifier, names: x509.SubjectAlternativeName) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
        cert = (
            _builder(subject, self._name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(names, critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Pair(cert.public_bytes(serialization.Encoding.PEM), _private_pem(key))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class TokenIssuer:
    """Signs bearer tokens (ES256), good ones and every kind of bad one."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.public_pem = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.private_pem = _private_pem(self._key)

    def claims(self, subject: str = "desk-1", **changes: Any) -> dict[str, Any]:
        """Good claims for ten minutes with these changes; a change to None leaves the claim out."""
        now = int(time.time())
        good = {"sub": subject, "aud": AUDIENCE, "iss": ISSUER, "iat": now, "exp": now + 600}
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def token(self, subject: str = "desk-1", **changes: Any) -> str:
        """A signed token."""
        return jwt.encode(self.claims(subject, **changes), self._key, algorithm="ES256")

    def unsigned(self) -> str:
        """A token that says `alg: none`."""
        return jwt.encode(self.claims(), None, algorithm="none")

    def confused(self) -> str:
        """A token that takes our public key for a shared secret (`alg: HS256`)."""
        head = _base64(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
        body = _base64(json.dumps(self.claims()).encode())
        mac = hmac.new(self.public_pem, f"{head}.{body}".encode(), hashlib.sha256).digest()
        return f"{head}.{body}.{_base64(mac)}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True)
class World:
    """What both ends of a secured call need: files for the server, objects for the client."""

    authority: Authority
    issuer: TokenIssuer
    server_cert: Path
    server_key: Path
    client_ca: Path
    token_key: Path
    client: Pair
    stranger: Pair

    @staticmethod
    def make(folder: Path) -> World:
        """New keys and certificates; what a server reads is written into the folder."""
        authority, issuer = Authority(), TokenIssuer()
        cert, key = authority.server().write(folder, "server")
        ca, token_key = folder / "ca.pem", folder / "token.pem"
        ca.write_bytes(authority.cert)
        token_key.write_bytes(issuer.public_pem)
        stranger = Authority("another authority").client("desk-1")
        return World(authority, issuer, cert, key, ca, token_key, authority.client("desk-1"), stranger)

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Keyword arguments of GrpcSettings for mutual TLS and tokens on a free port."""
        secured = {
            "port": 0,
            "tls_cert": self.server_cert,
            "tls_key": self.server_key,
            "client_ca": self.client_ca,
            "auth": "token",
            "token_key": self.token_key,
            "token_issuer": ISSUER,
            "token_audience": AUDIENCE,
        }
        return {**secured, **changes}

    def channel_credentials(self, client: Pair | None) -> grpc.ChannelCredentials:
        """Credentials of a client that trusts our authority and shows this certificate, or none."""
        key, cert = (client.key, client.cert) if client is not None else (None, None)
        return grpc.ssl_channel_credentials(self.authority.cert, key, cert)

    def bearer(self, token: str | None = None) -> tuple[tuple[str, str], ...]:
        """Metadata with this token, or a good one."""
        return (("authorization", f"Bearer {self.issuer.token() if token is None else token}"),)
