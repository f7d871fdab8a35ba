"""Metrics mirrored as they come, for TensorBoard and for Weights & Biases: two extras, and the record needs neither."""

from __future__ import annotations

import os
import time as clock
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from lm.loop import Progress, Speed, Visit
from lm.pace import Peak
from lm.train import Point
from toybench.config import ConfigError, ConfigWarning
from toybench.records import writable_folder

ALONE = "run"  # what a run is called that a command trains alone
Write = Callable[[int, float, dict[str, float]], None]  # local steps, simulated seconds, values by name


class Wanted(NamedTuple):
    """Where metrics go, beside the record."""

    tensorboard: str | None = None  # a folder
    wandb: str | None = None  # a project

    def check(self) -> None:
        """Fail now rather than after hours.

        Raises:
            ConfigError: a package is not installed, or the folder cannot be written.
        """
        if self.tensorboard is not None:
            _package("tensorboard")
            try:
                writable_folder(self.tensorboard)
            except ConfigError as error:
                raise ConfigError("tensorboard", error.problem) from None
        if self.wandb is not None:
            if not self.wandb.strip():
                raise ConfigError("wandb", f"must be the name of a project, got {self.wandb!r}")
            _package("wandb")


def _package(extra: str) -> ModuleType:
    try:
        if extra == "wandb":
            import wandb as found
        else:
            import tensorboardX as found
    except ImportError:
        raise ConfigError(extra, f"its package is not installed: pip install 'toybench[{extra}]'") from None
    return found


@contextmanager
def tracking(
    wanted: Wanted, name: str, config: dict[str, Any], folder: Path, peak: Peak
) -> Iterator[Callable[[Progress], None]]:
    """What a training is to call after each arrival.

    Args:
        wanted: where metrics go.
        name: of the run.
        config: its settings.
        folder: of the run.
        peak: what its utilisation is a share of.
    """
    with ExitStack() as stack:
        writes: list[Write] = []
        if wanted.tensorboard is not None:
            writes.append(stack.enter_context(_tensorboard(_events(wanted.tensorboard, name, folder))))
        if wanted.wandb is not None:
            writes.append(stack.enter_context(_wandb(wanted.wandb, name, config, folder)))
        yield _Mirror(writes, peak).report


def _events(place: str, name: str, folder: Path) -> Path:
    """Where a run's events go: every run that is alone in its `--out` is called `run`, so that of these it is named."""
    return Path(place) / (f"{folder.resolve().parent.name}/{name}" if name == ALONE else name)


class _Mirror:
    """Writes what is new in a progress."""

    def __init__(self, writes: list[Write], peak: Peak):
        self._writes, self._peak, self._point = writes, peak, None

    def report(self, progress: Progress) -> None:
        if progress.visit is not None:
            self._write(progress.visit, self._of_visit(progress.visit, progress.speed))
        if progress.point != self._point:
            # What a run that is resumed begins with was written before.
            if progress.visit is not None or not progress.local_steps:
                self._write(progress.point, {f"held_out/{name}": x for name, x in progress.point.metrics.items()})
            self._point = progress.point

    def _of_visit(self, visit: Visit, speed: Speed | None) -> dict[str, float]:
        found = {"train/loss": visit.loss, "train/staleness": float(visit.staleness)}
        if speed is not None:
            found |= {"speed/tokens_per_second": speed.tokens, "speed/utilisation": speed.operations / self._peak.rate}
        return found

    def _write(self, at: Visit | Point, values: dict[str, float]) -> None:
        for write in tuple(self._writes):
            try:
                write(at.local_steps, at.time, values)
            except Exception as error:  # theirs, whatever it is: the run and its record need none of them
                warnings.warn(f"metrics are mirrored no further: {_first_line(error)}", ConfigWarning, stacklevel=2)
                self._writes.remove(write)


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Write]:
    """Events by local steps. Their wall time is the simulated one, so that the axis "relative" shows it."""
    # Not its SummaryWriter, which hangs once its thread has met a full disk.
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto import event_pb2
    from tensorboardX.summary import scalar

    events: Any = None
    proto: Any = event_pb2  # which makes its names when it is imported

    def write(local_steps: int, time: float, values: dict[str, float]) -> None:
        nonlocal events
        if events is None:
            folder.mkdir(parents=True, exist_ok=True)
            # A file is named by the second it is begun in; a run resumed within that second would overwrite it.
            events = EventsWriter(str(folder / "events"), f".{clock.time_ns()}")
            # What a killed process wrote past its last checkpoint is hidden.
            log = proto.SessionLog(status=proto.SessionLog.START)
            events.write_event(proto.Event(step=local_steps, session_log=log))
        for name, value in values.items():
            events.write_event(proto.Event(step=local_steps, wall_time=time, summary=scalar(name, value)))
        events.flush()

    try:
        yield write
    finally:
        if events is not None:
            with suppress(OSError):
                events.close()


@contextmanager
def _wandb(project: str, name: str, config: dict[str, Any], folder: Path) -> Iterator[Write]:
    """Rows with `local_steps` and `simulated_time`; offline, unless the environment's WANDB_MODE says otherwise."""
    wandb = _package("wandb")
    mode: Any = os.environ.get("WANDB_MODE", "offline")
    try:
        settings = wandb.Settings(silent=True, console="off")
        run = wandb.init(project=project, name=name, config=config, dir=str(folder), mode=mode, settings=settings)
    except (wandb.Error, OSError, ValueError) as error:
        raise ConfigError("wandb", _first_line(error)) from None
    run.define_metric("*", step_metric="local_steps")
    status = 1
    try:
        yield lambda local_steps, time, values: run.log({"local_steps": local_steps, "simulated_time": time} | values)
        status = 0
    finally:
        run.finish(exit_code=status)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
