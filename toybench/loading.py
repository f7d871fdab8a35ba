"""Strict loading: nested tables, TOML files and dotted overlays become a `Run`, or one line says what is wrong."""

from __future__ import annotations

import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from toybench.config import (
    INNER,
    Budget,
    Cluster,
    ConfigError,
    Gaussians,
    Run,
    Settings,
    annotations_of,
    describe,
)
from toybench.outer import METHODS

# section -> (the key that chooses, its choices); the first choice is the default
Choices = Mapping[str, tuple[str, Mapping[str, type[Settings]]]]
CHOICES: Choices = {
    "task": ("kind", {"gaussians": Gaussians}),
    "inner": ("optimizer", INNER),
    "outer": ("method", {"nesterov": METHODS["nesterov"].settings} | {n: m.settings for n, m in METHODS.items()}),
}
PLAIN: Mapping[str, type[Settings]] = {"cluster": Cluster, "budget": Budget}


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: the nearest known one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(known)


def settings_class(section: str, table: Mapping[str, Any], choices: Choices = CHOICES) -> type[Settings]:
    """The settings class that a section's table asks for."""
    if section in PLAIN:
        return PLAIN[section]
    tag, classes = choices[section]
    name = table.get(tag, next(iter(classes)))
    if not isinstance(name, str) or name not in classes:
        raise ConfigError(f"{section}.{tag}", f"unknown {name!r}; {nearest(str(name), classes)}")
    return classes[name]


def load_section(section: str, table: Any, choices: Choices = CHOICES) -> Settings:
    """One section, checked: unknown keys and wrong types raise `ConfigError`."""
    if not isinstance(table, Mapping):
        raise ConfigError(section, f"expected a table, got {table!r}")
    cls = settings_class(section, table, choices)
    tag = choices[section][0] if section in choices else None
    values = {key: value for key, value in table.items() if key != tag}
    names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            owner = f"{table.get(tag, next(iter(choices[section][1])))} has no such setting" if tag else "unknown key"
            raise ConfigError(f"{section}.{key}", f"{owner}; {nearest(key, names)}")
    try:
        return cls(**values)
    except ConfigError as error:
        raise error.under(section) from None


def load_run(tables: Mapping[str, Any], choices: Choices = CHOICES) -> Run:
    """A run from nested tables, as in a TOML file; what is left out takes its default.

    Raises:
        ConfigError: an unknown key, a wrong type or a value out of bounds.
    """
    sections = [f.name for f in fields(Run)]
    for key in tables:
        if key not in sections:
            raise ConfigError(key, f"unknown section; {nearest(key, sections)}")
    loaded: dict[str, Any] = {name: load_section(name, tables.get(name, {}), choices) for name in sections}
    return Run(**loaded)


def dump_run(run: Run, choices: Choices = CHOICES) -> dict[str, dict[str, Any]]:
    """The nested tables of a run, every field written out; `load_run` gives the run back."""
    tables = {}
    for section in (f.name for f in fields(Run)):
        settings = getattr(run, section)
        table = {f.name: getattr(settings, f.name) for f in fields(settings) if getattr(settings, f.name) is not None}
        table = {key: list(value) if isinstance(value, tuple) else value for key, value in table.items()}
        if section in choices:
            tag, classes = choices[section]
            table = {tag: next(name for name, cls in classes.items() if cls is type(settings))} | table
        tables[section] = table
    return tables


def overlay(run: Run, changes: Mapping[str, Any], choices: Choices = CHOICES) -> Run:
    """A run with some dotted keys changed: ``overlay(run, {"cluster.grace": 0.5})``.

    Choosing another method or optimizer starts from its defaults. A value may be text, or a list of texts, as from a
    command line; it is read as the field's type.

    Raises:
        ConfigError: as `load_run`.
    """
    tables = dump_run(run, choices)
    for key in changes:
        section, _, name = key.partition(".")
        if section not in tables or not name:
            raise ConfigError(key, f"unknown key; sections: {', '.join(tables)}")
    for section, (tag, _) in choices.items():
        chosen = _single(changes.get(f"{section}.{tag}"))
        if chosen is not None and chosen != tables[section][tag]:
            tables[section] = {tag: chosen}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        name = name.replace("-", "_")
        annotation = annotations_of(settings_class(section, tables[section], choices)).get(name)
        value = _single(value) if annotation is None else read_text(key, annotation, value)
        tables[section].pop(name, None)
        if value is not None:
            tables[section][name] = value
    return load_run(tables, choices)


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def read_text(key: str, annotation: Any, value: Any) -> Any:
    """Text from a command line as a field's type; a value that is not text passes unchanged.

    Raises:
        ConfigError: the text does not read as the type.
    """
    if value is None:
        return None
    if hasattr(value, "tolist"):  # a NumPy array or scalar
        value = value.tolist()
    if typing.get_origin(annotation) is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(read_text(key, typing.get_args(annotation)[0], item) for item in items)
    value = _single(value)
    if not isinstance(value, str):
        return value
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if type(None) in options and value.lower() == "none":
        return None
    try:
        if bool in options:
            return {"true": True, "false": False}[value.lower()]
        if int in options:
            return int(value)
        if float in options:
            return float(value)
    except (KeyError, ValueError):
        raise ConfigError(key, f"expected {describe(annotation)}, got {value!r}") from None
    return value


def read_toml(path: str | Path) -> dict[str, Any]:
    """A TOML file as nested tables.

    Raises:
        ConfigError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), f"not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), "cannot be read: not UTF-8 text") from None
    except ValueError as error:  # a name that no file can have
        raise ConfigError(repr(str(path)), f"cannot be read: {error}") from None
