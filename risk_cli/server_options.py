"""The options of a command that asks a server: where it is, and how it is spoken to."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

Command = TypeVar("Command", bound=Callable[..., None])
PANEL = "Server"


@dataclass(frozen=True, slots=True)
class Server:
    """What the command line says of a server; without an address there is none."""

    address: str = ""
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    token_file: Path | None = None

    def __bool__(self) -> bool:
        return bool(self.address)

    def __str__(self) -> str:
        return self.address


def _file(name: str, words: str) -> Any:
    words = f"{words} Or GPU_RISK_CLIENT_{name.upper()}."
    return Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help=words, rich_help_panel=PANEL)
    ]


_TLS = typer.Option(
    "--tls", help="Over TLS, by the usual authorities. Or GPU_RISK_CLIENT_TLS.", rich_help_panel=PANEL
)
_OPTIONS: dict[str, Any] = {
    "tls": Annotated[bool, _TLS],
    "ca": _file("ca", "Over TLS, by this authority (PEM)."),
    "cert": _file("cert", "This desk's certificate (PEM)."),
    "key": _file("key", "The key to it (PEM)."),
    "token_file": _file("token_file", "A bearer token, read anew for each call."),
}


def asks_server(words: str, default: str = "") -> Callable[[Command], Command]:
    """Gives a command that has a parameter `server: Server` the options that make one."""
    address = Annotated[str, typer.Option("--server", help=words, metavar="HOST:PORT", rich_help_panel=PANEL)]
    hints: dict[str, Any] = {"address": address, **_OPTIONS}
    defaults = {"address": default, "tls": False}

    def decorate(command: Command) -> Command:
        given = inspect.signature(command)
        known = get_type_hints(command, include_extras=True)
        parameters = []
        for one in given.parameters.values():
            if one.name != "server":
                parameters.append(one.replace(annotation=known[one.name]))
                continue
            parameters.extend(
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=hint
                )
                for name, hint in hints.items()
            )

        @wraps(command)
        def run(**values: Any) -> None:
            server = Server(**{field.name: values.pop(field.name) for field in fields(Server)})
            for name in _OPTIONS:
                if not server and getattr(server, name):
                    option = f"--{name.replace('_', '-')}"
                    raise typer.BadParameter("is of a server; say --server HOST:PORT", param_hint=option)
            # gRPC's own log tells of each failed handshake what we say in words.
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
            command(server=server, **values)

        keyword = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
        run.__signature__ = given.replace(parameters=keyword)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in keyword}
        return run  # type: ignore[return-value]

    return decorate
