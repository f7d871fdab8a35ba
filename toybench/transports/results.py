"""What a real run has left: arrivals, evaluations and parameters; and how it went otherwise than was predicted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toybench.config import ConfigError, Run
from toybench.timeline import Timeline, simulate
from toybench.transports.coordinator import read_arrivals, timeline_of
from toybench.transports.keeping import Point
from toybench.transports.ledger import Ledger

LEDGER = "server"  # the folder, in a run's own, of what its server must not forget


class Real(NamedTuple):
    """A real run, read."""

    timeline: Timeline  # in seconds since it began
    points: list[Point]
    params: list[np.ndarray]  # leaves of the server's parameters come first
    speeds: dict[int, float]  # worker -> seconds of a local step at the end, in the unit of the cluster's speeds
    counts: dict[str, int]  # pushes by what was answered, bytes
    lost: int  # visits
    codec: str
    pace: float


def read_real(folder: Path) -> Real:
    """The last checkpoint of a real run's server.

    Args:
        folder: of the run.

    Raises:
        ConfigError: there is none.
    """
    ledger = folder / LEDGER
    frame = Ledger(ledger).last() if ledger.is_dir() else None
    if frame is None:
        raise ConfigError("record", f"{str(folder)!r} holds no real run")
    told, state = frame.told, frame.told["coordinator"]
    return Real(
        timeline_of(read_arrivals(state), state["stepped"]),
        [Point(*point) for point in told["points"]],
        frame.arrays,
        {int(worker): seconds for worker, seconds in state["speeds"]},
        told["counts"],
        state["counts"][1],
        told["codec"],
        told["pace"],
    )


def columns_of(timeline: Timeline) -> dict[str, list]:
    """A timeline as JSON can say it."""
    return {name: column.tolist() for name, column in timeline._asdict().items()}


def timeline_from(columns: dict[str, list]) -> Timeline:
    """The timeline of `columns_of`."""
    return Timeline(**{name: np.array(column) for name, column in columns.items()})


def predicted(run: Run, real: Real, seed: int) -> Timeline:
    """What the cluster model says of the run, told the workers' measured speeds; in seconds of the wall clock.

    A worker that was never measured is taken to be as fast as the run's own setting says.
    """
    unit = real.pace or 1.0
    declared = run.cluster.sec_per_step
    speeds = tuple(real.speeds.get(worker, seconds) for worker, seconds in enumerate(declared))
    timeline = simulate(replace(run.cluster, sec_per_step=speeds), run.budget, seed)
    return timeline._replace(time=timeline.time * unit, start=timeline.start * unit)


class Departure(NamedTuple):
    """A figure of a run, as it was and as it was predicted."""

    name: str
    real: float
    predicted: float


def departures(real: Real, model: Timeline) -> list[Departure]:
    """Where the wall clock went otherwise than the cluster model."""
    one, visits = real.timeline, {}
    for name, timeline in (("real", one), ("predicted", model)):
        visits[name] = np.bincount(timeline.worker, minlength=int(max(one.worker.max(), model.worker.max())) + 1)
    found = [
        Departure("seconds", float(one.time[-1] - one.start.min()), float(model.time[-1])),
        Departure("arrivals", len(one.time), len(model.time)),
        Departure("local steps", int(one.num_steps.sum()), int(model.num_steps.sum())),
        Departure("mean staleness", float(one.staleness.mean()), float(model.staleness.mean())),
        Departure("largest staleness", int(one.staleness.max()), int(model.staleness.max())),
    ]
    each = zip(visits["real"], visits["predicted"])
    return found + [Departure(f"visits of worker {w}", int(a), int(b)) for w, (a, b) in enumerate(each)]


def first_departure(one: Timeline, model: Timeline) -> int | None:
    """The first arrival of another worker than was predicted; None if there is none as far as both go."""
    both = min(len(one.worker), len(model.worker))
    differing = np.flatnonzero(one.worker[:both] != model.worker[:both])
    return int(differing[0]) if len(differing) else None
