"""Workers and server as actors of Ray: one process each, on one machine or on many.

A Ray of our own listens on loopback only, has no dashboard, reports no usage, and lets in who knows a token that is
made for it (`RAY_AUTH_MODE=token`, unless the environment says otherwise). A cluster's settings hold where an address
is given: `RAY_AUTH_MODE`, `RAY_AUTH_TOKEN`, `RAY_AUTH_TOKEN_PATH` or ``~/.ray/auth_token`` as Ray documents them.
Whoever may talk to a Ray may run code in it. Its own pickles go between processes of a run, with parameters and
pseudo-gradients in them as NumPy arrays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toybench.config import ConfigError
from toybench.transports.about import about_of, versions
from toybench.transports.ray.crew import Chair, Crew, Left
from toybench.transports.ray.line import Around, Line, plain
from toybench.transports.ray.means import NOTHING, Key, Needs, check_amount
from toybench.transports.ray.posts import Care, Deaths, Post
from toybench.transports.ray.seat import Terms
from toybench.transports.ray.site import shown, site

if TYPE_CHECKING:
    from toybench.transports.messages import Rules
    from toybench.transports.work import Recipe

Report = Callable[[dict[str, Any]], None]


def run_ray(
    recipe: Recipe,
    folder: Path,
    rules: Rules,
    about: Mapping[str, str] | None = None,
    *,
    workers: int,
    address: str | None = None,
    cpus_per_worker: float = 1.0,
    gpus_per_worker: float = 0.0,
    resources_per_worker: Mapping[str, float] = NOTHING,
    gpus_for_server: float = 0.0,
    store: int | None = None,
    care: Care = Care(),  # noqa: B008 - frozen
    around: Around = plain,
    report: Report = lambda told: None,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train with one process a worker until the run is over.

    Args:
        recipe: of the run, which every process makes for itself.
        folder: of the server, on this machine; what it holds of the same run goes on. While the run is being made,
            its `KEY` says where to join it.
        rules: the server's.
        about: what else than `about_of` workers must agree in.
        workers: processes that this driver starts, and starts again when they die.
        address: HOST:PORT of a Ray that this machine belongs to; None starts one, or uses that of this process.
        cpus_per_worker: also the threads of XLA, where it is above 1.
        gpus_per_worker: parts of one are possible.
        resources_per_worker: others by the names that the cluster has for them, as {'TPU': 4}.
        gpus_for_server: which also evaluates.
        store: bytes of shared memory of a Ray that is started.
        care: see `Care`.
        around: makes a worker's connection into another; it must be known by name in the worker's process.
        report: told a few times a second what `house.status` tells, and of the processes.
        stop: asked as often: whether to leave it at that.

    Returns:
        Whether it came to its end; what is there is in the server's folder.

    Raises:
        ConfigError: Ray is not there or nobody answers, the workers do not fit, or the folder cannot be used.
    """
    needs, folder = Needs(workers, cpus_per_worker, gpus_per_worker, resources_per_worker), folder.resolve()
    check_amount("gpus-for-server", gpus_for_server, whole=True)
    name = f"server-{sha256(str(folder).encode()).hexdigest()[:12]}"
    terms = Terms(recipe, str(folder), rules, {**(about or {}), **about_of(recipe)}, name, workers)
    with site(needs, address, store):
        crew = Crew(terms, needs, care, around, [Post(worker, Deaths(care)) for worker in range(workers)])
        chair = Chair(terms, care, gpus_for_server, stop, Deaths(care), crew.notes)
        try:
            chair.open()
            with shown(folder, name):
                _watch(chair, crew, report)
        except Left:
            pass
        finally:
            told = _end(chair, crew)
        report(told)
        return bool(told["done"]) and not told["failed"]


def _watch(chair: Chair, crew: Crew, report: Report) -> None:
    while not chair.stop():
        chair.last = told = chair.ask("status")
        report(told | crew.told() | {"server_deaths": chair.deaths.total})
        if told["settled"]:
            return
        crew.look(told, lambda worker: chair.ask("gone", worker))
        if crew.lost:
            chair.ask("fail", f"no worker is left; {crew.lost}")
        time.sleep(crew.care.beat)


