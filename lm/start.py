"""What a run starts from: the parameters of another's last checkpoint, and who they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from lm.checkpoint import read_last, steps_after
from lm.config import CHECKPOINTS
from lm.maker import digest
from lm.runs import DATA, run_of
from lm.task import LanguageTask
from toybench.config import ConfigError
from toybench.records import read_json
from toybench.task import Params

FUNCTION = ("vocabulary", "layers", "width", "heads", "head_size", "expansion", "tied")  # decide what a model computes


def read_start(name: str, task: LanguageTask) -> tuple[Params, dict[str, Any]]:
    """Parameters to start from, and what a record tells of them: their digest, and the run that they are of.

    Args:
        name: of the folder of the run, or of the command that made it and no other.
        task: whose model it must be, with whose tokens.

    Raises:
        ConfigError: there is no checkpoint, or it is damaged, or of another model or tokenizer.
    """
    if not name:
        raise ConfigError("init", "must be the folder of a run, got ''")
    found = find_checkpoints(Path(name))
    _check_tokenizer(found.parent, task)

    def like(meta: dict[str, Any]) -> Any:
        there = run_of(meta["run"], str(found.parent), "init").task
        for field in FUNCTION:
            if (of := getattr(there, field)) != (own := getattr(task.settings, field)):
                said = f"the checkpoint in {str(found)!r} is of another model: its task.{field} is {of}, not {own}"
                raise ConfigError("init", said)
        return jax.eval_shape(task.init, jax.random.key(0))

    arrivals, meta, read = read_last(found, like, "init")
    params = jax.tree.map(jnp.asarray, read)
    told = {"parameters": digest(params), "folder": str(found.parent), "arrivals": arrivals}
    told["local_steps"] = steps_after(run_of(meta["run"], str(found.parent), "init"), meta["seed"], arrivals)
    return params, told | {name: meta.get(name) for name in ("seed", "init", "run")}


def _check_tokenizer(folder: Path, task: LanguageTask) -> None:
    """Raise ConfigError if a run's folder notes another tokenizer than that of the task's data."""
    if not (folder / DATA).is_file():
        return  # of a run from before this was noted
    note = read_json(folder / DATA)
    if not isinstance(note, dict) or not isinstance(there := note.get("tokenizer"), dict):
        raise ConfigError("init", f"{str(folder / DATA)!r} is damaged")
    if there != task.corpus.note["tokenizer"]:
        raise ConfigError("init", f"{str(folder)!r} was trained with another tokenizer than {task.settings.data!r} has")


def find_checkpoints(folder: Path) -> Path:
    """The checkpoints of a run, told by its folder or by that of a command that made no other.

    Raises:
        ConfigError: there are none, or those of several runs.
    """
    inside = [p for p in (folder, *sorted(folder.glob("*"))) if (p / CHECKPOINTS).is_dir()]
    if not inside:
        raise ConfigError("init", f"{str(folder)!r} holds no checkpoints")
    if inside[0] != folder and len(inside) > 1:
        names = ", ".join(p.name for p in inside)
        raise ConfigError("init", f"{str(folder)!r} holds those of {names}; name the folder of one")
    return inside[0] / CHECKPOINTS
