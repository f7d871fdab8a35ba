"""Sweeps over Ray: calls of a sweep trained by actors, as many as the machines take."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from toybench.config import ConfigError, ConfigWarning
from toybench.runtime import configure
from toybench.transports.about import versions
from toybench.transports.ray.crew import cause, taken
from toybench.transports.ray.means import NOTHING, Needs, room
from toybench.transports.ray.seat import settle
from toybench.transports.ray.site import machines, site

if TYPE_CHECKING:
    from toybench.curves import Curves
    from toybench.sweep import Force, Job

LIVES = 5  # that an actor has; what it was training when it died is trained again
BEAT = 0.2  # seconds between reports
PLACED = 120.0  # seconds in which an actor must find room on machines that others use too, and start


class Trainer:
    """The actor that trains calls. Equal calls give equal results, so that one may be asked for twice."""

    def __init__(self, needs: Needs):
        os.environ["NPROC"] = str(max(1, int(needs.cpus)))
        settle(needs.gpus)
        configure(devices=1)

    def made_by(self) -> tuple[dict[str, str], dict[str, str]]:
        """Who trains here, as the store tells it; versions and sources."""
        from toybench.records import maker

        return maker(), versions()

    def train(self, job: Job) -> tuple[list[Curves], float]:
        """The curves of a call, and the seconds that it took."""
        from toybench.curves import Curves
        from toybench.training import train

        began = time.perf_counter()
        found = train(job.lanes, job.seeds)
        own = [Curves(one.run, one.seeds, one.local_steps, one.time, one.metrics) for one in found]
        return own, time.perf_counter() - began


@contextmanager
def force(
    address: str | None = None,
    cpus_per_worker: float = 1.0,
    gpus_per_worker: float = 0.0,
    resources_per_worker: Mapping[str, float] = NOTHING,
    most: int | None = None,
) -> Iterator[Force]:
    """Actors that train a sweep, until the block ends.

    Args:
        address: HOST:PORT of a running Ray; None starts one on this machine.
        cpus_per_worker, gpus_per_worker, resources_per_worker: of an actor.
        most: actors; as many as fit, if left out.

    Raises:
        ConfigError: Ray is not there, not one actor fits or finds room, or machines differ in versions, sources or
            devices.
    """
    import importlib.util

    from toybench.sweep import Force

    if importlib.util.find_spec("ray") is None:
        raise ConfigError("engine", "Ray is not installed: pip install 'toybench[ray]'")
    needs = Needs(1, cpus_per_worker, gpus_per_worker, resources_per_worker)
    with site(needs, address):
        import ray

        count = int(sum(min(room(one, needs), 10_000) // 1 for one in machines()))
        kind = ray.remote(Trainer).options(**taken(needs), max_restarts=LIVES, max_task_retries=LIVES)
        actors = [kind.remote(needs) for _ in range(count if most is None else min(most, count))]
        actors, told = _placed(actors, PLACED)
        for made_by, own in told:
            differing = {
                key for key in (versions() | made_by) if (own | made_by).get(key) != (versions() | told[0][0])[key]
            }
            if differing:
                raise ConfigError("engine", f"machines differ in {', '.join(sorted(differing))}")
        yield Force(told[0][0], partial(_carry, actors))


def _placed(actors: Sequence[Any], seconds: float) -> tuple[list[Any], list[Any]]:
    """Those that have found room in time, and who they are made by; the others are let go.

    Raises:
        ConfigError: there are none, or one does not start.
    """
    import ray
    from ray.exceptions import RayError

    asked = {actor.made_by.remote(): actor for actor in actors}
    there, waiting = ray.wait([*asked], num_returns=len(asked), timeout=seconds)
    for one in waiting:
        ray.kill(asked[one])
    if not there:
        raise ConfigError("engine", f"none of {len(asked)} actors found room within {seconds:g} s: others use it all")
    if waiting:
        said = f"{len(there)} of {len(asked)} actors found room within {seconds:g} s, and go on without the others"
        warnings.warn(said, ConfigWarning, stacklevel=2)
    try:
        return [asked[one] for one in there], ray.get(there)
    except RayError as error:
        raise ConfigError("engine", f"an actor does not start: {cause(error)}") from None


def _carry(
    actors: Sequence[Any], jobs: Sequence[Job], report: Callable[[float], None]
) -> Iterator[tuple[int, Sequence[Curves], float]]:
    import ray
    from ray.exceptions import RayError, RayTaskError

    free, waiting, busy = list(actors), list(enumerate(jobs)), {}
    while waiting or busy:
        while free and waiting:
            actor, (number, job) = free.pop(), waiting.pop(0)
            busy[actor.train.remote(job)] = number, actor
        ready, _ = ray.wait([*busy], timeout=BEAT)
        report(0.0)  # where an interrupt is looked for
        for one in ready:
            number, actor = busy.pop(one)
            try:
                found, seconds = ray.get(one)
            except RayTaskError as error:
                raise error.cause from None
            except RayError as error:
                raise ConfigError(
                    "engine", f"the actors of a call died {LIVES} times: {type(error).__name__}"
                ) from None
            free.append(actor)
            report(float(len(jobs[number].lanes) * len(jobs[number].seeds)))
            yield number, found, seconds
