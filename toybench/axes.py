"""What a sweep goes through: products, zips, ranges and draws over dotted keys of a configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from toybench.config import LARGEST, ConfigError, Run
from toybench.loading import dump_run, overlay_text

Point = Mapping[str, Any]  # dotted keys and their values: of TOML's types, or words of a command line


class Range(NamedTuple):
    """Numbers from `low` to `high`, evenly spaced or evenly in their logarithms."""

    low: float
    high: float
    log: bool

    def at(self, shares: np.ndarray) -> list[float]:
        """The numbers at some shares [n] of the way, to six digits, the ends exactly; whole ones are `int`."""
        if self.log:
            numbers = np.exp((1 - shares) * math.log(self.low) + shares * math.log(self.high))
        else:
            numbers = (1 - shares) * self.low + shares * self.high
        rounded = [min(max(float(f"{number:.6g}"), self.low), self.high) for number in numbers]
        exact = [{0: self.low, 1: self.high}.get(share, number) for share, number in zip(shares, rounded)]
        return [int(number) if number.is_integer() and abs(number) < LARGEST else number for number in exact]


def make_range(key: str, low: Any, high: Any, log: bool) -> Range:
    """A range, checked.

    Raises:
        ConfigError: its ends are no numbers, or in the wrong order, or not above 0 where it is logarithmic.
    """
    try:
        ends = float(low), float(high)
    except (TypeError, ValueError):
        raise ConfigError(key, f"expected two numbers as a range, got {low!r} and {high!r}") from None
    if not all(map(math.isfinite, ends)) or ends[0] >= ends[1] or (log and ends[0] <= 0):
        least = "0 < LOW < HIGH" if log else "LOW < HIGH"
        raise ConfigError(key, f"expected a range with {least}, got {ends[0]:g} to {ends[1]:g}")
    return Range(*ends, log)


def _points(key: str, count: Any) -> np.ndarray:
    try:
        number = int(count) if isinstance(count, str) or type(count) is int else 0
    except ValueError:
        number = 0
    if not 2 <= number <= 100_000:
        raise ConfigError(key, f"expected from 2 to 100000 points of a range, got {count!r}")
    return np.linspace(0, 1, number)


def _of_table(key: str, table: Mapping[str, Any]) -> tuple[Range, Any]:
    kinds = [kind for kind in ("log", "linear") if kind in table]
    if len(kinds) != 1 or set(table) - {*kinds, "points"}:
        raise ConfigError(key, f"expected a list, or {{ log = [LOW, HIGH], points = N }}, or linear, got {dict(table)}")
    ends = table[kinds[0]]
    if not isinstance(ends, Sequence) or len(ends) != 2:
        raise ConfigError(key, f"expected [LOW, HIGH], got {ends!r}")
    return make_range(key, ends[0], ends[1], kinds[0] == "log"), table.get("points")


def read_values(key: str, value: Any) -> list[Any]:
    """The values of a key in a file: a list, or a table that describes a range.

    Raises:
        ConfigError: neither, or an empty list.
    """
    if isinstance(value, Mapping):
        along, points = _of_table(key, value)
        return along.at(_points(key, points))
    if not isinstance(value, list) or not value:
        raise ConfigError(key, f"expected a list of values, or a range, got {value!r}")
    return value


def read_words(key: str, text: str) -> list[list[str]]:
    """The values of a key on a command line: ``a,b,c``, or ``log:LOW:HIGH:N``, or ``linear:LOW:HIGH:N``.

    A value may be several words: ``1 1 1,1 2 4``.

    Raises:
        ConfigError: none of these.
    """
    kind, *rest = text.split(":")
    if kind in ("log", "linear") and rest:
        if len(rest) != 3:
            raise ConfigError(key, f"expected {kind}:LOW:HIGH:N, got {text!r}")
        along = make_range(key, rest[0], rest[1], kind == "log")
        return [[str(number)] for number in along.at(_points(key, rest[2]))]
    values = [value.split() for value in text.split(",")]
    if not all(values):
        raise ConfigError(key, f"expected values with commas between, got {text!r}")
    return values


def grid(key: str, values: Sequence[Any]) -> list[Point]:
    """An axis of one key."""
    return [{key: value} for value in values]


def log_spaced(values: Sequence[float]) -> bool:
    """Whether numbers stand more evenly in their logarithms than as they are; of two, whether they lie far apart."""
    numbers = np.unique(np.asarray(values, float))
    if len(numbers) < 2 or numbers[0] <= 0:
        return False
    if len(numbers) == 2:
        return bool(numbers[1] >= 8 * numbers[0])
    uneven = [np.std(steps) / np.mean(steps) for steps in (np.diff(np.log(numbers)), np.diff(numbers))]
    return bool(uneven[0] < uneven[1])


def zipped(columns: Mapping[str, Sequence[Any]]) -> list[Point]:
    """An axis of several keys that move together.

    Raises:
        ConfigError: columns of different lengths.
    """
    lengths = {key: len(values) for key, values in columns.items()}
    if len(set(lengths.values())) != 1:
        said = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise ConfigError("zip", f"expected as many values of each key, got {said or 'no keys'}")
    return [dict(zip(columns, row)) for row in zip(*columns.values())]


Drawn = Range | list  # a key's range, or the values that it may take


def drawn(columns: Mapping[str, Drawn], samples: int, *, sobol: bool, seed: int) -> list[Point]:
    """An axis of random points, or of a scrambled Sobol sequence, over ranges and choices.

    Raises:
        ConfigError: no columns, or a number of samples or a seed that cannot be.
    """
    if not columns:
        raise ConfigError("draw", "names no key to draw")
    if type(samples) is not int or not 1 <= samples <= 100_000:
        raise ConfigError("samples", f"must be a whole number from 1 to 100000, got {samples!r}")
    if type(seed) is not int or not 0 <= seed < LARGEST:
        raise ConfigError("draw", f"expected a seed from 0 to 2^31 - 1, got {seed!r}")
    if type(sobol) is not bool:
        raise ConfigError("sobol", f"must be true or false, got {sobol!r}")
    if sobol:
        from scipy.stats import qmc

        sampler = qmc.Sobol(len(columns), rng=np.random.default_rng(seed))
        shares = sampler.random_base2(math.ceil(math.log2(samples)))[:samples]  # whole powers of 2 keep its balance
    else:
        shares = np.random.default_rng(seed).random((samples, len(columns)))
    values = [
        along.at(column) if isinstance(along, Range) else [along[int(share * len(along))] for share in column]
        for along, column in zip(columns.values(), shares.T)
    ]
    return [dict(zip(columns, row)) for row in zip(*values)]


def _dotted(table: Any, name: str) -> dict[str, Any]:
    """Keys of a table, written ``"outer.lr" = …`` or ``outer.lr = …``."""
    if not isinstance(table, Mapping):
        raise ConfigError(name, f"expected a table, got {table!r}")
    found: dict[str, Any] = {}
    for key, value in table.items():
        nested = isinstance(value, Mapping) and "." not in key
        found |= {f"{key}.{own}": item for own, item in value.items()} if nested else {key: value}
    return found


def axes_of_file(spec: Any) -> list[list[Point]]:
    """The axes of a file's ``[sweep]``: ``[sweep.grid]``, ``[[sweep.zip]]``, ``[[sweep.cases]]``, ``[sweep.draw]``.

    Raises:
        ConfigError: something else, or something wrong in them.
    """
    kinds = ("grid", "zip", "cases", "draw")
    if not isinstance(spec, Mapping) or set(spec) - set(kinds):
        found = ", ".join(sorted(set(spec) - set(kinds))) if isinstance(spec, Mapping) else repr(spec)
        raise ConfigError("sweep", f"expected tables {', '.join(kinds)}, got {found}")
    columns = _dotted(spec.get("grid", {}), "sweep.grid")
    axes = [grid(key, read_values(key, values)) for key, values in columns.items()]
    for columns in _tables(spec, "zip"):
        axes.append(zipped({key: read_values(key, values) for key, values in columns.items()}))
    if cases := _tables(spec, "cases"):
        axes.append([*cases])
    if "draw" in spec:
        table = dict(_dotted(spec["draw"], "sweep.draw"))
        samples, sobol, seed = table.pop("samples", 0), table.pop("sobol", False), table.pop("seed", 0)
        axes.append(drawn({k: _drawn_of_file(k, v) for k, v in table.items()}, samples, sobol=sobol, seed=seed))
    return axes


def _tables(spec: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    tables = spec.get(kind, [])
    if not isinstance(tables, list) or (kind in spec and not tables):
        raise ConfigError(f"sweep.{kind}", f"expected a list of tables, got {tables!r}")
    return [_dotted(table, f"sweep.{kind}") for table in tables]


def _drawn_of_file(key: str, value: Any) -> Drawn:
    return _of_table(key, value)[0] if isinstance(value, Mapping) else read_values(key, value)


def _drawn_of_words(key: str, text: str) -> Range | list[list[str]]:
    kind, *rest = text.split(":")
    if kind not in ("log", "linear") or not rest:
        return read_words(key, text)
    if len(rest) != 2:
        raise ConfigError(key, f"expected {kind}:LOW:HIGH, got {text!r}")
    return make_range(key, rest[0], rest[1], kind == "log")


def _key_and_text(option: str, text: str) -> tuple[str, str]:
    key, equals, values = text.partition("=")
    if not equals or "." not in key:
        raise ConfigError(option, f"expected SECTION.FIELD=VALUES, got {text!r}")
    return key, values


def _keys_and_texts(option: str, items: Sequence[str]) -> list[tuple[str, str]]:
    found = [_key_and_text(option, item) for item in items]
    if len({key.replace("-", "_") for key, _ in found}) < len(found):
        raise ConfigError(option, f"names a key twice: {' '.join(items)}")
    return found


def read_draws(draws: Sequence[str]) -> dict[str, Range | list[list[str]]]:
    """``KEY=RANGE`` of a command line: ``log:LOW:HIGH``, ``linear:LOW:HIGH``, or the values that it may be."""
    return {key: _drawn_of_words(key, text) for key, text in _keys_and_texts("draw", draws)}


def axes_of_words(
    grids: Sequence[str],
    zips: Sequence[Sequence[str]],
    draws: Sequence[str],
    samples: int | None,
    *,
    sobol: bool,
    seed: int,
) -> list[list[Point]]:
    """The axes of a command line: each item ``KEY=VALUES``, see `read_words`.

    Raises:
        ConfigError: an item that is not of this form; draws without `samples`, or `samples` without draws.
    """
    axes = [grid(key, read_words(key, text)) for key, text in (_key_and_text("grid", item) for item in grids)]
    for items in zips:
        axes.append(zipped({key: read_words(key, text) for key, text in _keys_and_texts("zip", items)}))
    if bool(draws) != (samples is not None):
        raise ConfigError("draw", "--draw and --samples go together")
    if draws and samples is not None:
        columns = read_draws(draws)
        points = drawn(columns, samples, sobol=sobol, seed=seed)
        axes.append([{k: v if isinstance(v, list) else [str(v)] for k, v in point.items()} for point in points])
    return axes


class Axes(NamedTuple):
    """The axes of a sweep: those of a file, with TOML's types, and those of a command line, in words."""

    typed: list[list[Point]]
    words: list[list[Point]]

    @property
    def count(self) -> int:
        """Points of the product."""
        return math.prod(len(axis) for axis in (*self.typed, *self.words))

    def runs(self, base: Run, typed: Point | None = None, words: Point | None = None) -> list[Run]:
        """Every point of the product laid over a configuration; a configuration that comes twice is kept once.

        Args:
            base: below everything.
            typed: changes that hold for all points, below the axes: a file's.
            words: likewise, a command line's.

        Raises:
            ConfigError: two axes of one key, or a point that is no configuration.
        """
        typed, words, axes = typed or {}, words or {}, (*self.typed, *self.words)
        keys = [{key.replace("-", "_") for point in axis for key in point} for axis in axes]
        twice = {key for i, own in enumerate(keys) for key in own if any(key in other for other in keys[:i])}
        if twice:
            raise ConfigError(sorted(twice)[0], "is on two axes")
        found = {}
        for from_file in product(*self.typed):
            below = {**typed, **{key: value for point in from_file for key, value in point.items()}}
            own = {key: value for key, value in words.items() if key.replace("-", "_") not in set().union(*keys)}
            for from_words in product(*self.words):
                above = {**own, **{key: value for point in from_words for key, value in point.items()}}
                found[overlay_text(base, above, below)] = None
        return list(found)


def differences(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What configurations differ in: for each its dotted keys, those left out that are the same in all."""
    tables = [dump_run(run) for run in runs]
    flat = [{f"{s}.{k}": v for s, table in one.items() for k, v in table.items()} for one in tables]
    keys = varied(tables)
    return [{key: one[key] for key in keys if key in one} for one in flat]


def varied(configurations: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """The dotted keys that some configurations, as nested tables, differ in."""
    found: dict[str, None] = {}
    for tables in configurations:
        for section, first in configurations[0].items():
            own = tables[section]
            if own != first:
                found |= {f"{section}.{k}": None for k in {**first, **own} if own.get(k, own) != first.get(k, own)}
    every = dict.fromkeys(f"{section}.{k}" for tables in configurations for section in tables for k in tables[section])
    return [key for key in every if key in found]
