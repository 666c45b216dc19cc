"""Kafka record headers, and the carrier through which a trace context travels in them."""

from __future__ import annotations

from collections.abc import Iterable

Headers = tuple[tuple[str, bytes], ...]
TRACEPARENT = "traceparent"


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


class HeaderCarrier:
    """Getter and setter of OpenTelemetry's propagators over a list of Kafka headers.

    The W3C propagator writes lower-case names (`traceparent`, `tracestate`, `baggage`).
    """

    def get(self, carrier: list[tuple[str, bytes]], key: str) -> list[str] | None:
        """The value of one header, as the list that propagators expect."""
        value = get_header(carrier, key)
        return None if value is None else [value]

    def keys(self, carrier: list[tuple[str, bytes]]) -> list[str]:
        """The names of all headers."""
        return [key for key, _ in carrier]

    def set(self, carrier: list[tuple[str, bytes]], key: str, value: str) -> None:
        """Set one header in the list itself."""
        carrier[:] = set_header(carrier, key, value)
