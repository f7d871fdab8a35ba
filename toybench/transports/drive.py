"""A run carried out by real workers, with everything around it: folder, resume, status, record."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from toybench.config import ConfigError, ConfigWarning
from toybench.records import provenance, write_json
from toybench.transports.about import about_of, versions
from toybench.transports.codec import CODECS
from toybench.transports.ledger import Ledger
from toybench.transports.live import Live
from toybench.transports.messages import Rules
from toybench.transports.results import LEDGER, columns_of, departures, first_departure, predicted, read_real
from toybench.transports.work import Recipe

ENGINES = ("threads", "ray")
RECORD, STATUS = "real.json", "status.json"

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Engine:
    """How real workers are had.

    Args:
        name: 'threads' of this process, or 'ray', processes on this machine or many.
        rules: of the server.
        address: of a running Ray cluster; None starts one on this machine.
        cpus_per_worker: of Ray's, for each worker.
        gpus_per_worker: likewise.
        resources_per_worker: others by their names.
    """

    name: str
    rules: Rules = field(default_factory=Rules)
    address: str | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    resources_per_worker: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        if self.name not in ENGINES:
            raise ConfigError("engine", f"must be one of {', '.join(ENGINES)}, got {self.name!r}")
        if self.rules.codec not in CODECS:
            raise ConfigError("compress", f"must be one of {', '.join(CODECS)}, got {self.rules.codec!r}")
        bounds = {"pace": (self.rules.pace, 0), "gpus_per_worker": (self.gpus_per_worker, 0)}
        for name, (value, least) in (bounds | {"deadline": (self.rules.factor, 1)}).items():
            if not least <= value < float("inf"):
                raise ConfigError(name, f"must be a finite number >= {least}, got {value}")
        devices = self.gpus_per_worker or self.resources_per_worker or self.cpus_per_worker != 1
        if self.name == "threads" and (self.address is not None or devices):
            raise ConfigError("engine", "threads have no address and no devices of their own; take 'ray'")


def carry_out(
    recipe: Recipe,
    engine: Engine,
    folder: Path,
    *,
    resume: bool = False,
    report: Report = lambda told: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Train by real workers until the end; the record of it is written into the folder.

    Args:
        recipe: of the run.
        engine: its workers.
        folder: of this run alone.
        resume: go on with what is there.
        report: told of the run a few times a second.
        stop: asked as often.

    Returns:
        The record; None if it was stopped, and goes on with `resume`.

    Raises:
        ConfigError: the folder holds a run already, or another; it cannot be written; or the run has failed.
    """
    ledger, began = folder / LEDGER, time.monotonic()
    if not resume and any(ledger.glob("checkpoint-*")):
        said = f"{str(folder)!r} holds a real run"
        raise ConfigError("out", f"{said}; --resume goes on with it, another --out leaves it")
    tell_of_other_sources(ledger)
    last: dict[str, Any] = {}

    tell = _every(1.0, lambda status: write_json(folder / STATUS, status))

    def told(status: dict[str, Any]) -> None:
        last.update(status)
        report(status)
        tell(status)

    whole = _RUNNERS[engine.name](recipe, engine, ledger, told, stop)
    write_json(folder / STATUS, last)
    if last.get("failed"):
        raise ConfigError("run", last["failed"])
    if not whole:
        return None
    document = record(recipe, engine, folder, time.monotonic() - began)
    write_json(folder / RECORD, document)
    return document


def tell_of_other_sources(ledger: Path) -> None:
    """Warn where a run goes on under other sources than it was made by so far."""
    frame = Ledger(ledger).last() if ledger.is_dir() else None
    if frame is not None and (before := frame.told["about"].get("sources")) != (now := versions()["sources"]):
        said = f"the run was made so far by sources {before}, these are {now}: it may go otherwise from here"
        warnings.warn(f"resume: {said}", ConfigWarning, stacklevel=2)


def _threads(recipe: Recipe, engine: Engine, ledger: Path, report: Report, stop: Callable[[], bool]) -> bool:
    from toybench.transports.threads import run_threads

    work = recipe.make()
    return run_threads(Live(work, ledger, engine.rules, about_of(recipe)), work, report=report, stop=stop)


def _ray(recipe: Recipe, engine: Engine, ledger: Path, report: Report, stop: Callable[[], bool]) -> bool:
    from toybench.transports.ray import run_ray

    return run_ray(
        recipe,
        ledger,
        engine.rules,
        about_of(recipe),
        workers=recipe.make().run.cluster.workers,
        address=engine.address,
        cpus_per_worker=engine.cpus_per_worker,
        gpus_per_worker=engine.gpus_per_worker,
        resources_per_worker=engine.resources_per_worker,
        report=report,
        stop=stop,
    )


_RUNNERS = {"threads": _threads, "ray": _ray}


def _every(seconds: float, call: Report) -> Report:
    """A function, called no oftener than that."""
    at = -seconds

    def sometimes(told: dict[str, Any]) -> None:
        nonlocal at
        if time.monotonic() - at >= seconds:
            at = time.monotonic()
            call(told)

    return sometimes


def record(recipe: Recipe, engine: Engine, folder: Path, seconds: float) -> dict[str, Any]:
    """What a finished real run leaves behind, as JSON."""
    real, run = read_real(folder), recipe.make().run
    model = predicted(run, real, recipe.told["seed"])
    return {
        "recipe": recipe._asdict(),
        "engine": asdict(engine),
        "seconds": seconds,
        "counts": dict(real.counts),
        "lost": real.lost,
        "speeds": {str(worker): speed for worker, speed in real.speeds.items()},
        "points": [point._asdict() for point in real.points],
        "arrivals": columns_of(real.timeline),
        "predicted": [departure._asdict() for departure in departures(real, model)],
        "first_departure": first_departure(real.timeline, model),
        "about": about_of(recipe),
        "provenance": provenance(),
    }
