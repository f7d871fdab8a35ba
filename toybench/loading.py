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
    Foreign,
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


def load_run(tables: Mapping[str, Any], choices: Choices = CHOICES, *, foreign: bool = False) -> Run:
    """A run from nested tables, as in a TOML file; what is left out takes its default.

    Args:
        tables: by section.
        choices: what the sections choose from.
        foreign: take a task of a kind that is not among them as it is: of a record.

    Raises:
        ConfigError: an unknown key, a wrong type or a value out of bounds.
    """
    sections = [f.name for f in fields(Run)]
    for key in tables:
        if key not in sections:
            raise ConfigError(key, f"unknown section; {nearest(key, sections)}")
    own = _foreign(tables.get("task"), choices) if foreign else None
    loaded: dict[str, Any] = {
        name: load_section(name, tables.get(name, {}), choices) for name in sections if own is None or name != "task"
    }
    return Run(**({"task": own} if own else {}), **loaded)


def _foreign(table: Any, choices: Choices) -> Foreign | None:
    """A task's table, if its kind is unknown."""
    tag, classes = choices["task"]
    kind = table.get(tag) if isinstance(table, Mapping) else None
    if not isinstance(kind, str) or kind in classes:
        return None
    items = ((key, tuple(value) if isinstance(value, list) else value) for key, value in table.items() if key != tag)
    return Foreign(kind, tuple(sorted(items)))


def dump_run(run: Run, choices: Choices = CHOICES) -> dict[str, dict[str, Any]]:
    """The nested tables of a run, every field written out; `load_run` gives the run back."""
    tables = {}
    for section in (f.name for f in fields(Run)):
        settings = getattr(run, section)
        if isinstance(settings, Foreign):
            tables[section] = {choices[section][0]: settings.kind} | dict(settings.values)
            continue
        table = {f.name: getattr(settings, f.name) for f in fields(settings) if getattr(settings, f.name) is not None}
        table = {key: list(value) if isinstance(value, tuple) else value for key, value in table.items()}
        if section in choices:
            tag, classes = choices[section]
            table = {tag: next(name for name, cls in classes.items() if cls is type(settings))} | table
        tables[section] = table
    return tables


def overlay(run: Run, changes: Mapping[str, Any], choices: Choices = CHOICES) -> Run:
    """A run with some dotted keys changed: ``overlay(run, {"cluster.grace": 0.5})``.

    Choosing another method or optimizer starts from its defaults; None takes a field's default.

    Raises:
        ConfigError: as `load_run`.
    """
    tables = _chosen(run, changes, choices)
    for key, value in changes.items():
        section, _, name = key.partition(".")
        tables[section].pop(name, None)
        if value is not None:  # a NumPy array or scalar becomes plain
            tables[section][name] = value.tolist() if hasattr(value, "tolist") else value
    return load_run(tables, choices, foreign=isinstance(run.task, Foreign))


def overlay_text(
    run: Run,
    words: Mapping[str, str | list[str]],
    changes: Mapping[str, Any] | None = None,
    choices: Choices = CHOICES,
) -> Run:
    """`overlay` of what a command line says, and of other changes below it.

    Args:
        run: what is changed.
        words: dotted keys, their hyphens as good as underscores -> a word or a list of words, read as the field's type.
        changes: as for `overlay`; `words` count where both name a key.

    Raises:
        ConfigError: a word does not read as the field's type; else as `load_run`.
    """
    said = {key.replace("-", "_"): value[0] if len(value) == 1 else value for key, value in words.items()}
    both = {**(changes or {}), **said}
    tables = _chosen(run, both, choices)
    for key, value in said.items():
        section, _, name = key.partition(".")
        annotation = annotations_of(settings_class(section, tables[section], choices)).get(name)
        both[key] = value if annotation is None else read_text(key, annotation, value)
    return overlay(run, both, choices)


def _chosen(run: Run, changes: Mapping[str, Any], choices: Choices) -> dict[str, dict[str, Any]]:
    """The tables of a run, a section emptied where another method or optimizer is chosen."""
    tables = dump_run(run, choices)
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if section not in tables:
            raise ConfigError(key, f"unknown key; sections: {', '.join(tables)}")
        if not name:
            raise ConfigError(key, f"expected a table, got {value!r}")
    for section, (tag, _) in choices.items():
        chosen = changes.get(f"{section}.{tag}")
        if chosen is not None and chosen != tables[section][tag]:
            tables[section] = {tag: chosen}
    return tables


def read_text(key: str, annotation: Any, value: str | list[str]) -> Any:
    """A word of a command line, or several, as a field's type.

    Raises:
        ConfigError: it does not read so.
    """
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if type(None) in options and isinstance(value, str) and value.lower() == "none":
        return None
    if item := next((typing.get_args(option)[0] for option in options if typing.get_origin(option) is tuple), None):
        return tuple(read_text(key, item, word) for word in ([value] if isinstance(value, str) else value))
    if not isinstance(value, str):
        raise ConfigError(key, f"expected {describe(annotation)}, got {' '.join(value)!r}")
    try:
        if bool in options:
            return {"true": True, "false": False}[value.lower()]
        if int in options:
            return int(value)
        if float in options:
            return float(value)
    except (KeyError, ValueError):
        hint = "; a file stands before the options" if value.endswith(".toml") else ""
        raise ConfigError(key, f"expected {describe(annotation)}, got {value!r}{hint}") from None
    return value


def read_toml(path: str | Path) -> dict[str, Any]:
    """A TOML file as nested tables.

    Raises:
        ConfigError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))  # editors may leave a byte-order mark
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), f"not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigError(str(path) or "file", f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), "cannot be read: not UTF-8 text") from None
    except RecursionError:
        raise ConfigError(str(path), "cannot be read: nested too deeply") from None
    except ValueError as error:  # a name that no file can have
        raise ConfigError(str(path) or "file", f"cannot be read: {error}") from None
