"""`replay` of a record: a real run once more from its arrivals, and how far the parameters are from what it had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from toybench.config import ConfigError
from toybench.records import read_json
from toybench.transports.about import about_of
from toybench.transports.again import again
from toybench.transports.drive import RECORD
from toybench.transports.results import Departure, departures_from, read_real, timeline_from
from toybench.transports.work import recipe_from


class Replayed(NamedTuple):
    """A real run and its replay."""

    arrivals: int
    largest: float  # difference of a parameter
    relative: float  # norm of all differences over the norm of what training changed
    loss: float  # held out, of the real run's parameters
    loss_again: float
    departures: list[Departure]
    first_departure: int | None
    same_code: bool


def read_record(path: Path) -> dict[str, Any]:
    """The record of a real run: the file, or the folder that holds it.

    Raises:
        ConfigError: it is none.
    """
    document = read_json(path / RECORD if path.is_dir() else path)
    needed = {"recipe", "arrivals", "predicted", "first_departure", "about"}
    if not isinstance(document, dict) or not needed <= document.keys():
        raise ConfigError("record", f"{str(path)!r} is no record of a real run")
    first = document["first_departure"]
    if first is not None and (not isinstance(first, int) or isinstance(first, bool) or first < 0):
        raise ConfigError("first_departure", f"expected the number of an arrival or null, got {first!r}")
    return document


def replay_record(path: Path, report: Callable[[int, int], None] = lambda done, total: None) -> Replayed:
    """Reproduce a real run from its record.

    Args:
        path: of the record, which lies beside what the run's server left.
        report: called after each arrival with their number and that of all.

    Raises:
        ConfigError: there is no record, or no parameters beside it, or they are damaged or of different runs.
    """
    document = read_record(path)
    folder = path if path.is_dir() else path.parent
    recipe, predicted = recipe_from(document["recipe"]), departures_from(document["predicted"])
    work, real = recipe.make(), read_real(folder)
    timeline = timeline_from(document["arrivals"], work.run)
    shapes = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(jax.eval_shape(work.init))]
    if [(leaf.shape, leaf.dtype) for leaf in real.params[: len(shapes)]] != shapes:
        raise ConfigError("record", f"{str(folder)!r} holds the parameters of another model")
    found = again(work, timeline, real.codec, lambda done: report(done, len(timeline.time)))
    leaves, structure = jax.tree.flatten(found)
    kept = jax.tree.unflatten(structure, real.params[: len(leaves)])
    begun = jax.tree.leaves(work.init())
    apart = [np.asarray(a, np.float64) - np.asarray(b, np.float64) for a, b in zip(leaves, jax.tree.leaves(kept))]
    moved = [np.asarray(a, np.float64) - np.asarray(b, np.float64) for a, b in zip(leaves, begun)]
    return Replayed(
        len(timeline.time),
        max(float(np.abs(leaf).max()) for leaf in apart),
        _norm(apart) / max(_norm(moved), 1e-30),
        work.evaluate(kept)["loss"],
        work.evaluate(found)["loss"],
        predicted,
        document["first_departure"],
        about_of(recipe) == document["about"],
    )


def _norm(leaves: list[np.ndarray]) -> float:
    return float(np.sqrt(sum(float((leaf**2).sum()) for leaf in leaves)))
