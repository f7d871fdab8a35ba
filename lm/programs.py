"""The compiled programs of a training, shared by runs: of visits by those that differ in what the server does alone,
of arrivals by those that differ in the server's numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import jax

from lm.mesh import Lanes
from lm.placement import Placement
from lm.snapshots import Snapshots
from toybench.config import Inner, Run
from toybench.engine import arrival_extras
from toybench.inner import InnerOptimizer, local_update
from toybench.outer import outer_builder
from toybench.server import apply_arrival
from toybench.task import Task
from toybench.training import inner_builder, inner_numbers


@dataclass(frozen=True)
class Programs:
    """What workers compute.

    Args:
        task: what they train.
        kind: of the inner optimizer's settings.
        numbers: of the inner optimizer, by name.
        placement: the devices that the lanes are laid over.
        lanes: visits computed side by side.
    """

    task: Task
    kind: type[Inner]
    numbers: tuple[tuple[str, Any], ...]
    placement: Placement
    lanes: int

    @cached_property
    def mesh(self) -> Lanes:
        return Lanes(self.placement, self.lanes)

    @cached_property
    def snapshots(self) -> Snapshots:
        return Snapshots(self.placement)

    @cached_property
    def inner(self) -> InnerOptimizer:
        return inner_builder(self.kind)(dict(self.numbers))

    @property
    def single(self) -> bool:
        """Whether visits are computed one by one, each when it arrives."""
        return self.lanes == 1 and self.mesh.alone

    @cached_property
    def visit(self) -> Callable:
        """One visit, or a wave of them, as one program; what it is given to write to is given away."""
        task = self.mesh.task(self.task)

        def one(start, state, batches, first_step, num_steps, trip):
            def batch_at(j):
                return batches[j]

            start = self.snapshots.widened(start)
            return local_update(task, self.inner, start, state, batch_at, first_step, num_steps, trip)

        if self.single:
            return jax.jit(partial(one, trip=None), donate_argnums=1)
        if self.mesh.each > 1:
            return self.mesh.compile(jax.vmap(one, (0, 0, 0, 0, 0, None)))

        def lane(starts, states, batches, first_step, num_steps, trip):
            stacked = starts, states, batches, first_step, num_steps
            start, state, batch, first, num = jax.tree.map(lambda leaf: leaf[0], stacked)
            # A loop's own length costs nothing where nobody waits within it, for lanes or for parts of a batch.
            found = one(start, state, batch, first, num, trip if self.placement.data > 1 else None)
            return jax.tree.map(lambda leaf: leaf[None], found)

        return self.mesh.compile(lane)

    @cached_property
    def fresh(self) -> Callable:
        """Parameters as they are kept -> a fresh inner state."""
        return jax.jit(lambda start: self.inner.transformation.init(self.snapshots.widened(start)))

    @cached_property
    def evaluate(self) -> Callable:
        """(parameters, the task's data) -> metrics."""
        return jax.jit(lambda params, data: self.task.evaluate(params, data))


_programs = lru_cache(maxsize=8)(Programs)


def programs_of(task: Task, run: Run, placement: Placement, lanes: int) -> Programs:
    """The programs of a run: the same object for runs that share them, so that each is traced and compiled once."""
    return _programs(task, type(run.inner), tuple(sorted(inner_numbers(run).items())), placement, lanes)


@lru_cache(maxsize=32)
def arrival_program(method: str, placement: Placement) -> Callable:
    """What the server does at an arrival: (server, pseudo-gradient, row, what its worker pulled, numbers) -> server.

    Args:
        method: the outer method's name; its numbers are those of `toybench.outer.outer_numbers`.
        placement: how what was pulled is kept.
    """
    build, snapshots = outer_builder(method), Snapshots(placement)

    @jax.jit
    def arrive(server, pseudo_gradient, row, start, numbers):
        extras = arrival_extras(row, snapshots.widened(start))
        return apply_arrival(build(numbers), server, pseudo_gradient, step=row.step, **extras)

    return arrive
