"""Training at scale: a timeline, the spine's two functions, batches from the host, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from lm.config import LanguageModel
from lm.mesh import Lanes
from lm.placement import DEFAULT, Placement, check_layout
from lm.programs import Programs, arrival_program, programs_of
from lm.snapshots import Snapshots
from lm.waves import plan_waves
from toybench.config import Run
from toybench.engine import Rows, rows_of, seed_keys
from toybench.inner import InnerOptimizer
from toybench.outer import OuterOptimizer, make_outer, method_of, outer_numbers
from toybench.server import Server, open_server
from toybench.task import Params, Task
from toybench.timeline import Timeline, simulate
from toybench.training import evaluation_points


class Batches(Protocol):
    """A corpus already split into shards."""

    def batches(self, shard: int, first: int, n: int, batch: int, sequence: int) -> np.ndarray:
        """[n, batch, sequence + 1] tokens of a shard's steps from `first` on."""
        ...


class State(NamedTuple):
    """All that goes on from one arrival to the next. Workers that pulled the same parameters share them."""

    server: Server
    pulled: tuple[Params, ...]  # [W] what each worker pulled last, as `lm.snapshots` keeps it
    inner_states: tuple[Any, ...]  # [W] each worker's inner optimizer state, before its visit, kept likewise


class Point(NamedTuple):
    """An evaluation."""

    arrival: int
    local_steps: int
    time: float  # simulated seconds
    metrics: dict[str, float]


class NotFinite(RuntimeError):
    """Training has lost itself."""


