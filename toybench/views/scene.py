"""What a page shows, as one value: up to four configurations on some seeds, to and from a query string."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from toybench.arguments import read_seeds
from toybench.config import ConfigError, Run
from toybench.loading import CHOICES, dump_run, overlay, overlay_text
from toybench.presets import load_preset, load_tuning, tuning_path
from toybench.study import SYNC, vary

LETTERS = "abcd"  # of the configurations, as the query string names them
MOST_SEEDS = 16  # of a page
MOST_LETTERS = 4_000  # of a value in a query string
preset_run = lru_cache(load_preset)


@dataclass(frozen=True)
class Scene:
    """Configurations side by side, each on all seeds."""

    preset: str = "default"
    seeds: tuple[int, ...] = (100, 101, 102)  # nothing was tuned or chosen on these
    runs: tuple[Run, ...] = ()

    def __post_init__(self):
        if not self.runs:
            object.__setattr__(self, "runs", (preset_run(self.preset),))

    def change(self, i: int, changes: Mapping[str, Any]) -> Scene:
        """Configuration `i` changed by dotted keys; see `vary`.

        Raises:
            ConfigError: it would be no configuration.
        """
        return self.put(i, vary(self.runs[i], changes))

    def put(self, i: int, run: Run) -> Scene:
        """Another configuration in the place of `i`, or after the last."""
        return replace(self, runs=(*self.runs[:i], run, *self.runs[i + 1 :])[: len(LETTERS)])

    def drop(self, i: int) -> Scene:
        """Without configuration `i`, unless it is the only one."""
        return replace(self, runs=(*self.runs[:i], *self.runs[i + 1 :]) or self.runs)


def differences(preset: str, run: Run) -> dict[str, Any]:
    """The dotted keys that turn a preset into a configuration, so that `overlay` gives it; None takes the default."""
    base, found = preset_run(preset), {}
    own = dump_run(run)
    for section, (tag, _) in CHOICES.items():
        if dump_run(base)[section][tag] != own[section][tag]:
            found[f"{section}.{tag}"] = own[section][tag]
    before = dump_run(overlay(base, found))
    for section, table in own.items():
        keys = {**before[section], **table}
        found |= {f"{section}.{k}": table.get(k) for k in keys if table.get(k) != before[section].get(k)}
    return found


def words(value: Any) -> list[str]:
    """A value as a command line says it: the words after its flag."""
    if value is None:
        return ["none"]
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, (list, tuple)):
        return [word for item in value for word in words(item)]
    return [repr(value) if isinstance(value, float) else str(value)]


def seed_words(seeds: Iterable[int]) -> str:
    """Seeds as `read_seeds` reads them, in short."""
    seeds = tuple(seeds)
    if seeds == tuple(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}:{seeds[-1] + 1}"
    return " ".join(map(str, seeds))


def encode(scene: Scene) -> dict[str, str]:
    """A scene as a query string's parameters: ``a.outer.lr=0.3`` is a flag of the first configuration."""
    found = {"preset": scene.preset, "seeds": seed_words(scene.seeds)}
    for letter, run in zip(LETTERS, scene.runs):
        own = {f"{letter}.{key}": " ".join(words(value)) for key, value in differences(scene.preset, run).items()}
        found |= own or {f"{letter}": ""}
    return found


def decode(query: Mapping[str, str]) -> tuple[Scene, list[str]]:
    """The scene that a query string asks for, and a line for each thing in it that cannot be.

    What cannot be is left at the preset's; parameters that are not a scene's are not looked at.
    """
    problems: list[str] = []
    preset, seeds = "default", Scene.seeds
    try:
        if asked := query.get("preset"):
            preset_run(asked)
            preset = asked
    except ConfigError as error:
        problems.append(str(error))
    try:
        if asked := query.get("seeds"):
            seeds = page_seeds(asked)
    except ConfigError as error:
        problems.append(str(error))
    runs = []
    for letter in LETTERS:
        own = {key.removeprefix(f"{letter}."): text for key, text in query.items() if key.startswith(f"{letter}.")}
        if not own and letter not in query:
            continue
        run, said = _read(preset, own)
        runs.append(run)
        problems += [f"configuration {letter.upper()}: {line}" for line in said]
    return Scene(preset, seeds, tuple(runs)), problems


def page_seeds(text: str) -> tuple[int, ...]:
    """Seeds from a text, no more than a page takes.

    Raises:
        ConfigError: they are too many, or none.
    """
    seeds = tuple(read_seeds(text[:MOST_LETTERS].split() or [""]))
    if len(seeds) > MOST_SEEDS:
        raise ConfigError("seeds", f"expected at most {MOST_SEEDS} in the app, got {len(seeds)}")
    return seeds


def _read(preset: str, texts: Mapping[str, str]) -> tuple[Run, list[str]]:
    """A configuration from a query string's texts by dotted key; all of them, or where they clash as many as can be."""
    problems = [f"{key}: is too long" for key, text in texts.items() if len(text) > MOST_LETTERS]
    said = {key: text.split() for key, text in texts.items() if text.split() and len(text) <= MOST_LETTERS}
    base = preset_run(preset)
    try:
        return overlay_text(base, said), problems
    except ConfigError as error:
        problems.append(str(error))
    # The choices first: they decide which other keys there are.
    tags = {f"{section}.{tag}" for section, (tag, _) in CHOICES.items()}
    kept: dict[str, Any] = {}
    run = base
    for key in sorted(said, key=lambda key: key not in tags):
        try:
            run = overlay_text(base, {**kept, key: said[key]})
            kept[key] = said[key]
        except ConfigError:
            continue
    return run, problems


def reference_of(preset: str, run: Run) -> Run:
    """Synchronous Nesterov on the cluster, task, inner optimizer and budget of a configuration.

    At the rate that was tuned for it on the preset, or where the preset has none, at that of its own outer method.
    """
    tuned = _tuned(preset).get("sync_nesterov", {"outer.lr": preset_run(preset).outer.lr})
    return vary(run, {**SYNC, "outer.method": "nesterov", "outer.momentum": 0.9, "outer.scale": "1", **tuned})


def untuned(preset: str, run: Run) -> str:
    """Why the rate of a configuration's reference may not be its best; nothing where it was tuned for this problem."""
    base, reference = preset_run(preset), reference_of(preset, run)
    rate = f"sync Nesterov's outer rate {reference.outer.lr:g}"
    if "sync_nesterov" not in _tuned(preset):
        return f"{rate} is that of preset {preset}: nothing was tuned on it"
    same = {name: getattr(run, name) == getattr(base, name) for name in ("task", "inner", "budget")}
    # With a barrier the speeds decide the time alone.
    same["cluster"] = (run.cluster.workers, run.cluster.local_steps) == (base.cluster.workers, base.cluster.local_steps)
    changed = [name for name, alike in same.items() if not alike]
    return f"{rate} was tuned on preset {preset}, not for another {' or '.join(changed)}" if changed else ""


@lru_cache
def _tuned(preset: str) -> dict[str, dict[str, Any]]:
    if not tuning_path(preset).exists():
        return {}
    return {arm: entry["changes"] for arm, entry in load_tuning(preset)["arms"].items()}


def tuned(preset: str, arm: str) -> dict[str, Any]:
    """The settings that were tuned for an arm of the demo on a preset; none where it was not tuned."""
    return _tuned(preset).get(arm, {})
