"""What a run starts from: the parameters of another's last checkpoint, and who they are."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from toybench.config import ConfigError
from toybench.task import Params, Task

CHECKPOINTS = "checkpoints"  # the folder of a run's, in that of the run


def digest(params: Params) -> str:
    """Equal for equal parameters: of their names, types, shapes and numbers."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        numbers = np.ascontiguousarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {numbers.dtype} {numbers.shape}\n".encode())
        found.update(numbers.tobytes())
    return found.hexdigest()[:16]


def read_start(folder: Path, task: Task) -> tuple[Params, dict[str, Any]]:
    """Parameters to start from, and what a record tells of them: their digest, and the run that they are of.

    Args:
        folder: of the run, or of the command that made it and no other.
        task: whose model it must be.

    Raises:
        ConfigError: there is no checkpoint, or it is damaged, or of another model.
    """
    from lm.checkpoint import read_server

    found = find_checkpoints(folder)
    params, arrivals, meta = read_server(found, task)
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
