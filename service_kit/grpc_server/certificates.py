"""The server's certificates, read anew when their files change: a renewed one needs no restart."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509

from service_kit.errors import SettingError
from service_kit.grpc_server.settings import GrpcSettings
from service_kit.telemetry.logs import logger

_Stamps = tuple[tuple[int, int] | None, ...]


class Certificates:
    """What the server shows and whom it trusts; raises SettingError where the files hold something else."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._cert, self._key, self._ca = cert, key, client_ca
        self._stamps = self._look()
        self._first = self._load()

    @classmethod
    def of(cls, settings: GrpcSettings) -> Certificates | None:
        """Those that the settings name; None where the server is to talk in plain text."""
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        return cls(settings.tls_cert, settings.tls_key, settings.client_ca)

    def credentials(self) -> Any:
        """For the server's port. The core asks at each new connection whether there is something new."""
        return grpc.dynamic_ssl_server_credentials(
            self._first, self._renewed, require_client_authentication=self._ca is not None
        )

    def _renewed(self) -> Any:
        stamps = self._look()
        if stamps == self._stamps:
            return None
        self._stamps = stamps
        try:
            renewed = self._load()
        except SettingError as fault:
            # Half of a renewal: the other half changes the files again. Till then the last good ones hold.
            logger("grpc").warning("certificates not renewed", why=str(fault))
            return None
        logger("grpc").info("certificates renewed", expires=_utc(self.expires_at))
        return renewed

    def _look(self) -> _Stamps:
        return tuple(_stamp(path) for path in (self._cert, self._key, self._ca) if path is not None)

    def _load(self) -> Any:
        cert, key = _read("TLS_CERT", self._cert), _read("TLS_KEY", self._key)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._cert, self._key)
            expires_at = x509.load_pem_x509_certificates(cert)[0].not_valid_after_utc.timestamp()
        except (ssl.SSLError, OSError, ValueError) as error:
            why = f"{self._cert} and {self._key} are no certificate and its key: {error}"
            raise SettingError("GPU_RISK_GRPC_TLS_CERT", why) from error
        ca = None
        if self._ca is not None:
            ca = _read("CLIENT_CA", self._ca)
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(self._ca)
            except (ssl.SSLError, OSError) as error:
                why = f"{self._ca} holds no certificate: {error}"
                raise SettingError("GPU_RISK_GRPC_CLIENT_CA", why) from error
        self.expires_at = expires_at  # seconds since 1970, of the server's own certificate
        return grpc.ssl_server_certificate_configuration([(key, cert)], ca)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        known = path.stat()
    except OSError:
        return None
    return known.st_mtime_ns, known.st_ino


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingError(f"GPU_RISK_GRPC_{name}", f"cannot read {path}: {error.strerror}") from error


def _utc(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat()
