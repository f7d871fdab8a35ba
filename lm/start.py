"""What a run starts from: the parameters of another's last checkpoint, and who they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from lm.checkpoint import digest, read_last
from lm.config import CHECKPOINTS
from toybench.config import ConfigError
from toybench.task import Params, Task


def read_start(folder: Path, task: Task) -> tuple[Params, dict[str, Any]]:
    """Parameters to start from, and what a record tells of them: their digest, and the run that they are of.

    Args:
        folder: of the run, or of the command that made it and no other.
        task: whose model it must be.

    Raises:
        ConfigError: there is no checkpoint, or it is damaged, or of another model.
    """
    found = find_checkpoints(folder)
    arrivals, meta, read = read_last(found, lambda meta: jax.eval_shape(task.init, jax.random.key(0)), "init")
    params = jax.tree.map(jnp.asarray, read)
    told = {"parameters": digest(params), "folder": str(found.parent), "arrivals": arrivals}
    told["local_steps"] = meta["points"][-1][1]
    return params, told | {name: meta.get(name) for name in ("seed", "init", "run")}


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
