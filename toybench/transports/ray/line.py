"""A worker's process, and how it reaches the server."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from toybench.runtime import configure
from toybench.transports.about import versions
from toybench.transports.ray.means import Needs
from toybench.transports.ray.seat import Terms, settle
from toybench.transports.ray.site import NAMESPACE

if TYPE_CHECKING:
    from toybench.transports.messages import Push, Reply
    from toybench.transports.worker import Connection

WAIT = 1.0  # seconds that a worker's question stays with the server
Around = Callable[["Connection"], "Connection"]


class Line:
    """The server as a worker reaches it: where it has died, the next of its name is waited for and asked again."""

    def __init__(self, name: str):
        self.name = name
        self.handle: Any = None

    def hello(self, worker: int, about: Mapping[str, str] | None, who: str) -> Reply:
        return self.call("ask", "ask", "hello", worker, about, who)

    def push(self, push: Push) -> Reply:
        return self.call("ask", "ask", "push", push)

    def next(self, worker: int, who: str) -> Reply:
        return self.call("polls", "ask", "next", worker, WAIT, who)

    def call(self, queue: str, method: str, *args: Any) -> Any:
        """The answer of an actor's method, when there is one."""
        while True:
            answered, reply = self.once(queue, method, *args)
            if answered:
                return reply
            time.sleep(0.2)

    def once(self, queue: str, method: str, *args: Any, seconds: float | None = None) -> tuple[bool, Any]:
        """Whether there is a server that answers in time, and what."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            if self.handle is None:
                self.handle = ray.get_actor(self.name, namespace=NAMESPACE)
            coming = getattr(self.handle, method).options(concurrency_group=queue).remote(*args)
            return True, ray.get(coming, timeout=seconds)
        except RayTaskError:  # it has answered
            raise
        except (RayError, ValueError, TimeoutError):  # it is dead, or not there yet, or silent
            self.handle = None
            return False, None


def plain(connection: Connection) -> Connection:
    """A worker's connection as it is."""
    return connection


class Worker:
    """The actor that trains.

    Args:
        needs: its part of the machine. Threads of XLA's CPU client are as many as its CPUs.
    """

    def __init__(self, needs: Needs):
        os.environ["NPROC"] = str(max(1, int(needs.cpus)))
        settle(needs.gpus)
        configure(devices=1)
        self.leaving = threading.Event()

    def pid(self) -> int:
        """The number of its process."""
        return os.getpid()

    def leave(self) -> None:
        """Come to an end after the visit that is being made."""
        self.leaving.set()

    def serve(self, terms: Terms, worker: int, around: Around) -> str:
        """Work until the run is over; why the server would not have it, if so."""
        from toybench.transports.worker import serve

        work, about = terms.recipe.make(), {**terms.about, **versions()}
        line = around(Line(terms.name))
        return serve(work, line, terms.rules, worker=worker, about=about, stop=self.leaving.is_set)
