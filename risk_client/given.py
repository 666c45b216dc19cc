"""What callers hand over for a book, for scenarios and for trades: names, messages, or tables of their
own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from protos.risk.v1 import risk_pb2 as wire
from risk_client.errors import InvalidRequest, Violation
from risk_client.portfolios import CALLERS_NAMES, portfolio_of
from risk_client.tables import Kind, frame_kind

_OF_POSITIONS = re.compile(r"(?:\w+\.)*(?:positions|trade|instruments)\.(\w+)(\[\d+\])?")
_OF_SCENARIOS = re.compile(r"(?:scenarios|custom)\.(?:spot_return|vol_change)\[(\d+)\]")


def table_kind(given: object) -> Kind | None:
    """The library of a table; numpy for a mapping of arrays; None for what is no table."""
    return "numpy" if isinstance(given, Mapping) else frame_kind(given)


@dataclass(frozen=True, slots=True)
class Book:
    """A portfolio: stored, or sent along."""

    name: str = ""  # of a stored one
    message: wire.Portfolio | None = None
    table: Any = None  # that the message was made of

    @classmethod
    def of(cls, given: Any) -> Book:
        """Reads what a caller gave."""
        if isinstance(given, str):
            return cls(name=given)
        if isinstance(given, wire.Portfolio):
            return cls(message=given)
        if table_kind(given) is None:
            raise TypeError(f"portfolio: must be its name, a message or a table, not {type(given).__name__}")
        return cls(message=portfolio_of(given, "inline"), table=given)

    def put_into(self, request: wire.ExpectedShortfallRequest | wire.StressTestRequest) -> None:
        """Fills in a request's book."""
        if self.message is None:
            request.portfolio = self.name
        else:
            request.inline_portfolio.CopyFrom(self.message)


def in_callers_words(fault: InvalidRequest) -> InvalidRequest:
    """A refusal of what was a table, with the table's own columns; its rows are in the same order."""
    told = tuple(Violation(_callers_field(one.field), one.why) for one in fault.violations)
    if told == fault.violations:
        return fault
    text = "; ".join(f"{one.field}: {one.why}" for one in told)
    return InvalidRequest(text, told, fault.retry_after_s)


def _callers_field(field: str) -> str:
    found = _OF_POSITIONS.fullmatch(field)
    if found is not None:
        return CALLERS_NAMES.get(found[1], found[1]) + (found[2] or "")
    found = _OF_SCENARIOS.fullmatch(field)
    return f"scenarios[{found[1]}]" if found is not None else field
