"""TOML files read key by key; every complaint names file, line and key, and unknown keys are refused."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from risk_cli.refusals import BadInput

Place = tuple[str | int, ...]
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")


def read_toml(path: Path) -> Section:
    """The file's top level."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path.name}: is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise BadInput(f"{path.name}: cannot be read: {error.strerror or error}") from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path.name}: is not TOML: {error}") from error
    return Section(path, _lines(text), (), values)


class Section:
    """A table of the file. Reading a key in the wrong type raises BadInput with its line."""

    def __init__(self, path: Path, lines: Mapping[Place, int], place: Place, values: Mapping[str, Any]):
        self.path = path
        self.values = values
        self._lines = lines
        self._place = place

    def fault(self, key: str | None, reason: str) -> BadInput:
        """A complaint about one key, or about the table."""
        place = self._place if key is None else (*self._place, key)
        known = (place[:size] for size in range(len(place), 0, -1))
        line = next((self._lines[part] for part in known if part in self._lines), None)
        where = "" if line is None else f", line {line}"
        name = ".".join(str(part) for part in place if isinstance(part, str)) or "file"
        return BadInput(f"{self.path.name}{where}, {name}: {reason}")

    def only(self, *known: str) -> None:
        """Refuses a key that is not among these."""
        for key in self.values:
            if key not in known:
                raise self.fault(key, f"is unknown here; there are {', '.join(known)}")

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def number(
        self,
        key: str,
        default: float | None = None,
        *,
        low: float = -math.inf,
        above: float = -math.inf,
        high: float = math.inf,
    ) -> float:
        """A finite number, at least `low`, above `above` and at most `high`."""
        if key not in self.values:
            if default is None:
                raise self.fault(key, "is missing")
            return default
        return self.checked(key, self.values[key], low=low, above=above, high=high)

    def checked(
        self,
        key: str,
        value: object,
        *,
        low: float = -math.inf,
        above: float = -math.inf,
        high: float = math.inf,
    ) -> float:
        """`value`, which stands under `key`, as a finite number within bounds."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.fault(key, f"must be a number, got {value!r}")
        if value < low or value <= above or value > high:
            bounds = [
                *([f"at least {low:g}"] if math.isfinite(low) else []),
                *([f"above {above:g}"] if math.isfinite(above) else []),
                *([f"at most {high:g}"] if math.isfinite(high) else []),
            ]
            raise self.fault(key, f"must be {' and '.join(bounds)}, got {value:g}")
        return float(value)

    def whole(self, key: str, default: int, *, low: int, high: int = 10**9) -> int:
        """A whole number within bounds."""
        value = self.number(key, default, low=low, high=high)
        if value != int(value):
            raise self.fault(key, f"must be a whole number, got {value:g}")
        return int(value)

    def numbers(self, key: str, *, low: float = -math.inf, high: float = math.inf) -> tuple[float, ...]:
        """A list of finite numbers with at least one entry, each within bounds."""
        values = self.values.get(key)
        if not isinstance(values, list) or not values:
            raise self.fault(key, "must be a list of numbers" if key in self.values else "is missing")
        return tuple(self.checked(key, value, low=low, high=high) for value in values)

    def text(self, key: str, default: str | None = None, choices: Sequence[str] = ()) -> str:
        """A text that is not empty; one of `choices` if there are any."""
        value = self.values.get(key, default)
        if not isinstance(value, str) or not value.strip():
            raise self.fault(key, "must be a text" if key in self.values else "is missing")
        if choices and value not in choices:
            raise self.fault(key, f"{value!r} is none of {', '.join(choices)}")
        return value

    def day(self, key: str) -> date | None:
        """A date (2026-11-20), also written as text; None if it is not there."""
        moment = self.moment(key)
        return None if moment is None else moment.date()

    def moment(self, key: str) -> datetime | None:
        """A date or a date with time; None if it is not there."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                raise self.fault(key, f"{value!r} is no date (YYYY-MM-DD)") from None
        if isinstance(value, datetime):
            return value
        if isinstance(value, date):
            return datetime.combine(value, time())
        raise self.fault(key, f"must be a date (YYYY-MM-DD), got {value!r}")

    def by_symbol(
        self, key: str, default: float = 0.0, *, low: float = -math.inf, high: float = math.inf
    ) -> dict[str, float]:
        """A number for all, or a table of numbers by symbol with `default` for the others."""
        value = self.values.get(key, default)
        if not isinstance(value, dict):
            return {"default": self.checked(key, value, low=low, high=high)}
        inner = self.section(key)
        given = {name: inner.checked(name, one, low=low, high=high) for name, one in value.items()}
        return {"default": default, **given}

    def section(self, key: str) -> Section:
        """The table under `key`; an empty one if it is not there."""
        values = self.values.get(key, {})
        if not isinstance(values, dict):
            raise self.fault(key, "must be a table")
        return Section(self.path, self._lines, (*self._place, key), values)

    def sections(self, key: str) -> tuple[Section, ...]:
        """The tables of an array of tables, [[key]]."""
        values = self.values.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise self.fault(key, f"must be tables: each headed [[{key}]], or a list of {{…}}")
        return tuple(
            Section(self.path, self._lines, (*self._place, key, number), value)
            for number, value in enumerate(values)
        )


def _lines(text: str) -> dict[Place, int]:
    """On which line each table and key stands (inline tables: the line that they begin on)."""
    found: dict[Place, int] = {}
    counts: dict[str, int] = {}
    current: Place = ()
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.fullmatch(line)
        if header is not None:
            names = _parts(header[2])
            current = names
            if header[1] == "[[":
                counts[header[2]] = counts.get(header[2], -1) + 1
                current = (*names, counts[header[2]])
                found.setdefault(names, number)
            found.setdefault(current, number)
            continue
        key = _KEY.match(line)
        if key is not None:
            found.setdefault((*current, *_parts(key[1])), number)
    return found


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))
