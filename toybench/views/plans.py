"""A sweep as a page plans it: its axes, the command line and the file that ask for the same, how long it takes."""

from __future__ import annotations

import shlex
import statistics
import typing
from collections.abc import Callable
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from toybench.arguments import known_key, read_seeds, read_where
from toybench.axes import Axes, axes_of_words, read_words
from toybench.config import ConfigError, Run, annotations_of
from toybench.loading import CHOICES, PLAIN, dump_run
from toybench.presets import load_preset
from toybench.selection import value_of
from toybench.store import Store
from toybench.views.jobs import Job
from toybench.views.scene import MOST_LETTERS, differences, seed_words, words
from toybench.views.work import operations

MOST_RUNS = 100_000  # the command line asks for --yes beyond
MOST_WORD = 100_000  # letters: Linux takes no longer one on a command line
START = 5.0  # seconds until a process trains
SPEED = 6e10  # floating point operations a second, about, on two cores
METHODS_FIRST = ("nesterov", "delayed_nesterov", "sgd")  # when the outer method is swept

Kind = Literal["number", "choice", "words"]


def _classes(section: str) -> list[type]:
    return [*CHOICES[section][1].values()] if section in CHOICES else [PLAIN[section]]


def field_of(key: str) -> tuple[Field, Any] | None:
    """The field of a dotted key, with its type; None of a key that chooses a method, an optimizer or a task."""
    section, _, name = key.partition(".")
    for cls in _classes(section):
        for field in fields(cls):
            if field.name == name:
                return field, annotations_of(cls)[name]
    return None


def options_of(key: str) -> list[str]:
    """All values of a key, in words, where they are few; else none."""
    if (found := field_of(key)) is None:
        return [*CHOICES[key.partition(".")[0]][1]]
    if found[1] is bool:
        return ["false", "true"]
    return [*typing.get_args(found[1])] if typing.get_origin(found[1]) is Literal else []


def kind_of(key: str) -> Kind:
    """How the values of a key are asked for."""
    if options_of(key):
        return "choice"
    _, annotation = field_of(key) or (None, None)
    return "number" if {int, float} & {annotation, *typing.get_args(annotation)} and not _is_list(key) else "words"


def _is_list(key: str) -> bool:
    found = field_of(key)
    return found is not None and typing.get_origin(found[1]) is tuple


def _is_whole(key: str) -> bool:
    found = field_of(key)
    return found is not None and int in (found[1], *typing.get_args(found[1])) and not _is_list(key)


def keys_of(run: Run) -> list[str]:
    """The dotted keys that a configuration has, those of the outer method first."""
    sections = ("outer", "inner", "cluster", "budget", "task")
    found: dict[str, None] = {}
    for section in sections:
        tag = [CHOICES[section][0]] if section in CHOICES and len(CHOICES[section][1]) > 1 else []
        own = [field.name for field in fields(getattr(run, section))]
        found |= dict.fromkeys(f"{section}.{name}" for name in (*own[:1], *tag, *own[1:]))
    return [*found]


