"""A promoted run that this machine can train while one waits: as a process of its own. No jax here."""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

from lm.config import CHOICES, PYTHON, LanguageModel, flops_per_token, tokens
from lm.display import read as read  # what the process says, as points
from toybench.config import Run
from toybench.loading import dump_run

MOST = 2e13  # floating point operations: about a quarter of an hour on two cores


def problem(run: Run) -> str:
    """Why a run is not to be started from a page; nothing if it may be."""
    model: LanguageModel = run.task
    if (needed := flops_per_token(model) * tokens(run)) > MOST:
        return f"{needed:.2g} floating point operations are too many to be started from here (at most {MOST:.0g})"
    if model.data != PYTHON:
        return f"its data are to be prepared first, in {model.data!r}"
    lacking = [name for name in ("flax", "orbax") if find_spec(name) is None]
    return f"{lacking[0]} is not installed: pip install 'toybench[lm]'" if lacking else ""


def name_of(run: Run, size: str) -> str:
    """A name for the run's folder: another for other settings."""
    text = json.dumps(dump_run(run, CHOICES), sort_keys=True)
    return f"{size}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def command(file: Path, folder: Path, store: Path) -> list[str]:
    """What begins a run, and goes on with it, as words behind ``python -m``."""
    return ["lm", "train", str(file), "--out", str(folder), "--store", str(store), "--every", "10", "--resume"]


def record_of(folder: Path) -> Path:
    """The record of a run that is done."""
    return folder / "run" / "run.json"
