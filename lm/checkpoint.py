"""Checkpoints of a language-model run: whole or not there, the last few kept, written beside the training."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from lm.config import CHOICES
from lm.placement import DEFAULT, Placement
from lm.train import Point, State, Training
from toybench.config import ConfigError, ConfigWarning
from toybench.loading import dump_run
from toybench.server import Server
from toybench.task import Task

SCHEMA = 1
logging.getLogger("absl").setLevel(logging.ERROR)  # orbax talks through it of what is no user's matter


class Saved(NamedTuple):
    """A checkpoint, read."""

    arrivals: int  # taken so far
    state: State
    points: list[Point]


class Checkpoints:
    """The checkpoints of a run in a folder.

    Args:
        folder: of this run alone; made if it is not there.
        training: whose state is kept. A checkpoint of another run is refused.
        keep: how many at most.

    Raises:
        ConfigError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, training: Training, keep: int = 2):
        self.folder, self._training = folder.absolute(), training
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except OSError as error:
            raise ConfigError("out", f"cannot write to {str(folder)!r}: {error.strerror}") from None

    def save(self, arrivals: int, state: State, points: list[Point]) -> None:
        """Begin to write the state after so many arrivals; it is whole when `wait` returns.

        Raises:
            ConfigError: the folder holds a later one, of an earlier run.
        """
        versions, which = _distinct(state.pulled)
        tree = {"server": state.server._asdict(), "pulled": versions, "inner_states": list(state.inner_states)}
        meta = self._identity() | {
            "which": which,
            "points": [[point.arrival, point.local_steps, point.time, point.metrics] for point in points],
        }
        args = ocp.args.Composite(state=ocp.args.StandardSave(_numbered(tree)), meta=ocp.args.JsonSave(meta))
        if not self._manager.save(arrivals, args=args):
            raise ConfigError("out", f"{str(self.folder)!r} holds a checkpoint of an earlier run")

    def latest(self) -> Saved | None:
        """The last whole checkpoint, if there is one.

        Raises:
            ConfigError: it is of another run, or cannot be read.
        """
        arrivals = self._manager.latest_step()
        if arrivals is None:
            return None
        try:
            args = ocp.args.Composite(meta=ocp.args.JsonRestore())
            meta = self._manager.restore(arrivals, args=args)["meta"]
            self._check(meta)
            like = self._like(len(set(meta["which"])))
            # As NumPy: what is kept on the host need not fit on the device, and jax cannot read into pinned memory.
            room = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in _numbered(like).items()}
            args = ocp.args.Composite(state=ocp.args.StandardRestore(room))
            found = self._manager.restore(arrivals, args=args)["state"]
        except ConfigError:
            raise
        except (ValueError, KeyError, OSError) as error:
            first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise ConfigError("resume", f"checkpoint {arrivals} in {str(self.folder)!r}: {first}") from None
        state = jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in _names(like)])
        restored = self._training.snapshots.restored
        versions = [restored(tree) for tree in state["pulled"]]
        server, pulled = Server(**jax.tree.map(jnp.array, state["server"])), tuple(versions[i] for i in meta["which"])
        points = [Point(*point) for point in meta["points"]]
        return Saved(arrivals, State(server, pulled, tuple(map(restored, state["inner_states"]))), points)

    def last(self) -> int | None:
        """Arrivals taken at the last whole checkpoint."""
        self.wait()
        return self._manager.latest_step()

    def wait(self) -> None:
        """Until what was begun is whole."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()

    def _identity(self) -> dict[str, Any]:
        training = self._training
        run = dump_run(training.run, CHOICES)
        placed = {"mesh": training.placement.mesh, "snapshot_dtype": training.placement.dtype}
        return {"schema": SCHEMA, "run": run, "seed": training.seed, "lanes": training.lanes} | placed

    def _check(self, meta: dict[str, Any]) -> None:
        own = self._identity()
        if meta.get("schema") != SCHEMA:
            raise ConfigError("resume", f"the checkpoint has version {meta.get('schema')}, this is version {SCHEMA}")
        for section, table in own["run"].items():
            for key in {**table, **meta["run"].get(section, {})}:
                there, here = meta["run"].get(section, {}).get(key), table.get(key)
                if there != here:
                    raise ConfigError("resume", f"the checkpoint is of {section}.{key} {there}, not {here}")
        earlier = {"mesh": DEFAULT.mesh, "snapshot_dtype": DEFAULT.dtype}  # of checkpoints that do not say
        for name in ("seed", "lanes", "snapshot_dtype"):
            if (there := (earlier | meta)[name]) != own[name]:
                raise ConfigError("resume", f"the checkpoint is of {name} {there}, not {own[name]}")
        if (there := (earlier | meta)["mesh"]) != own["mesh"]:  # no reason to be stuck where there are fewer devices
            said = f"resume: the checkpoint is of mesh {there}, not {own['mesh']}: it goes on, but not bit for bit"
            warnings.warn(said, ConfigWarning, stacklevel=2)

    def _like(self, versions: int) -> dict[str, Any]:
        """The shapes of what was saved."""
        here = Placement(dtype=self._training.placement.dtype)
        state = jax.eval_shape(replace(self._training, placement=here).begin)
        pulled = [state.pulled[0]] * versions
        return {"server": state.server._asdict(), "pulled": pulled, "inner_states": list(state.inner_states)}


def read_parameters(folder: Path, task: Task) -> Any:
    """The server's parameters in the last checkpoint of a run, of any method, cluster and length.

    Raises:
        ConfigError: there is none, or it is of another model.
    """
    like = jax.eval_shape(task.init, jax.random.key(0))
    names = [f"['server']['params']{name}" for name in _names(like)]
    if not folder.is_dir():
        raise ConfigError("init", f"{str(folder)!r} holds no checkpoints")
    manager = ocp.CheckpointManager(folder.absolute())
    try:
        if (arrivals := manager.latest_step()) is None:
            raise ConfigError("init", f"{str(folder)!r} holds no checkpoints")
        found = manager.restore(arrivals, args=ocp.args.Composite(state=ocp.args.StandardRestore()))["state"]
    finally:
        manager.close()
    shapes = {name: found[name].shape for name in names if name in found}
    if shapes != {name: leaf.shape for name, leaf in zip(names, jax.tree.leaves(like))}:
        raise ConfigError("init", f"the checkpoint in {str(folder)!r} is of another model")
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in names])


def _distinct(trees: tuple[Any, ...]) -> tuple[list[Any], list[int]]:
    """The different trees among some, told by identity, and which of them each is."""
    found: dict[tuple[int, ...], int] = {}
    which = [found.setdefault(tuple(map(id, jax.tree.leaves(tree))), len(found)) for tree in trees]
    return [trees[which.index(i)] for i in range(len(found))], which


def _names(tree: Any) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def _numbered(tree: Any) -> dict[str, Any]:
    """The leaves by their paths: what is stored does not depend on the classes of optimizer states."""
    return dict(zip(_names(tree), jax.tree.leaves(tree)))
