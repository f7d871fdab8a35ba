"""Checkpoints of a language-model run: whole or not there, the last few kept, written beside the training."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from lm.config import CHOICES
from lm.start import digest
from lm.train import Point, State, Training
from toybench.config import ConfigError
from toybench.loading import dump_run
from toybench.task import Task

SCHEMA = 1
logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax tells through it what it raises as well, at length


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
        self._init = None if training.start is None else digest(training.start)
        self._failed = False
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except OSError as error:
            raise ConfigError("out", f"cannot write to {str(folder)!r}: {error.strerror}") from None

    def save(self, arrivals: int, state: State, points: list[Point]) -> None:
        """Begin to write the state after so many arrivals; it is whole when `wait` returns.

        Raises:
            ConfigError: the folder holds a later one, of an earlier run; or it, or that before, cannot be written.
        """
        versions, which = _distinct(state.pulled)
        tree = {"server": state.server._asdict(), "pulled": versions, "inner_states": list(state.inner_states)}
        meta = self._identity() | {
            "which": which,
            "points": [[point.arrival, point.local_steps, point.time, point.metrics] for point in points],
        }
        args = ocp.args.Composite(state=ocp.args.StandardSave(_numbered(tree)), meta=ocp.args.JsonSave(meta))
        with self._written():
            begun = self._manager.save(arrivals, args=args)
        if not begun:
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
            args = ocp.args.Composite(state=ocp.args.StandardRestore(_numbered(like)))
            found = self._manager.restore(arrivals, args=args)["state"]
        except ConfigError:
            raise
        except (ValueError, KeyError, OSError) as error:
            said = f"checkpoint {arrivals} in {str(self.folder)!r}: {_first_line(error)}"
            raise ConfigError("resume", said) from None
        state = jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in _names(like)])
        server = type(self._training.begin().server)(**state["server"])
        pulled = tuple(state["pulled"][i] for i in meta["which"])
        points = [Point(*point) for point in meta["points"]]
        return Saved(arrivals, State(server, pulled, tuple(state["inner_states"])), points)

    def last(self) -> int | None:
        """Arrivals taken at the last whole checkpoint."""
        with suppress(ConfigError):
            self.wait()
        self._manager.reload()  # it counts one whose writing failed
        return self._manager.latest_step()

    def wait(self) -> None:
        """Until what was begun is whole.

        Raises:
            ConfigError: it cannot be written.
        """
        with self._written():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and end.

        Raises:
            ConfigError: what was begun cannot be written, and nobody was told so far.
        """
        with suppress(ConfigError) if self._failed else nullcontext(), self._written():
            self._manager.close()

    @contextmanager
    def _written(self) -> Iterator[None]:
        """What goes wrong with a checkpoint, now or before in a thread of orbax's, in one line."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            first, self._failed = not self._failed, True
            last = self.last() if first else None
            good = "there is no good one" if last is None else f"the last good one is {last}"
            said = f"cannot write a checkpoint to {str(self.folder)!r}: {_reason(error)}; {good}"
            raise ConfigError("out", f"{said}; once that is mended, the same command with --resume goes on") from None

    def _identity(self) -> dict[str, Any]:
        training = self._training
        run = dump_run(training.run, CHOICES)
        return {"schema": SCHEMA, "run": run, "seed": training.seed, "lanes": training.lanes, "init": self._init}

    def _check(self, meta: dict[str, Any]) -> None:
        own = self._identity()
        if meta.get("schema") != SCHEMA:
            raise ConfigError("resume", f"the checkpoint has version {meta.get('schema')}, this is version {SCHEMA}")
        for section, table in own["run"].items():
            for key in {**table, **meta["run"].get(section, {})}:
                there, here = meta["run"].get(section, {}).get(key), table.get(key)
                if there != here:
                    raise ConfigError("resume", f"the checkpoint is of {section}.{key} {there}, not {here}")
        for name in ("seed", "lanes"):
            if meta[name] != own[name]:
                raise ConfigError("resume", f"the checkpoint is of {name} {meta[name]}, not {own[name]}")
        if (there := meta.get("init")) != own["init"]:
            there, here = (f"parameters {one}" if one else "fresh parameters" for one in (there, own["init"]))
            raise ConfigError("resume", f"the checkpoint is of a run that was started from {there}, not from {here}")

    def _like(self, versions: int) -> dict[str, Any]:
        """The shapes of what was saved."""
        state = jax.eval_shape(self._training.begin)
        pulled = [state.pulled[0]] * versions
        return {"server": state.server._asdict(), "pulled": pulled, "inner_states": list(state.inner_states)}


def read_parameters(folder: Path, task: Task) -> Any:
    """The server's parameters in the last checkpoint of a run, of any method, cluster and length.

    Raises:
        ConfigError: there is none, or it is damaged, or of another model.
    """
    return read_server(folder, task)[0]


def read_server(folder: Path, task: Task) -> tuple[Any, int, dict[str, Any]]:
    """The same, and the arrivals taken and what else is noted there."""
    like = jax.eval_shape(task.init, jax.random.key(0))
    names = [f"['server']['params']{name}" for name in _names(like)]
    if not folder.is_dir():
        raise ConfigError("init", f"{str(folder)!r} holds no checkpoints")
    with closing(ocp.CheckpointManager(folder.absolute())) as manager:
        if (arrivals := manager.latest_step()) is None:
            raise ConfigError("init", f"{str(folder)!r} holds no checkpoints")
        args = ocp.args.Composite(state=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore())
        try:
            read = manager.restore(arrivals, args=args)
        except (ValueError, KeyError, OSError) as error:
            raise ConfigError("init", f"checkpoint {arrivals} in {str(folder)!r}: {_first_line(error)}") from None
    found = read["state"]
    shapes = {name: found[name].shape for name in names if name in found}
    if shapes != {name: leaf.shape for name, leaf in zip(names, jax.tree.leaves(like))}:
        raise ConfigError("init", f"the checkpoint in {str(folder)!r} is of another model")
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in names]), arrivals, read["meta"]


def _reason(error: Exception) -> str:
    """Why something cannot be written; orbax says much, and that last."""
    full = (os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))
    return next((reason for reason in full if reason in str(error)), None) or _first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


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