def _end(chair: Chair, crew: Crew, seconds: float = 60.0) -> dict[str, Any]:
    """Everybody leaves; the last that can be said. A server that does not answer any more has written down all."""
    crew.leave()
    told = chair.last | {"done": False, "failed": "the server does not answer; what it answered is there"}
    if chair.handle is not None:
        until = time.monotonic() + seconds
        chair.stop = lambda: time.monotonic() > until
        try:
            told = chair.ask("close")
            told["failed"] = told["failed"] or chair.last.get("failed", "")  # a server begun since does not know of it
        except Left:
            pass
        except ConfigError as error:  # there is none any more, or what it had to write down it could not
            told["failed"] = str(error)
        _kill(chair.handle)
    return told | crew.told() | {"server_deaths": chair.deaths.total}


def _kill(actor: Any) -> None:
    import ray

    with suppress(Exception):  # it may be dead
        ray.kill(actor)


def join_ray(
    key: Key,
    *,
    workers: int = 1,
    cpus_per_worker: float = 1.0,
    gpus_per_worker: float = 0.0,
    resources_per_worker: Mapping[str, float] = NOTHING,
    care: Care = Care(),  # noqa: B008 - frozen
    around: Around = plain,
    report: Report = lambda told: None,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Add workers to a run that is being made, until it is over or `stop` says so; they leave when this process ends.

    Args:
        key: where the run is; `key_of` reads it from the run's folder.
        workers: how many, with numbers that nobody else has.

    The others are those of `run_ray`.

    Returns:
        Whether the run came to its end.

    Raises:
        ConfigError: nobody answers, no such run is there, its versions are not this process's, or no worker could stay.
    """
    needs = Needs(workers, cpus_per_worker, gpus_per_worker, resources_per_worker)
    with site(needs, key.address, None, key.token):
        line, own = Line(key.name), versions()
        there, terms = line.once("driver", "tell", seconds=30.0)
        if not there:
            raise ConfigError("join", f"no run {key.name!r} answers at {key.address}")
        if other := next((n for n, there in terms.about.items() if own.get(n, there) != there), None):
            raise ConfigError("join", f"{other} is {own[other]} here, {terms.about[other]} in the run")
        numbers: list[int] = []
        crew = Crew(terms, needs, care, around)
        try:
            if not _reserved(line, workers, numbers, care, stop):
                return False
            crew.posts += [Post(number, Deaths(care)) for number in numbers]
            return _stay(line, crew, report, stop)
        finally:
            crew.leave()
            for number in numbers:
                line.once("driver", "gone", number, "left", seconds=5.0)


def _reserved(line: Line, workers: int, numbers: list[int], care: Care, stop: Callable[[], bool]) -> bool:
    """Numbers for so many workers; whether all were had before `stop` said so.

    Raises:
        ConfigError: the server is silent for too long.
    """
    heard = time.monotonic()
    while len(numbers) < workers and not stop():
        there, number = line.once("driver", "reserve", seconds=5.0)
        if there:
            heard = time.monotonic()
            numbers.append(number)
        elif time.monotonic() - heard >= care.silence:
            raise ConfigError("join", f"the run's server has not answered for {care.silence:g} s")
        else:
            time.sleep(care.beat)
    return len(numbers) == workers


def _stay(line: Line, crew: Crew, report: Report, stop: Callable[[], bool]) -> bool:
    heard = time.monotonic()
    while not stop() and time.monotonic() - heard < crew.care.silence:  # its driver brings up another server
        there, told = line.once("driver", "status", seconds=1.0)
        if there:
            heard = time.monotonic()
            report(told | crew.told())
            if told["settled"]:
                return bool(told["done"]) and not told["failed"]
            crew.look(told, lambda worker: line.once("driver", "gone", worker, seconds=5.0))
            if crew.lost:
                raise ConfigError("join", crew.lost)
        time.sleep(crew.care.beat)
    return False
