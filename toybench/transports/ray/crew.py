"""The processes that a driver has started: watched, and replaced when they die."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from toybench.config import ConfigError
from toybench.transports.ray.line import Around, Worker
from toybench.transports.ray.means import Needs
from toybench.transports.ray.posts import Care, Deaths, Post
from toybench.transports.ray.seat import Seat, Terms
from toybench.transports.ray.site import NAMESPACE

DONE = "it is done"
JOINERS = 64  # workers that may join a run and wait for a visit without being in each other's way


def queues(workers: int) -> dict[str, int]:
    """Calls at once of each kind: a thread of the server's for everybody who waits for a visit."""
    return {"ask": 8, "polls": workers + JOINERS, "driver": 8}


@dataclass
class Crew:
    """The workers of a driver: watched, and replaced when they die."""

    terms: Terms
    needs: Needs
    care: Care
    around: Around
    posts: list[Post] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def look(self, told: dict[str, Any], gone: Callable[[int], Any]) -> None:
        """Replace who has died, `gone` being told of it first."""
        import ray

        visits = {one["worker"]: one["visits"] for one in told["workers"]}
        for post in self.posts:
            if post.task is not None and (ended := self._ended(post)):
                how, unborn = ended
                with suppress(Exception):  # who is only held for dead must not go on beside the next
                    ray.kill(post.actor)
                post.actor = post.task = None
                if not told["settled"] and post.closed != DONE:
                    gone(post.worker)
                    self.notes.append(f"worker {post.worker}: {how}")
                    post.deaths.count(visits.get(post.worker, 0), unborn)
                if post.deaths.hopeless:
                    post.closed = post.deaths.why(how, "finishing a visit")
            if post.task is None and not post.closed and time.monotonic() >= post.deaths.not_before:
                self._send(post)

    def _send(self, post: Post) -> None:
        import ray

        post.actor = ray.remote(Worker).options(**taken(self.needs), max_concurrency=4).remote(self.needs)
        own = self.terms._replace(recipe=self.terms.recipe.spread())  # of the devices that it is given
        post.task = post.actor.serve.remote(own, post.worker, self.around)
        post.pid_of, post.pid = post.actor.pid.remote(), None

    def _ended(self, post: Post) -> tuple[str, str] | None:
        """How a worker's process ended, and why it did not start; if so. Nobody follows one that ended by itself."""
        import ray
        from ray.exceptions import GetTimeoutError, RayError, RayTaskError

        try:
            if post.pid is None and ray.wait([post.pid_of], timeout=0)[0]:
                post.pid = ray.get(post.pid_of)
            post.closed = ray.get(post.task, timeout=0) or DONE
        except GetTimeoutError:
            return None
        except RayTaskError as error:
            post.closed = str(error.cause).splitlines()[0] if str(error.cause) else type(error.cause).__name__
        except RayError as error:
            return cause(error), unborn(error)
        return post.closed, ""

    @property
    def lost(self) -> str:
        """Why nobody is left, if nobody is; who is done was told so by the server."""
        if any(post.closed == DONE for post in self.posts):
            return ""
        closed = [f"worker {post.worker}: {post.closed}" for post in self.posts if post.closed]
        return "; ".join(dict.fromkeys(closed)) if len(closed) == len(self.posts) else ""

    def told(self) -> dict[str, Any]:
        """For a status: process of each worker that has one, deaths, and the last of what happened."""
        pids = {post.worker: post.pid for post in self.posts if post.task is not None}
        return {"pids": pids, "deaths": sum(post.deaths.total for post in self.posts), "notes": self.notes[-20:]}

    def leave(self) -> None:
        """All come to an end, by themselves if they do it in time."""
        import ray

        there = [post for post in self.posts if post.task is not None]
        for post in there:
            post.actor.leave.remote()
        if there:
            ray.wait([post.task for post in there], num_returns=len(there), timeout=self.care.leave)
        for post in there:
            ray.kill(post.actor)


