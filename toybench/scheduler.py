"""Algorithm 2 as a state machine without a clock: whose result counts next, who restarts when, on which shard.

The virtual clock of `toybench.timeline` drives it in simulation; a wall clock can drive the same object.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from toybench.config import Cluster
from toybench.shards import FEW, FewShards, ManyShards

TOLERANCE = 1e-9  # relative; keeps 50 · 1.0 at 50 steps, and finishes that are equal in exact arithmetic together


class Visit(NamedTuple):
    """One task given to a worker: which shard, from which of its steps, how many."""

    worker: int
    shard: int
    first_step: int  # steps already given out on the shard: indexes its data and its learning rate
    num_steps: int
    pulled_at: int  # arrivals that the server had applied when the worker pulled


def dynamic_steps(sec_per_step: float, fastest: float, local_steps: int) -> int:
    """DyLU (paper, Eq. 6): ⌊H·v/v_max⌋ local steps for a worker of speed v, at least one.

    Args:
        sec_per_step: seconds of the worker's local step.
        fastest: seconds of the fastest worker's.
        local_steps: H, the steps of the fastest worker.
    """
    return max(math.floor(local_steps * fastest / sec_per_step * (1 + TOLERANCE)), 1)


@dataclass
class Scheduler:
    """The state of Algorithm 2: group, idle workers, shard cursors. It knows no clock and no parameters.

    Drive it so: `start()` once; then ask `takes(time)` of the earliest finished worker. While true, `arrive` it;
    when false, or nobody is at work (`complete`), `restart()` gives every idle worker its next visit. Workers may be
    lost, join and leave at any time; "everybody" means those that are present.
    """

    cluster: Cluster
    rng: np.random.Generator

    def __post_init__(self):
        cluster = self.cluster
        self.together = cluster.barrier or cluster.coalesce  # a group makes one outer step
        self.grace = math.inf if cluster.barrier else cluster.grace  # s that a group stays open
        self.quorum = cluster.quorum
        kind = FewShards if cluster.num_shards <= FEW else ManyShards
        self.shards = kind(cluster.num_shards, least=cluster.sharding == "least_visited")
        self.arrivals = 0
        self.group = 0  # arrivals since the last restart
        self.group_opened = math.inf
        self.idle: set[int] = set()
        self.running: dict[int, Visit] = {}  # by worker
        self.lost: deque[tuple[int, int, int]] = deque()  # shard, first step, steps: given out again before new ones
        self.sec_per_step = dict(enumerate(cluster.sec_per_step))
        self._fastest: list[tuple[float, int]] = []  # a heap, with workers that are gone or have another speed by now

    @property
    def present(self) -> set[int]:
        """The workers that are in."""
        return self.idle | self.running.keys()

    @property
    def complete(self) -> bool:
        """Whether nobody is at work: every worker that is present has arrived, or waits for the group to restart."""
        return not self.running

    def start(self, workers: Iterable[int] | None = None) -> list[Visit]:
        """First visits of all workers of the cluster, or of those given."""
        for worker in range(self.cluster.workers) if workers is None else workers:
            self.wait(worker)
        return self.restart()

    def takes(self, finish: float) -> bool:
        """Whether a result finished at this time (seconds) still belongs to the open group."""
        if self.group < self.quorum:
            return True
        return finish <= (self.group_opened + self.grace) * (1 + TOLERANCE)

    def arrive(self, visit: Visit, finish: float) -> bool:
        """Accept a finished visit; its worker is idle from now on.

        Returns:
            Whether the server steps at once: at every arrival, or where a group makes one step together (coalescing, a
            barrier) if everybody who is present is in; else it steps when the group closes.

        Raises:
            ValueError: the worker is not at work on this visit: it arrived before, or was lost.
        """
        self._end(visit)
        self.idle.add(visit.worker)
        self.arrivals += 1
        self.group += 1
        if self.group == self.quorum:
            self.group_opened = finish
        return not self.together or not self.running

    def restart(self) -> list[Visit]:
        """Close the group: every idle worker, in order of its number, gets a visit from the same parameters."""
        self.group, self.group_opened = 0, math.inf
        visits = [self._assign(worker) for worker in sorted(self.idle)]
        self.idle.clear()
        return visits

    # Workers come and go

    def lose(self, visit: Visit) -> None:
        """This visit will never arrive, and its worker is gone; its steps are given out again before any new ones.

        It may make the group `complete`. Then the server steps, if it has not since the group's last arrival, and
        `restart` follows.

        Raises:
            ValueError: the worker is not at work on this visit.
        """
        self._end(visit)
        self.lost.append((visit.shard, visit.first_step, visit.num_steps))

    def join(self, worker: int) -> Visit:
        """A worker that is new or comes back gets a visit at once, from the current version.

        Raises:
            ValueError: it is present.
        """
        self.wait(worker)
        visit = self._assign(worker)
        self.idle.remove(worker)
        return visit

    def wait(self, worker: int) -> None:
        """Likewise, but it gets its visit when the group restarts: a barrier does not wait for who comes in later.

        Raises:
            ValueError: it is present.
        """
        if self._is_in(worker):
            raise ValueError(f"worker {worker} is present")
        self.idle.add(worker)
        self._know_speed(worker)

    def leave(self, worker: int) -> None:
        """An idle worker goes.

        Raises:
            ValueError: it is not idle.
        """
        if worker not in self.idle:
            raise ValueError(f"worker {worker} is not idle")
        self.idle.remove(worker)

    def set_speed(self, worker: int, sec_per_step: float) -> None:
        """Seconds of a worker's local step as measured; with dynamic steps its next visits follow it.

        So do the others' where it is the fastest of those present. Until then a worker has the cluster's own speed,
        and one that the cluster does not have takes H steps.

        Raises:
            ValueError: no positive, finite number.
        """
        if not 0 < sec_per_step < math.inf:
            raise ValueError(f"expected seconds per step > 0, got {sec_per_step}")
        self.sec_per_step[worker] = float(sec_per_step)
        if self._is_in(worker):
            self._know_speed(worker)

    def _is_in(self, worker: int) -> bool:
        return worker in self.idle or worker in self.running

    def _know_speed(self, worker: int) -> None:
        """Of a worker that is present."""
        known = self.sec_per_step
        if len(self._fastest) > 2 * len(known):  # most are of the past
            self._fastest = [(known[w], w) for w in self.present if w in known]
            heapq.heapify(self._fastest)
        if worker in known:
            heapq.heappush(self._fastest, (known[worker], worker))

    def _end(self, visit: Visit) -> None:
        if self.running.get(visit.worker) != visit:
            raise ValueError(f"worker {visit.worker} is not at work on {visit}")
        del self.running[visit.worker]

    # Visits

    def _assign(self, worker: int) -> Visit:
        steps = self._steps_of(worker)
        if self.lost:
            shard, first, left = self.lost.popleft()
            if left > steps:
                self.lost.appendleft((shard, first + steps, left - steps))
            steps = min(steps, left)
        else:
            shard = self.shards.draw(self.rng)
            first = self.shards.give(shard, steps)
        self.running[worker] = visit = Visit(worker, shard, first, steps, self.arrivals)
        return visit

    def _steps_of(self, worker: int) -> int:
        local_steps = self.cluster.local_steps
        if not self.cluster.dynamic_steps or worker not in self.sec_per_step:
            return local_steps
        known = self.sec_per_step
        seconds, who = self._fastest[0]
        while known[who] != seconds or not self._is_in(who):
            heapq.heappop(self._fastest)
            seconds, who = self._fastest[0]
        return dynamic_steps(known[worker], seconds, local_steps)

    # Kept and brought back

    def state(self) -> dict[str, Any]:
        """All that is needed to go on, as plain data for JSON."""
        return {
            "arrivals": self.arrivals,
            "group": self.group,
            "group_opened": self.group_opened if math.isfinite(self.group_opened) else None,
            "idle": sorted(self.idle),
            "running": [list(visit) for visit in self.running.values()],
            "lost": [list(part) for part in self.lost],
            "sec_per_step": [[worker, seconds] for worker, seconds in self.sec_per_step.items()],
            "shards": self.shards.state(),
            "rng": self.rng.bit_generator.state,
        }

    @classmethod
    def restored(cls, cluster: Cluster, state: dict[str, Any]) -> Scheduler:
        """The scheduler whose `state` this is; it goes on with the same visits.

        Raises:
            ValueError: the state is of another number of shards.
        """
        rng = np.random.default_rng(0)
        rng.bit_generator.state = state["rng"]
        found = cls(cluster, rng)
        if (count := len(state["shards"]["consumed"])) != cluster.num_shards:
            raise ValueError(f"expected a state of {cluster.num_shards} shards, got {count}")
        found.arrivals, found.group = state["arrivals"], state["group"]
        found.group_opened = math.inf if state["group_opened"] is None else state["group_opened"]
        found.idle = set(state["idle"])
        found.running = {visit[0]: Visit(*visit) for visit in state["running"]}
        found.lost = deque((shard, first, steps) for shard, first, steps in state["lost"])
        found.sec_per_step = dict(map(tuple, state["sec_per_step"]))
        found.shards.restore(state["shards"])
        for worker in found.present:
            found._know_speed(worker)
        return found
