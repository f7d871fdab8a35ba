"""What the pages read of the store: opened for each question, and remembered until the file changes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import streamlit as st

from toybench.arguments import known_key, read_where
from toybench.axes import varied
from toybench.config import ConfigError
from toybench.curves import Curves
from toybench.loading import load_run
from toybench.selection import distinctions, keys_of, select, together
from toybench.store import Store

SHOWN = 500  # rows of a table
MOST_READ = 2_000  # runs whose curves a page reads at once
MOST_LOADED = 500  # configurations that are told apart by what their methods imply
MOST_COLUMNS = 8  # unless they are chosen
ROW = ("run", "loss", "seed", "simulated_time", "seconds", "created")  # what every run can be sorted by
Stamp = tuple[tuple[int, int] | None, ...]


class Choice(NamedTuple):
    """Which runs of a store: those of a sweep, or all, that have some settings."""

    sweep: str | None = None
    where: tuple[str, ...] = ()  # each KEY=VALUE

    def chosen(self) -> dict[str, Any]:
        """As the queries of a store take it."""
        return {"sweep": self.sweep, "where": read_where(self.where)}

    def flags(self) -> list[str]:
        """As a command line takes it."""
        sweep = [] if self.sweep is None else ["--sweep", self.sweep]
        return [*sweep, *(["--where", *self.where] if self.where else [])]


class Facts(NamedTuple):
    """Of the chosen runs: how many, of how many configurations, what those differ in, and all their settings."""

    runs: int
    configurations: int
    varied: list[str]
    keys: list[str]


class Listing(NamedTuple):
    """What a page shows of a store: the chosen runs, as rows in some order."""

    path: Path
    changed: Stamp
    choice: Choice
    facts: Facts
    metrics: list[str]
    columns: tuple[str, ...]
    order: str
    rows: list[dict[str, Any]]

    @property
    def numbers(self) -> list[int]:
        return [row["run"] for row in self.rows]


def read_items(text: str) -> tuple[str, ...]:
    """``KEY=VALUE …`` as a shell reads it, so that a list stands in quotation marks.

    Raises:
        ConfigError: a mark that is not closed, or what `read_where` refuses.
    """
    try:
        items = tuple(shlex.split(text))
    except ValueError:
        raise ConfigError("where", f"a quotation mark is not closed in {text[:80]!r}") from None
    read_where(items)
    return items


def stamp(path: Path) -> Stamp:
    """What changes when the store is written to: size and time of the file, and of the log beside it."""
    found = []
    for name in (path.name, f"{path.name}-wal"):
        try:
            stat = path.with_name(name).stat()
        except OSError:
            stat = None
        found.append((stat.st_mtime_ns, stat.st_size) if stat and stat.st_size else None)
    return tuple(found)


def opened(path: Path) -> Store:
    return Store(path, writable=False, make=False)


@st.cache_data(max_entries=8, show_spinner=False)
def sweeps(path: Path, changed: Stamp) -> list[dict[str, Any]]:
    """All sweeps of the store."""
    with opened(path) as store:
        return store.sweeps()


@st.cache_data(max_entries=8, show_spinner=False)
def metrics(path: Path, changed: Stamp) -> list[str]:
    """All final metrics of the store, the loss first."""
    with opened(path) as store:
        return sorted(store.metrics(), key=lambda name: (name != "loss", name))


@st.cache_data(max_entries=16, show_spinner=False)
def facts(path: Path, changed: Stamp, choice: Choice) -> Facts:
    """Of the chosen runs."""
    with opened(path) as store:
        tables = store.configurations(**choice.chosen())
        keys = dict.fromkeys(f"{section}.{key}" for one in tables for section, own in one.items() for key in own)
        return Facts(store.count(**choice.chosen()), len(tables), told_apart(tables)[:MOST_COLUMNS], list(keys))


def told_apart(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """What configurations differ in; without what their methods alone imply, where they are few enough to be loaded."""
    if len(tables) <= MOST_LOADED:
        with suppress(ConfigError):  # made by a toybench with other settings
            return keys_of(distinctions([load_run(one) for one in tables]))
    return varied(tables)


@st.cache_data(max_entries=16, show_spinner=False)
def rows(
    path: Path, changed: Stamp, choice: Choice, columns: tuple[str, ...], order: str, down: bool
) -> list[dict[str, Any]]:
    """The first of the chosen runs; what lacks the value to sort by comes last, `down` or not."""
    with opened(path) as store:
        found = store.list(**choice.chosen(), columns=columns, order=order, limit=None if down else SHOWN)
    if down:
        given = [row for row in found if row[order] is not None]
        found = [*reversed(given), *found[len(given) :]]
    return found[:SHOWN]


@st.cache_data(max_entries=16, show_spinner=False)
def describe(path: Path, changed: Stamp, number: int) -> dict[str, Any]:
    """All of a run but its curves."""
    with opened(path) as store:
        return store.describe(number)


@st.cache_data(max_entries=16, show_spinner="Reading curves …")
def settings(path: Path, changed: Stamp, choice: Choice, numbers: tuple[int, ...] = ()) -> list[Curves]:
    """The runs of these numbers, or all that are chosen, by configuration; the least final loss first."""
    with opened(path) as store:
        found = together(store.read(sorted(numbers))) if numbers else select(store, **choice.chosen())
    return sorted(found, key=lambda setting: setting.final_loss.mean())


def check_columns(names: Iterable[str], metrics: Iterable[str]) -> tuple[str, ...]:
    """Dotted keys and names of metrics, once each.

    Raises:
        ConfigError: there is no such setting and no such metric.
    """
    found = [known_key(name) if "." in name else name for name in dict.fromkeys(names)]
    for name in found:
        if "." not in name and name not in metrics:
            raise ConfigError("columns", f"no run has a metric {name!r}; there: {', '.join(metrics) or 'none'}")
    return tuple(name for name in found if name != "loss")  # which every row has
