"""Structured logs on stderr: JSON for machines, a readable console for people; secrets never in them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TextIO

import structlog

# Values under these names are hidden whoever logs them.
HIDDEN = ("authorization", "password", "secret", "token", "private_key", "sasl")


class About(Protocol):
    """What is being done, and so belongs on every line that is logged meanwhile."""

    def log_fields(self) -> Mapping[str, str]:
        """Name and value of each field."""


ABOUT: ContextVar[About | None] = ContextVar("gpu_risk_about", default=None)


@dataclass(frozen=True)
class LogSettings:
    """How much is logged and in which form (`GPU_RISK_LOG_…`)."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    form: Literal["auto", "json", "console"] = "auto"  # auto: console on a terminal, else JSON


def hide_secrets(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace values whose name says that they are secret."""
    for key in event:
        if key != "event" and any(word in key.lower() for word in HIDDEN):
            event[key] = "***"
    return event


def tell_about(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add what is known of the call that is served; what the line says itself stays."""
    about = ABOUT.get()
    if about is not None:
        for key, value in about.log_fields().items():
            event.setdefault(key, value)
    return event


def _of_use(record: logging.LogRecord) -> bool:
    # grpc.aio's words for a caller that left while it was being answered: the caller's right, and counted.
    return not str(record.msg).startswith("ExecuteBatchError raised in core by servicer method")


def start_logs(settings: LogSettings, service: str, stream: TextIO | None = None) -> None:
    """Configure structlog and the standard library's logging of this process, once, at its edge."""
    out = sys.stderr if stream is None else stream
    console = settings.form == "console" or (settings.form == "auto" and out.isatty())
    level = getattr(logging, settings.level.upper())

    def name_service(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        # Not by a context variable: a thread begins with none.
        event.setdefault("service", service)
        return event

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        tell_about,
        name_service,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_secrets,
    ]
    if console:
        last: list[Any] = [structlog.dev.ConsoleRenderer(colors=out.isatty())]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    handler.addFilter(_of_use)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries say at info what is of no use to an operator; our own events come through structlog.
    root.setLevel(max(level, logging.WARNING))


def logger(name: str) -> Any:
    """A structured logger: `logger("book").info("started", port=50051)`."""
    return structlog.get_logger().bind(logger=name)