@dataclass(frozen=True)
class Training:
    """A language-model run on one seed: what is fixed of it.

    Args:
        run: its settings; `run.task` is a `LanguageModel`.
        seed: of the initial parameters and the shard draws.
        task: the model behind `Task`.
        corpus: the shards' batches.
        held_out: what the task evaluates on.
        lanes: visits computed side by side.
        start: initial parameters, instead of fresh ones: a pretrained model's.
        placement: the devices that the lanes are laid over, and where what workers hold is kept.

    Raises:
        ConfigError: there are fewer devices, or they do not divide the lanes or the batch.
    """

    run: Run
    seed: int
    task: Task
    corpus: Batches
    held_out: Any
    lanes: int = 1
    start: Params | None = None
    placement: Placement = DEFAULT

    def __post_init__(self):
        check_layout(self.placement, self.lanes, self.run.task.batch, len(jax.local_devices()))

    @property
    def data(self) -> str | None:
        """What tells its data from others; None where the task does not say."""
        return getattr(getattr(self.task, "corpus", None), "identity", None)

    @cached_property
    def programs(self) -> Programs:
        return programs_of(self.task, self.run, self.placement, self.lanes)

    @property
    def mesh(self) -> Lanes:
        return self.programs.mesh

    @property
    def snapshots(self) -> Snapshots:
        return self.programs.snapshots

    @property
    def inner(self) -> InnerOptimizer:
        return self.programs.inner

    @cached_property
    def timeline(self) -> Timeline:
        return simulate(self.run.cluster, self.run.budget, self.seed)

    @cached_property
    def rows(self) -> Rows:
        """[E] the timeline as the spine reads it."""
        return rows_of(self.timeline, self.run.cluster.workers, self.run.inner.reset)

    @cached_property
    def evaluate_after(self) -> frozenset[int]:
        """Arrivals taken at each evaluation, that before the first not counted."""
        total = self.run.budget.total_steps(self.run.cluster)
        return frozenset(evaluation_points(self.timeline, total, self.run.budget.evaluations).tolist())

    @cached_property
    def longest(self) -> int:
        """Local steps of the longest visit."""
        return int(self.rows.num_steps.max())

    @cached_property
    def outer(self) -> OuterOptimizer:
        return make_outer(self.run.outer, self.run.cluster.workers, self.run.cluster.barrier)

    @cached_property
    def waves(self) -> dict[int, np.ndarray]:
        """The wave of each arrival."""
        return {int(e): wave for wave in plan_waves(self.timeline, self.lanes) for e in wave}

    def begin(self) -> State:
        """Before the first arrival."""
        params = self.task.init(seed_keys(jax.random.key(self.seed))[1]) if self.start is None else self.start
        server, workers = open_server(self.outer, params), range(self.run.cluster.workers)
        # Apart from each other, for each is given away when its visit begins.
        fresh = tuple(self.snapshots.kept(self.inner.transformation.init(params)) for _ in workers)
        return State(server, tuple(self.snapshots.pulled(self.outer, server, workers)), fresh)

    # A visit, and what follows from its arrival

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """The outer optimizer's, which its program is given: runs that differ in them alone share it."""
        return outer_numbers(self.run.outer, self.run.cluster.workers, self.run.cluster.barrier)

    @property
    def _arrive(self) -> Callable:
        return arrival_program(method_of(self.run.outer), self.placement)

    def evaluate(self, state: State) -> dict[str, float]:
        """Metrics of the server's parameters on the held-out sequences."""
        metrics = self.programs.evaluate(state.server.params, self.held_out)
        return {name: float(value) for name, value in metrics.items()}

    def visits(self, wave: np.ndarray, state: State) -> dict[int, tuple]:
        """Pseudo-gradient, inner state and mean loss of the visits of some arrivals, computed side by side."""
        model: LanguageModel = self.run.task
        rows = [Rows(*(column[e] for column in self.rows)) for e in wave]
        trip = max(int(row.num_steps) for row in rows)
        taken = []
        for row in rows:
            batches = self.corpus.batches(
                int(row.shard), int(row.first_step), int(row.num_steps), model.batch, model.sequence
            )
            # As long as the longest of the run, so that one program serves all: what is past the trip is not read.
            taken.append(np.concatenate([batches, np.repeat(batches[-1:], self.longest - len(batches), 0)]))
        starts = [state.pulled[row.worker] for row in rows]
        states = [self._inner_state(row, state) for row in rows]
        first, num = (np.array([getattr(row, name) for row in rows], np.int32) for name in ("first_step", "num_steps"))
        if self.programs.single:
            start, inner_state = self.snapshots.handed((starts[0], states[0]))
            return {int(wave[0]): self.programs.visit(start, inner_state, taken[0], first[0], num[0])}
        lacking = self.lanes - len(rows)  # those that stand in for them make no step
        starts, states, taken = (filled + filled[-1:] * lacking for filled in (starts, states, taken))
        first, num = np.pad(first, (0, lacking)), np.pad(num, (0, lacking))
        lay, batches = self.mesh.lay, self.mesh.lay_batches(np.stack(taken))
        found = self.mesh.split(self.programs.visit(lay(starts), lay(states), batches, first, num, np.int32(trip)))
        arrived, *others = zip(wave.tolist(), found)
        return dict([arrived]) | {e: self.snapshots.waiting(lane) for e, lane in others}

    def _inner_state(self, row: Rows, state: State) -> Any:
        """With which a visit begins, kept or fresh."""
        w = int(row.worker)
        return self.programs.fresh(self.snapshots.handed(state.pulled[w])) if row.reset else state.inner_states[w]

    def arrivals(self, state: State, begin: int = 0) -> Iterator[tuple[int, State, jax.Array]]:
        """Go on from before arrival `begin`: after each arrival its number, the state, and the visit's mean loss."""
        found: dict[int, tuple] = {}
        for e in range(begin, len(self.timeline.time)):
            if e not in found:
                # Of a wave that had begun before, those that arrived already are not computed again.
                found |= self.visits(self.waves[e][self.waves[e] >= e], state)
            row = Rows(*(column[e] for column in self.rows))
            w = int(row.worker)
            g, inner_state, loss = found.pop(e)
            g, start = self.snapshots.handed((g, state.pulled[w]))
            server = self._arrive(state.server, g, row, start, self.numbers)
            pulled, inner_states = list(state.pulled), list(state.inner_states)
            inner_states[w] = self.snapshots.kept(inner_state)
            pullers = np.flatnonzero(row.pulls).tolist()
            for v, snapshot in zip(pullers, self.snapshots.pulled(self.outer, server, pullers)):
                pulled[v] = snapshot
            state = State(server, tuple(pulled), tuple(inner_states))
            yield e, state, loss
