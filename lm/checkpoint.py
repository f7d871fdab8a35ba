"""Checkpoints of a language-model run: whole or not there, the last few kept, written beside the training."""

from __future__ import annotations

import errno
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from lm import late_errors
from lm.config import CHOICES
from lm.maker import maker_of
from lm.placement import DEFAULT, Placement
from lm.train import Point, State, Training
from toybench.config import ConfigError, ConfigWarning, Run
from toybench.loading import dump_run
from toybench.server import Server
from toybench.timeline import simulate

SCHEMA = 1
logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax tells through it what it raises as well, at length
late_errors.leave_out()


class Saved(NamedTuple):
    """A checkpoint, read."""

    arrivals: int  # taken so far
    state: State
    points: list[Point]
    seconds: float  # of training so far


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
        self._maker = maker_of(training)
        self._failed = False
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except OSError as error:
            raise ConfigError("out", f"cannot write to {str(folder)!r}: {error.strerror}") from None

    def save(self, arrivals: int, state: State, points: list[Point], seconds: float = 0.0) -> None:
        """Begin to write the state after so many arrivals and seconds of training; it is whole when `wait` returns.

        Raises:
            ConfigError: the folder holds a later one, of an earlier run; or it, or that before, cannot be written.
        """
        versions, which = _distinct(state.pulled)
        tree = {"server": state.server._asdict(), "pulled": versions, "inner_states": list(state.inner_states)}
        meta = self._identity() | {
            "which": which,
            "points": [[point.arrival, point.local_steps, point.time, point.metrics] for point in points],
            "seconds": seconds,
            "maker": self._maker,
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
            meta = self._meta(arrivals)
            _check_version("resume", meta)
            if not _is_meta(meta):
                raise ValueError("damaged")
            self._check(meta)
            if not self._is_whole(meta):
                raise ValueError("damaged")
            like = self._like(len(set(meta["which"])))
            # As NumPy: what is kept on the host need not fit on the device, and jax cannot read into pinned memory.
            room = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in _numbered(like).items()}
            args = ocp.args.Composite(state=ocp.args.StandardRestore(room))
            found = self._manager.restore(arrivals, args=args)["state"]
        except ConfigError:
            raise
        except (ValueError, KeyError, OSError) as error:
            said = f"checkpoint {arrivals} in {str(self.folder)!r}: {_first_line(error)}"
            raise ConfigError("resume", said + self._before(arrivals)) from None
        state = jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in _names(like)])
        restored = self._training.snapshots.restored
        versions = [restored(tree) for tree in state["pulled"]]
        server, pulled = Server(**jax.tree.map(jnp.array, state["server"])), tuple(versions[i] for i in meta["which"])
        points = [Point(*point) for point in meta["points"]]
        return Saved(
            arrivals,
            State(server, pulled, tuple(map(restored, state["inner_states"]))),
            points,
            meta.get("seconds", 0.0),
        )

    def _meta(self, arrivals: int) -> Any:
        return self._manager.restore(arrivals, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]

    def _is_whole(self, meta: Any) -> bool:
        return _is_meta(meta) and _is_which(meta.get("which"), self._training.run.cluster.workers)

    def _before(self, arrivals: int) -> str:
        """What to say of the last good checkpoint before a damaged one."""
        for earlier in sorted((n for n in self._manager.all_steps() if n < arrivals), reverse=True):
            with suppress(ValueError, KeyError, OSError):
                if self._is_whole(self._meta(earlier)):
                    folder = str(self.folder / str(arrivals))
                    return f"; the last good one is {earlier}: once {folder!r} is removed, --resume goes on from it"
        return "; there is no good one before it"

    def last(self) -> int | None:
        """Arrivals taken at the last whole checkpoint, if there is one."""
        with suppress(ConfigError):
            self.wait()
        try:
            self._manager.reload()  # it counts one whose writing failed
        except FileNotFoundError:  # somebody is removing the folder
            return None
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
            try:
                last = self.last() if first else None
                good = "there is no good one" if last is None else f"the last good one is {last}"
            except OSError as other:
                good = f"whether there is a good one cannot be read: {other.strerror}"
            said = f"cannot write a checkpoint to {str(self.folder)!r}: {_reason(error)}; {good}"
            raise ConfigError("out", f"{said}; once that is mended, the same command with --resume goes on") from None

    def _identity(self) -> dict[str, Any]:
        training = self._training
        run = dump_run(training.run, CHOICES)
        placed = {"mesh": training.placement.mesh, "snapshot_dtype": training.placement.dtype}
        return {
            "schema": SCHEMA,
            "run": run,
            "seed": training.seed,
            "lanes": training.lanes,
            "init": self._maker.get("init"),
            "data": training.data,
            **placed,
        }

    def _check(self, meta: dict[str, Any]) -> None:
        own = self._identity()
        for section, table in own["run"].items():
            for key in {**table, **meta["run"].get(section, {})}:
                there, here = meta["run"].get(section, {}).get(key), table.get(key)
                if there != here:
                    raise ConfigError("resume", f"the checkpoint is of {section}.{key} {there}, not {here}")
        earlier = {"mesh": DEFAULT.mesh, "snapshot_dtype": DEFAULT.dtype}  # of checkpoints that do not say
        for name in ("seed", "lanes", "snapshot_dtype"):
            if (there := (earlier | meta)[name]) != own[name]:
                raise ConfigError("resume", f"the checkpoint is of {name} {there}, not {own[name]}")
        if (there := meta.get("data")) is not None and there != own["data"]:  # None: of one that does not say
            raise ConfigError("resume", f"the checkpoint is of data {there}, not {own['data']}")
        if (there := (earlier | meta)["mesh"]) != own["mesh"]:  # no reason to be stuck where there are fewer devices
            said = f"resume: the checkpoint is of mesh {there}, not {own['mesh']}: it goes on, but not bit for bit"
            warnings.warn(said, ConfigWarning, stacklevel=2)
        if (there := meta.get("init")) != own["init"]:
            there, here = (f"parameters {one}" if one else "fresh parameters" for one in (there, own["init"]))
            raise ConfigError("resume", f"the checkpoint is of a run that was started from {there}, not from {here}")
        if isinstance(maker := meta.get("maker"), dict):  # one from before this was noted does not say
            self._warn_of_another_maker(maker)

    def _warn_of_another_maker(self, there: dict[str, str]) -> None:
        """Of other code, versions or devices; what the run itself is was checked."""
        checked = ("lanes", "init", "data", "mesh", "snapshot_dtype")
        names = [name for name in {**there, **self._maker} if name not in checked]
        differ = [name for name in names if there.get(name) != self._maker.get(name)]
        if differ:
            said = ", ".join(f"{name} {there.get(name)}, not {self._maker.get(name)}" for name in differ)
            said = f"resume: the checkpoint was made by {said}: it goes on, but not bit for bit"
            warnings.warn(" ".join(said.split()), ConfigWarning, stacklevel=3)

    def _like(self, versions: int) -> dict[str, Any]:
        """The shapes of what was saved."""
        here = Placement(dtype=self._training.placement.dtype)
        state = jax.eval_shape(replace(self._training, placement=here).begin)
        pulled = [state.pulled[0]] * versions
        return {"server": state.server._asdict(), "pulled": pulled, "inner_states": list(state.inner_states)}


