"""A training carried to its end: evaluated, reported, checkpointed, stopped in time, resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from lm.checkpoint import Checkpoints
from lm.config import CHOICES, LanguageModel, flops_per_token
from lm.pace import Pace
from lm.train import NotFinite, Point, State, Training
from toybench.config import Run
from toybench.curves import Curves
from toybench.loading import dump_run, load_run


class Visit(NamedTuple):
    """A worker's visit that has arrived."""

    local_steps: int  # of all workers, after it
    time: float  # simulated seconds
    worker: int
    staleness: int
    loss: float  # mean of its training losses, nats


class Speed(NamedTuple):
    """How fast a training goes, over the last minute."""

    tokens: float  # a second
    operations: float  # floating point, of the model, a second


class Progress(NamedTuple):
    """How far a training is."""

    local_steps: int
    total_steps: int
    point: Point  # the last evaluation
    visit: Visit | None  # the last whose loss is known; none at the start
    speed: Speed | None  # none at first
    seconds_left: float | None


class Stopped(Exception):
    """Training was asked to stop; what is there is in the last checkpoint, if there are any."""

    def __init__(self, arrivals: int):
        super().__init__(f"stopped after {arrivals} arrivals")
        self.arrivals = arrivals


class Finished(NamedTuple):
    """What a training leaves."""

    state: State
    curves: Curves
    seconds: float  # of training, also by the processes before that it was resumed from


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
        report: called at the start, and with each visit whose loss is known.
        stop: asked after each arrival; where it says so, the state is kept and training ends.

    Raises:
        NotFinite: a visit's loss is not finite; says where, and which checkpoint is good.
        Stopped: `stop` said so.
        ConfigError: the checkpoint is of another run.
    """
    saved = checkpoints.latest() if checkpoints is not None and resume else None
    state = saved.state if saved else training.begin()
    begin, points, before = (saved.arrivals, saved.points, saved.seconds) if saved else (0, [], 0.0)
    steps = np.concatenate([[0], training.timeline.local_steps])
    began = kept_at = time.monotonic()
    if not points:
        points = [Point(0, 0, 0.0, training.evaluate(state))]
    pace = Pace(int(steps[begin]), int(steps[-1]))
    losses: list[tuple[int, jax.Array]] = []
    kept = begin if saved else -1

    def seconds() -> float:
        done = begin == len(training.timeline.time)  # and nothing is trained now
        return before if done else before + time.monotonic() - began

    def keep(arrivals: int, spent: float) -> None:
        nonlocal kept
        if checkpoints is not None and arrivals != kept:
            checkpoints.save(arrivals, state, points, spent)
            kept = arrivals

    def tell(visit: Visit | None) -> None:
        report(_progress(training.run.task, pace, points[-1], visit))

    def settle(unknown: int = 0) -> None:
        """Look at all losses but the last of so many visits."""
        while len(losses) > unknown:
            e, loss = losses.pop(0)
            visit = _checked(training, e, loss, checkpoints)
            pace.taken(visit.local_steps)  # not when it was begun: the device works beside this program
            tell(visit)

    tell(None)
    for e, after, loss in training.arrivals(state, begin):
        state, taken = after, e + 1
        losses.append((e, loss))
        if taken in training.evaluate_after:
            metrics = training.evaluate(state)
            points = [*points, Point(taken, int(steps[taken]), float(training.timeline.time[e]), metrics)]
            settle()  # before it is kept: a checkpoint is of good numbers
            _check_held_out(points[-1], checkpoints)
            if time.monotonic() - kept_at > every and taken < len(training.timeline.time):
                keep(taken, seconds())
                kept_at = time.monotonic()
        else:
            settle(1)  # one arrival late, so that the device need not wait
        if stop() and taken < len(training.timeline.time):
            settle()
            keep(taken, seconds())
            if checkpoints is not None:
                checkpoints.wait()
            raise Stopped(taken)
    settle()
    spent = seconds()  # without the last checkpoint's writing, so that it can say the same
    keep(len(training.timeline.time), spent)
    if checkpoints is not None:
        checkpoints.wait()
    return Finished(state, curves_of(training, points), spent)


def _progress(model: LanguageModel, pace: Pace, point: Point, visit: Visit | None) -> Progress:
    speed = None
    if pace.rate is not None:
        tokens = pace.rate * model.batch * model.sequence
        speed = Speed(tokens, tokens * flops_per_token(model))
    return Progress(pace.done, pace.total, point, visit, speed, pace.seconds_left)


def _checked(training: Training, e: int, loss: jax.Array, checkpoints: Checkpoints | None) -> Visit:
    """The visit of an arrival.

    Raises:
        NotFinite: its loss is not.
    """
    timeline, value = training.timeline, float(loss)
    if math.isfinite(value):
        steps, seconds = int(timeline.local_steps[e]), float(timeline.time[e])
        return Visit(steps, seconds, int(timeline.worker[e]), int(timeline.staleness[e]), value)
    said = f"the loss of worker {timeline.worker[e]}'s visit of {timeline.num_steps[e]} steps is {value}, after "
    said += f"{timeline.local_steps[e]:,} local steps of all workers (arrival {e})"
    raise NotFinite(said + _last_good(checkpoints))


def _check_held_out(point: Point, checkpoints: Checkpoints | None) -> None:
    """Raise NotFinite if the evaluation's loss is not."""
    if not math.isfinite(loss := point.metrics["loss"]):
        said = f"the held-out loss is {loss} after {point.local_steps:,} local steps (arrival {point.arrival - 1})"
        raise NotFinite(said + _last_good(checkpoints))


def _last_good(checkpoints: Checkpoints | None) -> str:
    last = checkpoints.last() if checkpoints is not None else None
    return "; there is no checkpoint" if last is None else f"; the last good checkpoint is {last}"


def as_record(run: Run) -> Run:
    """A run as the store keeps it, which knows no language models."""
    return load_run(dump_run(run, CHOICES), foreign=True)


def curves_of(training: Training, points: list[Point]) -> Curves:
    """The evaluations as curves of one seed."""
    steps, times = (np.array([[getattr(p, name) for p in points]]) for name in ("local_steps", "time"))
    metrics = {name: np.array([[p.metrics[name] for p in points]]) for name in points[0].metrics}
    return Curves(as_record(training.run), (training.seed,), steps, times, metrics)
