"""Parameters that runs start from, in files small enough to travel: rounded to bfloat16, before any run sees them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from toybench.config import ConfigError
from toybench.records import read_json, write_json, write_whole

PIECE = 15_000_000  # bytes of a file
TRAVELS = 3 * PIECE  # bytes of a start that is kept with the results; a larger one stays where it was made


def rounded(params: Any) -> Any:
    """Float32 parameters that bfloat16 can say: what `save_start` keeps of them is all of them."""
    import jax
    import jax.numpy as jnp

    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), params)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.start.json"


def folder_of(like: Any, out: Path, scratch: Path) -> Path:
    """Where the parameters of a model are kept: with the results if they are small enough to travel."""
    import jax

    size = 2 * sum(leaf.size for leaf in jax.tree.leaves(like))
    return out if size <= TRAVELS else scratch / out.resolve().name


def save_start(folder: Path, name: str, params: Any, told: dict[str, Any]) -> None:
    """Write `rounded` parameters: pieces of their bfloat16 bytes, then a note that makes them whole."""
    import jax
    import jax.numpy as jnp

    leaves = [np.asarray(leaf.astype(jnp.bfloat16)) for leaf in jax.tree.leaves(params)]
    joined = io.BytesIO()
    for leaf in leaves:
        joined.write(leaf.tobytes())
    data = joined.getvalue()
    pieces = range(0, len(data), PIECE)
    for number, begin in enumerate(pieces):
        write_whole(folder / f"{name}.start.{number}.bin", data[begin : begin + PIECE])
    shapes = [list(leaf.shape) for leaf in leaves]
    write_json(_path(folder, name), {"shapes": shapes, "pieces": len(pieces), "bytes": len(data), **told})


def read_start(folder: Path, name: str, like: Any) -> tuple[Any, dict[str, Any]] | None:
    """What `save_start` kept, as float32, and its note; None if there is none.

    Args:
        folder, name: as it was saved.
        like: the shapes of the model's parameters.

    Raises:
        ConfigError: it is damaged, or of another model.
    """
    import jax
    import ml_dtypes

    if not _path(folder, name).exists():
        return None
    note = read_json(_path(folder, name))
    leaves, tree = jax.tree.flatten(like)
    try:
        data = b"".join((folder / f"{name}.start.{i}.bin").read_bytes() for i in range(note["pieces"]))
        fits = len(data) == note["bytes"] and note["shapes"] == [list(leaf.shape) for leaf in leaves]
    except (OSError, KeyError, TypeError, json.JSONDecodeError):
        fits, data = False, b""
    if not fits:
        raise ConfigError("out", f"{str(_path(folder, name))!r} is damaged, or of another model; remove it")
    flat = np.frombuffer(data, ml_dtypes.bfloat16).astype(np.float32)
    parts = np.split(flat, np.cumsum([leaf.size for leaf in leaves])[:-1])
    found = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves)]
    return jax.tree.map(jax.numpy.asarray, tree.unflatten(found)), note
