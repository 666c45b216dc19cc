"""Messages made of what callers hand over: a value of the wrong kind is told by its field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from protos import packing
from risk_client.tables import numbers, refused

Kind = TypeVar("Kind", bound=Message)
Choice = TypeVar("Choice")


def message_of(kind: type[Kind], /, **fields: Any) -> Kind:
    """The message; InvalidRequest names the field that does not take its value."""
    try:
        return kind(**fields)
    except (TypeError, ValueError) as whole:
        for name, value in fields.items():
            try:
                kind(**{name: value})
            except (TypeError, ValueError) as error:
                raise refused(name, f"cannot be {_short(value)}: {error}") from None
        raise whole


def chosen(field: str, value: Any, choices: Mapping[Any, Choice]) -> Choice:
    """What a choice stands for; InvalidRequest names those that there are."""
    if isinstance(value, str) and value in choices:
        return choices[value]
    raise refused(field, f"{_short(value)} is none of {', '.join(choices)}")


def write_numbers(message: Message, **columns: Any) -> None:
    """Numbers or columns of them into their fields; None is left out."""
    for name, values in columns.items():
        if values is not None:
            packing.write(message, name, numbers(name, values))


def table_of_numbers(field: str, values: Any, dimensions: tuple[int, ...]) -> NDArray[np.float64]:
    """An array of so many dimensions."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise refused(field, f"needs an array of numbers, not {_short(values)}") from None
    if np.ma.is_masked(values):
        raise refused(field, "has masked entries")
    if array.ndim not in dimensions:
        raise refused(field, f"needs {' or '.join(map(str, dimensions))} dimensions, has {array.ndim}")
    return array


def _short(value: object) -> str:
    said = repr(value)
    return said if len(said) <= 60 else f"{said[:57]}..."