def suggested(run: Run, key: str) -> str:
    """Values to begin with: around those of a configuration."""
    value, options = value_of(run, key), options_of(key)
    if options:
        if len(options) <= 4:
            return ",".join(options)
        return ",".join(dict.fromkeys((value, *(name for name in METHODS_FIRST if name in options))))
    if _is_list(key):
        equal = [sum(value) / len(value)] * len(value)
        return ",".join(dict.fromkeys((" ".join(words(value)), " ".join(words(equal)))))
    if _is_whole(key):
        return ",".join(map(str, dict.fromkeys((max(1, (value or 2) // 2), value or 2, (value or 2) * 2))))
    found = field_of(key)
    bounds = found[0].metadata["bounds"] if found else {}
    if (high := bounds.get("at_most", bounds.get("below"))) is not None:
        return f"linear:{bounds.get('at_least', 0):g}:{0.9 * high:g}:7"
    if value is None and "above" in bounds:
        return "log:100:10000:5"
    return f"log:{value / 8:.2g}:{value * 8:.2g}:9" if value else "linear:0:1:6"


def read_axis(text: str) -> str:
    """``KEY=VALUES`` of a query string, as after ``--grid``.

    Raises:
        ConfigError: too long, an unknown key, no values, or a value that cannot be where only some can.
    """
    if len(text) > MOST_LETTERS:
        raise ConfigError("axis", f"is too long, {len(text):,} letters; take a range")
    key, equals, values = text.partition("=")
    if not equals:
        raise ConfigError("axis", f"expected KEY=VALUES, got {text[:80]!r}")
    key = known_key(key.strip())
    for value in read_words(key, values) if options_of(key) else ():
        read_where([f"{key}={' '.join(value)}"])
    return f"{key}={values}"


def whole(text: str) -> str:
    """An axis whose range of whole numbers is a list of them."""
    key, _, values = text.partition("=")
    if values.startswith(("log:", "linear:")) and _is_whole(key):
        values = ",".join(dict.fromkeys(str(round(float(word))) for [word] in read_words(key, values)))
    return f"{key}={values}"


@dataclass(frozen=True)
class Wanted:
    """A sweep that is wanted: a configuration over a preset, the axes as after ``--grid``, and the seeds."""

    preset: str
    base: Run
    axes: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def keys(self) -> list[str]:
        return [axis.partition("=")[0] for axis in self.axes]

    def _settings(self) -> tuple[dict[str, Any], list[str]]:
        """What the configuration changes of the preset, and what of it cannot hold for all that is swept."""
        changes, left = {}, []
        for key, value in differences(self.preset, self.base).items():
            section, _, name = key.partition(".")
            if key in self.keys:
                continue
            tag = f"{section}.{CHOICES[section][0]}" if section in CHOICES else ""
            if tag in self.keys and any(name not in {f.name for f in fields(cls)} for cls in self._swept(tag)):
                left.append(key)
            else:
                changes[key] = value
        return changes, left

    def _swept(self, tag: str) -> list[type]:
        """The settings classes that an axis of methods goes through."""
        values = self.axes[self.keys.index(tag)].partition("=")[2]
        choices = CHOICES[tag.partition(".")[0]][1]
        return [choices[word] for [word] in read_words(tag, values) if word in choices]

    @property
    def left_out(self) -> list[str]:
        """Settings of the configuration that some of the swept methods lack: each takes its own default."""
        return self._settings()[1]

    @property
    def flags(self) -> dict[str, list[str]]:
        """The configuration over the preset, in words."""
        return {key: words(value) for key, value in self._settings()[0].items()}

    def product(self) -> Axes:
        """The axes, not yet multiplied.

        Raises:
            ConfigError: an axis that cannot be, or more than `MOST_RUNS`.
        """
        axes = Axes([], axes_of_words(self.axes, [], [], None, sobol=False, seed=0))
        if (total := axes.count * len(self.seeds)) > MOST_RUNS:
            said = f"{axes.count:,} settings on {len(self.seeds):,} seeds are {total:,} runs"
            raise ConfigError("runs", f"{said}; a page takes {MOST_RUNS:,}")
        if max(map(len, self.axes)) > MOST_WORD:
            raise ConfigError(self.keys[0], "too many values for a command line; take a range")
        return axes

    def runs(self) -> list[Run]:
        """All settings.

        Raises:
            ConfigError: as `product`, or one of them is no configuration.
        """
        flags: dict[str, str | list[str]] = {**self.flags}
        return self.product().runs(load_preset(self.preset), {}, flags)

    def _rest(self, name: str, store: Path) -> list[str]:
        seeds = seed_words(self.seeds).split()
        return ["--seeds", *seeds, "--name", name, "--store", str(store), "--yes"]

    def command(self, name: str, store: Path) -> list[str]:
        """The command line that makes the sweep."""
        said = ["toybench", "sweep", "--preset", self.preset]
        said += [word for key, own in self.flags.items() for word in (_flag(key), *own)]
        return said + [word for axis in self.axes for word in ("--grid", axis)] + self._rest(name, store)

    def file(self, name: str, store: Path) -> str:
        """A file for `toybench sweep FILE` that asks for the same; its first line says with which flags."""
        import tomli_w

        tables: dict[str, dict[str, Any]] = {}
        changes, _ = self._settings()
        for key, value in changes.items():
            section, _, own = key.partition(".")
            if value is not None:
                tables.setdefault(section, {})[own] = value
        flags = [word for key, value in changes.items() if value is None for word in (_flag(key), "none")]
        grid = {axis.partition("=")[0]: _values(axis) for axis in self.axes}
        flags += [word for axis in self.axes if grid[axis.partition("=")[0]] is None for word in ("--grid", axis)]
        sweep = {"grid": {key: values for key, values in grid.items() if values is not None}}
        said = ["toybench", "sweep", f"{name}.toml", "--preset", self.preset, *flags, *self._rest(name, store)]
        return f"# {shlex.join(said)}\n\n{tomli_w.dumps({**tables, 'sweep': sweep})}"


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _values(axis: str) -> Any:
    """The values of an axis as TOML says them; None if it cannot."""
    key, _, values = axis.partition("=")
    kind, *rest = values.split(":")
    if rest and kind in ("log", "linear"):
        return {kind: [float(rest[0]), float(rest[1])], "points": int(rest[2])}
    typed = [read_where([f"{key}={' '.join(value)}"])[key] for value in read_words(key, values)]
    return None if None in typed else typed


class Size(NamedTuple):
    """How much a sweep is."""

    settings: int
    calls: int
    operations: float  # floating point


def measure_plan(wanted: Wanted, name: str) -> Callable[[Job], Size]:
    """Work that makes the runs and cuts them into calls, as the command would; the name is looked at too."""

    def work(job: Job) -> Size:
        runs = wanted.runs()
        job.report(said="cutting the runs into calls")
        from toybench.runtime import configure

        configure()
        from toybench.sweep import check_name, plan_calls

        check_name(name)
        calls = plan_calls(runs, wanted.seeds)
        return Size(len(runs), len(calls), sum(operations(run, len(wanted.seeds)) for run in runs))

    return work


class Pace(NamedTuple):
    """How long runs of a kind took."""

    seconds: float  # of one, the median
    runs: int


def measure_pace(store: Path, base: Run) -> Callable[[Job], Pace | None]:
    """Work that looks up what runs like one took, whatever their rates; None if there are none."""

    def work(job: Job) -> Pace | None:
        tables = dump_run(base)
        like = {f"task.{key}": value for key, value in tables["task"].items()}
        like |= {f"budget.{key}": value for key, value in tables["budget"].items()}
        like |= {key: value_of(base, key) for key in ("cluster.local_steps", "inner.optimizer")}
        with Store(store, writable=False) as opened:
            rows = opened.list(where=like, columns=["cluster.sec_per_step"], limit=20_000)
        seconds = [row["seconds"] for row in rows if len(row["cluster.sec_per_step"]) == base.cluster.workers]
        return Pace(statistics.median(seconds), len(seconds)) if seconds else None

    return work


def estimate(size: Size, base: Run, pace: Pace | None) -> tuple[float, str]:
    """Seconds that a sweep takes, about, and how that is known."""
    if pace is None or not (one := operations(base, 1)):
        return START + size.operations / SPEED, "by the operations it needs; no such run is stored yet"
    return START + pace.seconds * size.operations / one, f"by {pace.runs:,} runs of its kind in the store"


def duration(seconds: float) -> str:
    """A time in few letters."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def page_seeds(text: str) -> tuple[int, ...]:
    """Seeds of a sweep.

    Raises:
        ConfigError: they are none, or too many.
    """
    return tuple(read_seeds(text[:MOST_LETTERS].split() or [""]))


def free_name(taken: set[str]) -> str:
    """The first of sweep, sweep-2, … that is free."""
    return next(name for name in ("sweep", *(f"sweep-{i}" for i in range(2, len(taken) + 3))) if name not in taken)
