"""Kafka record headers; `service_kit.telemetry.traces` carries the trace context in them."""

from __future__ import annotations

from collections.abc import Iterable

Headers = tuple[tuple[str, bytes], ...]


def get_header(headers: Iterable[tuple[str, bytes]], name: str) -> str | None:
    """The last header of that name as text, or None; bytes that are not UTF-8 are replaced."""
    found = None
    for key, value in headers:
        if key == name:
            found = value
    return None if found is None else found.decode("utf-8", "replace")


def set_header(headers: Iterable[tuple[str, bytes]], name: str, value: str) -> Headers:
    """The headers with that one set, in place of any of the same name."""
    return (*((key, old) for key, old in headers if key != name), (name, value.encode()))
