"""The values of settings: from the text of an environment variable or a TOML value, and back to text."""

from __future__ import annotations

import enum
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union

from service_kit.errors import SettingError


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A string that never shows itself in a repr, a log or an error."""

    _text: str

    def reveal(self) -> str:
        """The secret text itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "Secret(***)"


def as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, tuple):
        return ",".join(as_text(item) for item in value)
    return str(value)


def _alternatives(hint: Any) -> tuple[Any, bool]:
    """(`X`, True) for Optional[X], (hint, False) for anything else."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        inner = [one for one in typing.get_args(hint) if one is not types.NoneType]
        if len(inner) != 1:
            raise TypeError(f"a setting has one type or None, not {hint}")
        return inner[0], True
    return hint, False


def takes(hint: Any) -> str:
    """What a setting of this type takes, for messages."""
    inner, optional = _alternatives(hint)
    if typing.get_origin(inner) is Literal:
        text = "one of " + ", ".join(str(one) for one in typing.get_args(inner))
    elif typing.get_origin(inner) is tuple:
        text = f"a list, each {takes(typing.get_args(inner)[0])}"
    elif isinstance(inner, type) and issubclass(inner, enum.Enum):
        text = "one of " + ", ".join(str(one.value) for one in inner)
    else:
        names = {str: "a string", int: "an integer", float: "a finite number", bool: "true or false"}
        text = names.get(inner, "a path" if inner is Path else "a string")
    return text + (" or nothing" if optional else "")


def _bad(hint: Any, value: Any, name: str) -> SettingError:
    return SettingError(name, f"{value!r} is not accepted; it takes {takes(hint)}")


_BOOLS = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


def parse_text(hint: Any, text: str, name: str) -> Any:
    """A value from the text of an environment variable."""
    inner, optional = _alternatives(hint)
    if optional and text == "":
        return None
    if typing.get_origin(inner) is tuple:
        item = typing.get_args(inner)[0]
        return tuple(parse_text(item, part.strip(), name) for part in text.split(",") if part.strip())
    if inner is bool:
        if text.strip().lower() not in _BOOLS:
            raise _bad(hint, text, name)
        return _BOOLS[text.strip().lower()]
    if inner in (int, float):
        try:
            number = inner(text)
        except ValueError as error:
            raise _bad(hint, text, name) from error
        return _finite(hint, number, name)
    return _from_string(hint, inner, text, name)


def parse_native(hint: Any, value: Any, name: str) -> Any:
    """A value from a TOML file, where numbers, booleans and lists have types of their own."""
    inner, _ = _alternatives(hint)
    if typing.get_origin(inner) is tuple and isinstance(value, list):
        return tuple(parse_native(typing.get_args(inner)[0], one, name) for one in value)
    if inner is bool and isinstance(value, bool):
        return value
    if inner in (int, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        if inner is int and isinstance(value, float):
            raise _bad(hint, value, name)
        return _finite(hint, inner(value), name)
    if isinstance(value, str) and inner not in (bool, int, float) and typing.get_origin(inner) is not tuple:
        return _from_string(hint, inner, value, name)
    by_value = _by_value(inner)
    if by_value is not None and not isinstance(value, (bool, list, dict)) and str(value) in by_value:
        return by_value[str(value)]
    raise _bad(hint, value, name)


def _finite(hint: Any, number: Any, name: str) -> Any:
    if not math.isfinite(number):
        raise _bad(hint, number, name)
    return number


def _by_value(inner: Any) -> dict[str, Any] | None:
    """Text of each allowed value → the value, for Literal and Enum types."""
    if typing.get_origin(inner) is Literal:
        return {str(one): one for one in typing.get_args(inner)}
    if isinstance(inner, type) and issubclass(inner, enum.Enum):
        return {str(one.value): one for one in inner}
    return None


def _from_string(hint: Any, inner: Any, text: str, name: str) -> Any:
    by_value = _by_value(inner)
    if by_value is not None:
        if text not in by_value:
            raise _bad(hint, text, name)
        return by_value[text]
    makers: dict[Any, Callable[[str], Any]] = {str: str, Path: Path, Secret: Secret}
    if inner not in makers:
        raise TypeError(f"setting {name}: no parser for {inner}")
    if inner is Path and text == "":
        raise _bad(hint, text, name)
    return makers[inner](text)
