"""A training carried to its end: evaluated, reported, checkpointed, stopped in time, resumed."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from lm.checkpoint import Checkpoints
from lm.config import CHOICES, LanguageModel, flops_per_token
from lm.train import NotFinite, Point, State, Training
from toybench.config import Run
from toybench.curves import Curves
from toybench.loading import dump_run, load_run
from toybench.records import maker


class Progress(NamedTuple):
    """How far a training is."""

    local_steps: int
    total_steps: int
    tokens_per_second: float  # since this process began
    operations_per_second: float  # floating point, of the model
    point: Point | None  # the last evaluation


class Stopped(Exception):
    """Training was asked to stop; what is there is in the last checkpoint, if there are any."""

    def __init__(self, arrivals: int):
        super().__init__(f"stopped after {arrivals} arrivals")
        self.arrivals = arrivals


class Finished(NamedTuple):
    """What a training leaves."""

    state: State
    curves: Curves
    seconds: float  # of this process


def carry_out(
    training: Training,
    checkpoints: Checkpoints | None = None,
    *,
    resume: bool = False,
    every: float = 60.0,
    report: Callable[[Progress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> Finished:
    """Train to the end.

    Args:
        training: what is trained.
        checkpoints: where the state is kept: at evaluations, but no oftener than `every` seconds, and at the end.
        resume: go on from the last checkpoint, if there is one.
        every: seconds.
        report: called after each arrival.
        stop: asked after each arrival; where it says so, the state is kept and training ends.

    Raises:
        NotFinite: a visit's loss is not finite; says where, and which checkpoint is good.
        Stopped: `stop` said so.
        ConfigError: the checkpoint is of another run.
    """
    saved = checkpoints.latest() if checkpoints is not None and resume else None
    state = saved.state if saved else training.begin()
    begin, points = (saved.arrivals, saved.points) if saved else (0, [])
    model: LanguageModel = training.run.task
    steps = np.concatenate([[0], training.timeline.local_steps])
    per_step, operations = model.batch * model.sequence, flops_per_token(model)
    began = kept_at = time.monotonic()
    if not points:
        points = [Point(0, 0, 0.0, training.evaluate(state))]
    losses: list[tuple[int, jax.Array]] = []

    kept = begin if saved else -1

    def keep(arrivals: int) -> None:
        nonlocal kept
        if checkpoints is not None and arrivals != kept:
            checkpoints.save(arrivals, state, points)
            kept = arrivals

    for e, after, loss in training.arrivals(state, begin):
        state = after
        losses.append((e, loss))
        if len(losses) > 1:  # looked at one arrival late, so that the device need not wait
            _check(training, *losses.pop(0), checkpoints)
        taken = e + 1
        if taken in training.evaluate_after:
            metrics = training.evaluate(state)
            points = [*points, Point(taken, int(steps[taken]), float(training.timeline.time[e]), metrics)]
            if time.monotonic() - kept_at > every:
                keep(taken)
                kept_at = time.monotonic()
        rate = (steps[taken] - steps[begin]) * per_step / max(time.monotonic() - began, 1e-9)
        report(Progress(int(steps[taken]), int(steps[-1]), rate, rate * operations, points[-1]))
        if stop() and taken < len(training.timeline.time):
            keep(taken)
            if checkpoints is not None:
                checkpoints.wait()
            raise Stopped(taken)
    for entry in losses:
        _check(training, *entry, checkpoints)
    keep(len(training.timeline.time))
    if checkpoints is not None:
        checkpoints.wait()
    return Finished(state, curves_of(training, points), time.monotonic() - began)


def _check(training: Training, e: int, loss: jax.Array, checkpoints: Checkpoints | None) -> None:
    if math.isfinite(value := float(loss)):
        return
    timeline = training.timeline
    said = f"the loss of worker {timeline.worker[e]}'s visit of {timeline.num_steps[e]} steps is {value}, after "
    said += f"{timeline.local_steps[e]:,} local steps of all workers (arrival {e})"
    last = checkpoints.last() if checkpoints is not None else None
    raise NotFinite(
        said + (f"; the last good checkpoint is {last}" if last is not None else "; there is no checkpoint")
    )


def as_record(run: Run) -> Run:
    """A run as the store keeps it, which knows no language models."""
    return load_run(dump_run(run, CHOICES), foreign=True)


def maker_of(training: Training) -> dict[str, str]:
    """Who makes a language-model run: what makes one of the toy, the sources of this package, how it was laid out."""
    sources = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))
    placed = {"mesh": training.placement.mesh, "snapshot_dtype": training.placement.dtype}
    return {**maker(), "lm": sources.hexdigest()[:16], "lanes": str(training.lanes), **placed}


def curves_of(training: Training, points: list[Point]) -> Curves:
    """The evaluations as curves of one seed."""
    steps, times = (np.array([[getattr(p, name) for p in points]]) for name in ("local_steps", "time"))
    metrics = {name: np.array([[p.metrics[name] for p in points]]) for name in points[0].metrics}
    return Curves(as_record(training.run), (training.seed,), steps, times, metrics)