def taken(needs: Needs) -> dict[str, Any]:
    """What an actor takes, as Ray is told.

    Raises:
        ConfigError: Ray would not give it: an accelerator may have numbers of its own.
    """
    import ray

    options: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "resources": dict(needs.others)}
    try:
        ray.remote(Worker).options(**options)
    except ValueError as error:
        raise ConfigError("resources-per-worker", str(error).splitlines()[0]) from None
    return options


def unborn(error: Exception) -> str:
    """Why a process did not start, in a line: what it raised itself, if it did."""
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    return said[-1] if getattr(error, "actor_init_failed", False) and said else ""


def cause(error: Exception) -> str:
    """Why a process is gone, in a line."""
    return unborn(error) or type(error).__name__


class Left(Exception):
    """The driver is to leave, and the server has not answered yet."""


@dataclass
class Chair:
    """The server of a driver: asked, and replaced when it dies by one from the same folder."""

    terms: Terms
    care: Care
    gpus: float
    stop: Callable[[], bool]
    deaths: Deaths
    notes: list[str]
    handle: Any = None
    why: str = ""  # it is held for dead
    unborn: str = ""  # it did not even start
    last: dict[str, Any] = field(default_factory=lambda: {"arrivals": 0, "workers": [], "settled": False})

    def ask(self, method: str, *args: Any) -> Any:
        """The answer of a method of `Seat`.

        Raises:
            ConfigError: there is no server any more, and why.
            Left: `stop` said so before there was an answer.
        """
        while True:
            answered, reply = self._answer(method, *args)
            if answered:
                return reply
            self._replace()

    def open(self) -> None:
        """Start the process.

        Raises:
            ConfigError: it cannot use its folder, or does not start.
        """
        self.handle = self._made()
        if (problem := self.ask("opened")) is not None:
            raise ConfigError(*problem)

    def _answer(self, method: str, *args: Any) -> tuple[bool, Any]:
        import ray
        from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

        until, coming = time.monotonic() + self.care.silence, None
        self.why, self.unborn = f"it was silent for {self.care.silence:g} s", ""
        while time.monotonic() < until:
            if self.stop():
                raise Left
            try:
                coming = coming or getattr(self.handle, method).options(concurrency_group="driver").remote(*args)
                if ray.wait([coming], timeout=self.care.beat)[0]:
                    return True, ray.get(coming)
            except RayTaskError as error:
                raise (error.cause if isinstance(error.cause, ConfigError) else error) from None
            except ActorUnavailableError:  # for the moment; every question may be repeated
                coming = None
                time.sleep(self.care.beat)
            except RayError as error:
                self.why, self.unborn = cause(error), unborn(error)
                break
        return False, None

    def _replace(self) -> None:
        import ray

        with suppress(Exception):  # it may be dead, or hang
            ray.kill(self.handle)
        self.notes.append(f"server: {self.why}")
        self.deaths.count(self.last["arrivals"], self.unborn)
        if self.deaths.hopeless:
            raise ConfigError("server", self.deaths.why(self.why, "an arrival"))
        time.sleep(max(0.0, self.deaths.not_before - time.monotonic()))
        self.open()

    def _made(self) -> Any:
        """Its actor, on this machine, once the name is free."""
        import ray
        from ray.exceptions import ActorAlreadyExistsError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        remote: Any = ray.remote  # which is typed for no arguments
        kind = remote(concurrency_groups=queues(self.terms.kept))(Seat)
        options: Any = {"num_cpus": 0, "num_gpus": self.gpus, "scheduling_strategy": here, "namespace": NAMESPACE}
        for _ in range(50):
            with suppress(ActorAlreadyExistsError):
                return kind.options(name=self.terms.name, **options).remote(self.terms, self.gpus)
            time.sleep(0.2)
        raise ConfigError("out", f"a run in {self.terms.folder!r} is being made on this cluster")
