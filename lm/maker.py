"""Who makes a language-model run, as far as its numbers may depend on it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import jax
import numpy as np

from lm.train import Training
from toybench.records import maker
from toybench.task import Params

# The modules that decide a run's numbers: settings are told apart by what they are, data by their digest
NUMBERS = (
    *("shards", "order", "data", "model", "task"),
    *("snapshots", "mesh", "waves", "programs", "train", "assemble", "loop"),
)


def maker_of(training: Training) -> dict[str, str]:
    """Who makes a language-model run: what makes one of the toy, the sources of `NUMBERS`, start, data, placement."""
    folder = Path(__file__).parent
    sources = hashlib.sha256(b"".join((folder / f"{room}.py").read_bytes() for room in NUMBERS))
    init = {} if training.start is None else {"init": digest(training.start)}
    data = {} if training.data is None else {"data": training.data}
    placed = {"mesh": training.placement.mesh, "snapshot_dtype": training.placement.dtype}
    return {**maker(), "lm": sources.hexdigest()[:16], "lanes": str(training.lanes), **init, **data, **placed}


def digest(params: Params) -> str:
    """Equal for equal parameters: of their names, types, shapes and numbers."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        numbers = np.ascontiguousarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {numbers.dtype} {numbers.shape}\n".encode())
        found.update(numbers.tobytes())
    return found.hexdigest()[:16]
