"""What an adapter raises, and nothing else, when its input is not what the format allows.

AdapterError
├── ItchError         bytes that are no ITCH 5.0; names the byte
├── LobsterError      a LOBSTER file that contradicts itself; names file, line and column
├── TabularError      a table that does not fit its mapping; names file, line and column
├── FeedError         a JSON message of a feed that cannot be read; names the field
├── PlanError         a feed that is described wrongly; names the field
├── SymbolError       two symbols of a source would become one
└── WebSocketError    a peer that breaks RFC 6455 or a limit of ours
"""

from __future__ import annotations


class AdapterError(ValueError):
    """Input that cannot be decoded."""


class ItchError(AdapterError):
    """Bytes that are no ITCH 5.0; `offset` counts from the start of the stream."""

    def __init__(self, offset: int, why: str) -> None:
        self.offset, self.why = offset, why
        super().__init__(f"byte {offset}: {why}")


class LobsterError(AdapterError):
    """A LOBSTER file that is malformed or contradicts itself."""


class TabularError(AdapterError):
    """A table that does not fit its mapping."""


class FeedError(AdapterError):
    """A JSON message that cannot be read."""


class PlanError(AdapterError):
    """A feed that is described wrongly."""

    def __init__(self, field: str, why: str) -> None:
        self.field, self.why = field, why
        super().__init__(f"{field}: {why}")


class SymbolError(AdapterError):
    """Two symbols of a source would become one of ours."""


class WebSocketError(AdapterError):
    """A peer that breaks the WebSocket protocol, or a limit of ours."""