class Last(NamedTuple):
    """The last whole checkpoint of a run, of any method, cluster and length, without the workers' state."""

    arrivals: int  # taken so far
    meta: dict[str, Any]  # the run's tables, its seed, its evaluations
    params: Any  # the server's


def read_last(folder: Path, like: Callable[[dict[str, Any]], Any], name: str = "model") -> Last:
    """The last whole checkpoint in a folder; only the server's parameters are read, whatever devices wrote them.

    Args:
        folder: of a run's checkpoints.
        like: from what the checkpoint says, the parameters' shapes.
        name: of the setting that named the folder.

    Raises:
        ConfigError: there is none, it is of another model or version, or cannot be read.
    """
    if not folder.is_dir():
        raise ConfigError(name, f"{str(folder)!r} holds no checkpoints")
    manager = ocp.CheckpointManager(folder.absolute(), options=ocp.CheckpointManagerOptions(read_only=True))
    try:
        if (arrivals := manager.latest_step()) is None:
            raise ConfigError(name, f"{str(folder)!r} holds no finished checkpoint")
        meta = manager.restore(arrivals, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        _check_version(name, meta)
        if not _is_meta(meta):
            raise ConfigError(name, f"the last checkpoint in {str(folder)!r} is damaged")
        shapes = like(meta)
        names = [f"['server']['params']{path}" for path in _names(shapes)]
        item = dict(zip(names, jax.tree.leaves(shapes)))
        as_numpy = {key: ocp.RestoreArgs(restore_type=np.ndarray) for key in item}
        args = ocp.args.PyTreeRestore(item=item, restore_args=as_numpy, partial_restore=True)
        found: dict[str, np.ndarray] = manager.restore(arrivals, args=ocp.args.Composite(state=args))["state"]
    except ConfigError:
        raise
    except (ValueError, KeyError, OSError) as error:
        raise ConfigError(
            name, f"the last checkpoint in {str(folder)!r} cannot be read: {_first_line(error)}"
        ) from None
    finally:
        manager.close()
    if {name: leaf.shape for name, leaf in found.items()} != {name: leaf.shape for name, leaf in item.items()}:
        raise ConfigError(name, f"the checkpoint in {str(folder)!r} is of another model")
    return Last(arrivals, meta, jax.tree.unflatten(jax.tree.structure(shapes), [found[name] for name in names]))


def steps_after(run: Run, seed: int, arrivals: int) -> int:
    """Local steps of all workers that a run has taken after so many arrivals."""
    return int(simulate(run.cluster, run.budget, seed).local_steps[arrivals - 1]) if arrivals else 0


def _is_meta(meta: Any) -> bool:
    """Whether it is what `Checkpoints.save` notes, as far as readers rely on it."""
    if not isinstance(meta, dict) or not isinstance(meta.get("run"), dict):
        return False
    tables, points = meta["run"].values(), meta.get("points")
    if not all(isinstance(table, dict) for table in tables) or type(meta.get("seed")) is not int:
        return False
    numbers = isinstance(meta.get("seconds", 0.0), (int, float))
    return numbers and isinstance(points, list) and bool(points) and all(map(_is_point, points))


def _is_point(point: Any) -> bool:
    kinds = (int, int, (int, float), dict)
    if not isinstance(point, list) or len(point) != len(kinds) or not all(map(isinstance, point, kinds)):
        return False
    return bool(point[-1]) and all(isinstance(value, (int, float)) for value in point[-1].values())


def _is_which(which: Any, workers: int) -> bool:
    """Whether it says, of each worker, which of the kept versions it pulled last."""
    if not isinstance(which, list) or len(which) != workers or not all(type(i) is int for i in which):
        return False
    return {*which} == {*range(len({*which}))}


def _check_version(name: str, meta: Any) -> None:
    """Raise ConfigError if it says that it is of another version."""
    if isinstance(meta, dict) and meta.get("schema") != SCHEMA:
        raise ConfigError(name, f"the checkpoint has version {meta.get('schema')}, this is version {SCHEMA}")


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
