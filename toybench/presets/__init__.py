"""Presets: a TOML file each, and beside it the record of the outer rates tuned for the methods of the demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toybench.config import ConfigError, Run
from toybench.loading import load_run, nearest, read_toml

FOLDER = Path(__file__).parent


def preset_names() -> list[str]:
    """The presets there are, the default first."""
    return sorted((path.stem for path in FOLDER.glob("*.toml")), key=lambda name: (name != "default", name))


def _read(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise ConfigError("preset", f"unknown {name!r}; {nearest(name, preset_names())}")
    return read_toml(FOLDER / f"{name}.toml")


def load_preset(name: str = "default") -> Run:
    """A preset's configuration.

    Raises:
        ConfigError: there is none of that name.
    """
    tables = _read(name)
    tables.pop("description", None)
    return load_run(tables)


def preset_description(name: str) -> str:
    """What a preset is for, in a line."""
    return _read(name).get("description", "")


def tuning_path(name: str) -> Path:
    """Where a preset's tuning record lies, if it has one."""
    return FOLDER / f"{name}.tuning.json"


def load_tuning(name: str) -> dict[str, Any]:
    """A preset's tuning record: for each arm of the demo, the rates tried, their losses and the best.

    Raises:
        ConfigError: the preset has none.
    """
    _read(name)
    if not tuning_path(name).exists():
        raise ConfigError(
            "preset", f"{name!r} has no tuned outer rates; `python -m experiments.tune_preset {name}` makes them"
        )
    return json.loads(tuning_path(name).read_text())
