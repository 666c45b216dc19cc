"""A server that a command asks: what it refuses is the caller's mistake, what it cannot do is not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import risk_client
from risk_cli.refusals import BadInput, CannotDo
from risk_cli.server_options import Server
from service_kit.errors import SettingError
from service_kit.settings import PREFIX, Secret, load

# A large book on a busy server.
DEADLINE_S = 120.0

Client = TypeVar("Client", "risk_client.RiskClient", "risk_client.BookClient")


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How servers are spoken to, where the command line is silent."""

    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    token: Secret = field(default=Secret(""))
    token_file: Path | None = None


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """The settings of commands that ask a server; the services know their names and pass them over."""

    client: ConnectionSettings = field(default_factory=ConnectionSettings)


@contextmanager
def risk_server(server: Server) -> Iterator[risk_client.RiskClient]:
    """A connection to risk_service; errors come out as the command's own."""
    with _connected(risk_client.RiskClient, server) as client:
        yield client


@contextmanager
def book_server(server: Server) -> Iterator[risk_client.BookClient]:
    """A connection to book_service; errors come out as the command's own."""
    with _connected(risk_client.BookClient, server) as client:
        yield client


def named_engine(engine: str) -> str:
    """The engine as a request names it: the server chooses where it is auto."""
    return "" if engine == "auto" else engine


@contextmanager
def _connected(kind: Callable[..., Client], server: Server) -> Iterator[Client]:
    credentials, token = _credentials(server), _token(server)
    if not server.address.startswith("unix:") and not server.address.rpartition(":")[2].isdigit():
        raise BadInput(f"--server: {server.address!r} is no HOST:PORT")
    try:
        client = kind(server.address, credentials, token, deadline_s=DEADLINE_S)
    except ValueError as mistake:
        raise BadInput(f"--server: {mistake.args[0].partition(';')[0]}; say --tls or --ca") from None
    try:
        with client:
            yield client
    except (risk_client.InvalidRequest, risk_client.NotFound) as fault:
        where = "; ".join(f"{one.field}: {one.why}" for one in fault.violations)
        raise BadInput(f"{server} refuses: {where or fault}") from None
    except risk_client.Unauthenticated as fault:
        raise CannotDo(f"{server}: {fault} (--token-file, or --cert and --key, say who asks)") from None
    except risk_client.Unavailable as fault:
        raise CannotDo(f"{server}: {_why_unavailable(str(fault))}") from None
    except risk_client.RiskClientError as fault:
        raise CannotDo(f"{server}: {fault}") from None


def _settings() -> ConnectionSettings:
    ours = {name: text for name, text in os.environ.items() if name.startswith(f"{PREFIX}CLIENT_")}
    try:
        return load(ClientSettings, ours).client
    except SettingError as mistake:
        raise BadInput(str(mistake)) from None


def _credentials(server: Server) -> Any:
    """For TLS where anything asks for it; else None."""
    usual = _settings()
    ca, cert, key = (
        _pem(name, getattr(server, name) or getattr(usual, name)) for name in ("ca", "cert", "key")
    )
    if (cert is None) != (key is None):
        raise BadInput(f"--{'cert' if cert is None else 'key'}: is missing; certificate and key go together")
    if not (server.tls or usual.tls or ca or cert):
        return None
    return risk_client.tls(ca, cert, key)


def _pem(name: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    text = _read(name, path)
    if b"-----BEGIN" not in text:
        raise BadInput(f"--{name}: {path} is no PEM file")
    return text


def _token(server: Server) -> Callable[[], str] | str | None:
    """The token; one in a file is read for every call, so that whoever renews it need not stop us."""
    usual = _settings()
    path = server.token_file or (None if usual.token else usual.token_file)
    if path is None:
        return usual.token.reveal() or None
    if not _read("token-file", path).strip():
        raise BadInput(f"--token-file: {path} is empty")
    return lambda: _read("token-file", path).decode("ascii", "replace").strip()


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"--{option}: {path} cannot be read: {error.strerror or error}") from None


# What gRPC says, in pieces, and what a reader can do about it; the first that fits.
_WHY = (
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not signed by an authority that we trust (see --ca)"),
    (
        "certificate signature failure",
        "its certificate is not signed by an authority that we trust (see --ca)",
    ),
    ("Hostname Verification", "its certificate is for another name"),
    ("WRONG_VERSION_NUMBER", "does not speak TLS: leave out --tls, --ca and GPU_RISK_CLIENT_TLS, _CA"),
    ("Connection refused", "nobody listens there"),
    ("name not found", "there is no host of this name"),
    ("Socket closed", "hangs up: if it wants TLS, say --tls or --ca"),
)


def _why_unavailable(said: str) -> str:
    return next((words for piece, words in _WHY if piece in said), said)
