"""The server's process, where it is an actor: what its driver and the workers may ask. No Ray here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toybench.config import ConfigError
from toybench.transports.about import versions

if TYPE_CHECKING:
    from toybench.transports.messages import Reply, Rules
    from toybench.transports.work import Recipe


class Terms(NamedTuple):
    """What every process of a run is told."""

    recipe: Recipe
    folder: str  # the server's
    rules: Rules
    about: Mapping[str, str]
    name: str  # of the server's actor
    kept: int  # numbers of workers below this belong to the driver that began


class Seat:
    """The actor that holds a run: a `Live` whose house is kept. Any thread may ask.

    Args:
        terms: of the run. Where its folder holds something of the same run, that goes on.
        gpus: that it may use.
    """

    def __init__(self, terms: Terms, gpus: float = 0.0):
        settle(gpus)
        self.terms, self.house = terms, ExitStack()
        self.reserved: set[int] = set()
        self.problem: tuple[str, str] | None = None
        try:
            self._open(terms)
        except ConfigError as error:
            self.house.close()
            self.problem = error.name, error.problem

    def _open(self, terms: Terms) -> None:
        from toybench.runtime import configure
        from toybench.transports.house import first_look, kept
        from toybench.transports.live import Live

        configure()
        if other := [name for name, own in versions().items() if terms.about.get(name) != own]:
            raise ConfigError("server", f"{', '.join(other)} of its process are not the driver's")
        self.live = Live(terms.recipe.make(), Path(terms.folder), terms.rules, terms.about)
        self.house.callback(self.live.close)
        first_look(self.live)
        self.house.enter_context(kept(self.live))

    def opened(self) -> tuple[str, str] | None:
        """Name and problem of the ConfigError that kept it from opening, if one did."""
        return self.problem

    def ask(self, method: str, *args: Any) -> Reply:
        """What workers call: `hello`, `push` or `next` of `Live`."""
        return getattr(self.live, method)(*args)

    def tell(self) -> Terms:
        """For who joins later."""
        return self.terms

    def reserve(self) -> int:
        """A number for a worker that is about to come, not one of the first driver's."""
        with self.live.changed:
            taken = self.live.coordinator.scheduler.present | self.reserved
            number = next(n for n in range(self.terms.kept, self.terms.kept + len(taken) + 1) if n not in taken)
            self.reserved.add(number)
        return number

    def gone(self, worker: int, why: str = "died") -> None:
        """A worker's process has died, or left."""
        self.live.gone(worker, why)

    def fail(self, why: str) -> None:
        """Give the run up."""
        self.live.fail(why)

    def status(self) -> dict[str, Any]:
        """What `house.status` tells, whether more will happen, and the number of this process."""
        from toybench.transports.house import status

        return status(self.live) | {"settled": self.live.settled, "server_pid": os.getpid()}

    def close(self) -> dict[str, Any]:
        """Everything written down; the last status."""
        if self.problem:
            return {"done": False, "failed": ": ".join(self.problem)}
        try:
            self.house.close()
        except ConfigError as error:
            self.live.fail(str(error))
        return self.status()


def settle(gpus: float) -> None:
    """What jax must find in the environment of an actor, before it is imported."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # a GPU may be shared
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
