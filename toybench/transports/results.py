"""What a real run has left: arrivals, evaluations and parameters; and how it went otherwise than was predicted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toybench.config import LARGEST, LARGEST_FLOAT, ConfigError, Run
from toybench.timeline import Timeline, simulate
from toybench.transports.coordinator import read_arrivals, timeline_of
from toybench.transports.keeping import SCHEMA, Point
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
        ConfigError: there is none, or none that this version reads.
    """
    ledger = folder / LEDGER
    frame = Ledger(ledger).last() if ledger.is_dir() else None
    if frame is None:
        raise ConfigError("record", f"{str(folder)!r} holds no real run")
    if frame.told.get("schema") != SCHEMA:
        raise ConfigError("record", f"{str(folder)!r} holds a run of another version")
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


def timeline_from(columns: Any, run: Run) -> Timeline:
    """The timeline of `columns_of`, which may have been damaged since.

    Raises:
        ConfigError: the run cannot have had such arrivals.
    """
    if not isinstance(columns, dict) or columns.keys() != {*Timeline._fields}:
        raise ConfigError("arrivals", f"expected the columns {', '.join(Timeline._fields)}")
    for name, column in columns.items():
        said, _, fits = _COLUMNS[name]
        if not isinstance(column, list) or not all(map(fits, column)):
            raise ConfigError(f"arrivals.{name}", f"expected a list of {said}")
    rows = {name: len(column) for name, column in columns.items()}
    if len({*rows.values()}) > 1 or not rows["time"]:
        said = ", ".join(f"{name} {number}" for name, number in rows.items())
        raise ConfigError("arrivals", f"expected columns of as many rows, one or more, got {said}")
    timeline = Timeline(**{name: np.array(column, _COLUMNS[name][1]) for name, column in columns.items()})
    steps = run.cluster.local_steps
    for name, least, most in (
        ("worker", 0, LARGEST - 1),
        ("shard", 0, run.cluster.num_shards - 1),
        ("num_steps", 1, steps),
        ("first_step", 0, LARGEST - 1 - steps),
        ("pulled_at", 0, np.arange(len(timeline.time))),
    ):
        column = getattr(timeline, name)
        wrong = np.flatnonzero((column < least) | (column > most))
        if len(wrong):
            row, most = wrong[0], np.broadcast_to(most, column.shape)
            said = f"must be from {least} to {most[row]} at arrival {row}, got {column[row]}"
            raise ConfigError(f"arrivals.{name}", said)
    return timeline


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_FLOAT


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


# A column's values: in words, as NumPy has them, and whether something is one.
_COLUMNS: dict[str, tuple[str, type, Callable[[Any], bool]]] = {
    **dict.fromkeys(Timeline._fields, ("whole numbers of 32 bits", np.int64, _whole)),
    **dict.fromkeys(("time", "start"), ("finite numbers", np.float64, _number)),
    **dict.fromkeys(("step", "reset"), ("true or false", np.bool_, _flag)),
}


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


def departures_from(rows: Any) -> list[Departure]:
    """The rows of `departures` in a record.

    Raises:
        ConfigError: they are none.
    """
    expected = {*Departure._fields}
    for row in rows if isinstance(rows, list) else [rows]:
        if not isinstance(row, dict) or row.keys() != expected or not isinstance(row["name"], str):
            raise ConfigError("predicted", f"expected a list of tables of {', '.join(Departure._fields)}")
        if not (_number(row["real"]) and _number(row["predicted"])):
            raise ConfigError("predicted", f"expected finite numbers of {row['name']!r}")
    return [Departure(**row) for row in rows]


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
