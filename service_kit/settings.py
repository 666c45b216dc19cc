"""Typed settings, parsed once at the edge of a process.

A settings class is a frozen dataclass; a field whose type is another frozen dataclass is a section.
`kafka.bootstrap` is read from the environment as `GPU_RISK_KAFKA_BOOTSTRAP`, or from a TOML file as

    [kafka]
    bootstrap = "localhost:9092"

The environment wins over the file, the file over the default. A name that no settings class knows, a key
that no table has, a missing or a bad value is refused, naming the setting and what it takes.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from service_kit.errors import SettingError
from service_kit.setting_values import Secret, as_text, parse_native, parse_text, takes

PREFIX = "GPU_RISK_"
SETTINGS_FILE = "GPU_RISK_SETTINGS_FILE"
# Names with our prefix that are not settings of a process: what tests and the lifecycle read.
RESERVED = frozenset(
    {
        SETTINGS_FILE,
        "GPU_RISK_TEST_SEED",
        "GPU_RISK_REQUIRE_KAFKA",
        "GPU_RISK_PARENT_PIPE",
    }
)

__all__ = ["PREFIX", "RESERVED", "SETTINGS_FILE", "Secret", "as_environment", "limited", "load"]

T = TypeVar("T")


def limited(default: T, *, at_least: float | None = None, at_most: float | None = None) -> T:
    """A dataclass field with a default and inclusive bounds that `load` enforces."""
    bounds = {"at_least": at_least, "at_most": at_most}
    made: T = dataclasses.field(default=default, metadata=bounds)
    return made


@dataclass(frozen=True, slots=True)
class _Leaf:
    """One setting: its path of names, its type, its bounds and default."""

    path: tuple[str, ...]
    type: Any
    bounds: Mapping[str, Any]
    required: bool

    @property
    def env_name(self) -> str:
        return PREFIX + "_".join(self.path).upper()

    @property
    def toml_name(self) -> str:
        return ".".join(self.path)


def load(
    settings_class: type[T],
    env: Mapping[str, str] | None = None,
    toml_path: str | os.PathLike[str] | None = None,
    *,
    beside: Sequence[type] = (),
) -> T:
    """Build `settings_class` from the environment and a TOML file; raise SettingError naming what is wrong.

    `beside`: settings classes of other processes that share the environment or the file; their names are
    known and passed over. `GPU_RISK_SETTINGS_FILE` names the file where `toml_path` does not.
    """
    environment = os.environ if env is None else env
    leaves = {leaf.path: leaf for leaf in _leaves(settings_class)}
    known = dict(leaves)
    for other in beside:
        known.update({leaf.path: leaf for leaf in _leaves(other)})
    _refuse_ambiguous(known.values())
    file = toml_path if toml_path is not None else environment.get(SETTINGS_FILE) or None
    values = {} if file is None else _from_toml(Path(file), leaves, known)
    values.update(_from_environment(environment, leaves, known))
    return typing.cast(T, _build(settings_class, (), leaves, values))


def as_environment(settings: object) -> dict[str, str]:
    """The environment that makes `load` give these settings again; secrets are revealed, so never log it."""
    out: dict[str, str] = {}
    for leaf in _leaves(type(settings)):
        value: Any = settings
        for name in leaf.path:
            value = getattr(value, name)
        out[leaf.env_name] = as_text(value)
    return out


def _leaves(cls: type, path: tuple[str, ...] = ()) -> Iterator[_Leaf]:
    if not (dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise TypeError(f"{cls.__name__} must be a frozen dataclass")
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint, here = hints[field.name], (*path, field.name)
        if dataclasses.is_dataclass(hint) and hint is not Secret:
            yield from _leaves(typing.cast(type, hint), here)
        else:
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            yield _Leaf(here, hint, field.metadata, required)


def _refuse_ambiguous(leaves: Any) -> None:
    seen: dict[str, _Leaf] = {}
    for leaf in leaves:
        first = seen.setdefault(leaf.env_name, leaf)
        if first.path != leaf.path:
            raise TypeError(f"{leaf.env_name} would mean both {first.toml_name} and {leaf.toml_name}")


def _nearest(name: str, known: Sequence[str]) -> str:
    # Without the prefix that all of them share, or everything looks near.
    bare = {one.removeprefix(PREFIX): one for one in known}
    close = difflib.get_close_matches(name.removeprefix(PREFIX), list(bare), n=1, cutoff=0.6)
    return f"; did you mean {bare[close[0]]}?" if close else f"; known: {', '.join(sorted(known))}"


_Path = tuple[str, ...]


def _from_environment(
    env: Mapping[str, str], leaves: Mapping[_Path, _Leaf], known: Mapping[_Path, _Leaf]
) -> dict[_Path, Any]:
    by_name = {leaf.env_name: leaf for leaf in known.values()}
    values: dict[_Path, Any] = {}
    for name in sorted(env):
        if not name.startswith(PREFIX) or name in RESERVED:
            continue
        leaf = by_name.get(name)
        if leaf is None:
            raise SettingError(name, "unknown setting" + _nearest(name, list(by_name)))
        if leaf.path in leaves:
            values[leaf.path] = _checked(leaf, name, parse_text(leaf.type, env[name], name))
    return values


def _from_toml(path: Path, leaves: Mapping[_Path, _Leaf], known: Mapping[_Path, _Leaf]) -> dict[_Path, Any]:
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise SettingError(str(path), f"cannot read the settings file: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(str(path), f"not a TOML file: {error}") from error
    values: dict[_Path, Any] = {}
    _walk_table(table, (), path, leaves, known, values)
    return values


def _walk_table(
    table: Mapping[str, Any],
    at: _Path,
    path: Path,
    leaves: Mapping[_Path, _Leaf],
    known: Mapping[_Path, _Leaf],
    values: dict[_Path, Any],
) -> None:
    for key, value in table.items():
        here = (*at, key)
        name = f"{'.'.join(here)} in {path.name}"
        if here in known:
            if here in leaves:
                values[here] = _checked(leaves[here], name, parse_native(leaves[here].type, value, name))
        elif not any(leaf[: len(here)] == here for leaf in known):
            names = sorted({".".join(leaf[: len(here)]) for leaf in known if leaf[: len(at)] == at})
            raise SettingError(name, "unknown setting" + _nearest(".".join(here), names))
        elif isinstance(value, dict):
            _walk_table(value, here, path, leaves, known, values)
        else:
            raise SettingError(name, f"is a table [{'.'.join(here)}], not a value")


def _build(cls: type, at: _Path, leaves: Mapping[_Path, _Leaf], values: Mapping[_Path, Any]) -> Any:
    hints = typing.get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        here = (*at, field.name)
        leaf = leaves.get(here)
        if leaf is None:
            arguments[field.name] = _build(hints[field.name], here, leaves, values)
        elif here in values:
            arguments[field.name] = values[here]
        elif leaf.required:
            why = f"is missing; set it, or {leaf.toml_name} in a TOML file, to {takes(leaf.type)}"
            raise SettingError(leaf.env_name, why)
    try:
        return cls(**arguments)
    except ValueError as error:
        # A section's own __post_init__ refuses a combination of values.
        raise SettingError((PREFIX + "_".join(at).upper()).rstrip("_"), str(error)) from error


def _checked(leaf: _Leaf, name: str, value: Any) -> Any:
    low, high = leaf.bounds.get("at_least"), leaf.bounds.get("at_most")
    if value is None or (low is None and high is None):
        return value
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = [f"at least {low:g}"] * (low is not None) + [f"at most {high:g}"] * (high is not None)
        raise SettingError(name, f"{value} is out of range; it takes {' and '.join(bounds)}")
    return value
