"""Runs chosen from a store: those of one configuration put together, and what tells the configurations apart."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from toybench.axes import differences
from toybench.config import ConfigError, ConfigWarning, Run
from toybench.curves import Curves
from toybench.loading import CHOICES
from toybench.statistics import Interval, interval
from toybench.store import Store


def select(store: Store, *, sweep: str | None = None, where: Mapping[str, Any] | None = None) -> list[Curves]:
    """The chosen runs of a store, put together by configuration: one `Curves` each, seeds ascending.

    Where several makers have made the same run, the latest counts, with a warning.

    Raises:
        ConfigError: there is no such sweep, or no such run.
    """
    numbers = [row["run"] for row in store.list(sweep=sweep, where=where)]
    if not numbers:
        if sweep is not None:
            store.plan(sweep)  # which refuses a name that is not there
        asked = [("sweep", sweep)] * (sweep is not None) + [*(where or {}).items()]
        said = ", ".join(f"{key}={text(value)}" for key, value in asked)
        raise ConfigError("store", f"no runs in {str(store.path)!r}" + (f" with {said}" if said else ""))
    found = together(store.read(numbers))
    older = len(numbers) - sum(len(setting.seeds) for setting in found)
    if older:
        warnings.warn(f"{older} runs were made again by other code or versions; the latest count", ConfigWarning, 2)
    return found


def together(runs: Iterable[Curves]) -> list[Curves]:
    """Runs of one seed each put together by configuration, seeds ascending; of a run that comes twice, the last."""
    found: dict[Run, dict[int, Curves]] = {}
    for one in runs:
        found.setdefault(one.run, {})[one.seeds[0]] = one
    return [join([seeds[seed] for seed in sorted(seeds)]) for seeds in found.values()]


def join(parts: Sequence[Curves]) -> Curves:
    """Runs of one configuration as one, seeds in order."""

    def stacked(columns: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate([*columns])

    metrics = {name: stacked(part.metrics[name] for part in parts) for name in parts[0].metrics}
    seeds = tuple(seed for part in parts for seed in part.seeds)
    return Curves(parts[0].run, seeds, stacked(p.local_steps for p in parts), stacked(p.time for p in parts), metrics)


def distinctions(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """`differences`, without those that a method alone implies: what only it has, at one value throughout."""
    rows = differences(runs)
    implied = {key for key in keys_of(rows) if _implied(key, rows)}
    return [{key: value for key, value in row.items() if key not in implied} for row in rows]


def keys_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """All keys, in order of appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _implied(key: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    section = key.partition(".")[0]
    tag = f"{section}.{CHOICES[section][0]}" if section in CHOICES else ""
    if all(key in row for row in rows) or not all(tag in row for row in rows):
        return False
    values: dict[str, set[str]] = {}
    for row in rows:
        values.setdefault(row[tag], set()).add(repr(row.get(key, "")))
    return all(len(own) == 1 for own in values.values())


def split(settings: Sequence[Curves], *keys: str) -> list[tuple[dict[str, Any], list[Curves]]]:
    """The settings in groups that differ in `keys` alone, each with what tells it from the other groups.

    Raises:
        ConfigError: one of the keys does not vary.
    """
    rows = distinctions([setting.run for setting in settings])
    # A key may vary and be implied by the method too, a rate that was tuned for it, say: it varies all the same.
    varied = keys_of(differences([setting.run for setting in settings]))
    for key in keys:
        if key not in varied:
            said = f"these vary: {', '.join(varied)}" if varied else "nothing does"
            raise ConfigError(key, f"does not vary among the {len(settings)} chosen settings; {said}")
    groups: dict[str, tuple[dict[str, Any], list[Curves]]] = {}
    for row, setting in zip(rows, settings):
        rest = {key: value for key, value in row.items() if key not in keys}
        groups.setdefault(repr(sorted(rest.items())), (rest, []))[1].append(setting)
    return list(groups.values())


class Ranked(NamedTuple):
    """A setting of a sweep: what tells it from the others, and what came of it."""

    run: Run
    settings: dict[str, Any]
    loss: float  # mean over the seeds; a diverged run counts as the untrained model
    interval: Interval | None  # none of one seed
    diverged: int
    seeds: int


def ranked(
    settings: Sequence[Curves], tell: Callable[[Sequence[Run]], list[dict[str, Any]]] = distinctions
) -> list[Ranked]:
    """The settings by their mean final loss, the least first; those that lack seeds after the others.

    Args:
        settings: what was run.
        tell: gives what tells each from the others.
    """
    rows = []
    for told, setting in zip(tell([setting.run for setting in settings]), settings):
        loss, count = setting.final_loss, len(setting.seeds)
        spread = interval(loss) if count > 1 else None
        rows.append(Ranked(setting.run, told, float(loss.mean()), spread, int(setting.diverged.sum()), count))
    most = max((row.seeds for row in rows), default=0)
    return sorted(rows, key=lambda row: (row.seeds < most, row.loss))


def value_of(run: Run, key: str) -> Any:
    """The value of a dotted key; None where the method has no such setting, or none was given."""
    section, _, name = key.partition(".")
    settings = getattr(run, section)
    if section in CHOICES and name == CHOICES[section][0]:
        return next(choice for choice, cls in CHOICES[section][1].items() if cls is type(settings))
    return getattr(settings, name, None)


def text(value: Any) -> str:
    """A value in few letters; of a list, what comes more than three times running is counted."""
    if value is None:
        return "–"
    if isinstance(value, (list, tuple)):
        runs = [(text(item), len(list(same))) for item, same in groupby(value)]
        return " ".join(f"{count}×{item}" if count > 3 else " ".join([item] * count) for item, count in runs)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def label(row: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The values of some keys, in their order."""
    return ", ".join(text(row.get(key)) for key in keys)
