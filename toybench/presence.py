"""When workers come and go: joins, leaves, failures and repairs, whatever they are doing meanwhile. NumPy only."""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import NamedTuple

import numpy as np

from toybench.config import Cluster


class Change(NamedTuple):
    """A worker comes or goes."""

    time: float  # simulated seconds
    worker: int
    what: str  # "join", "leave", "fail" or "return"


class Presence:
    """The changes of a cluster in the order of time, drawn as they are asked for.

    What a worker does has no part in it, so that a seed gives the same failures under all rules.

    Attributes:
        changes: a heap of those to come.
        fails: worker -> seconds of its next failure; those that never fail are not in it.
    """

    def __init__(self, cluster: Cluster, seed: int):
        self.mtbf, self.mttr = cluster.mtbf, cluster.mttr
        self.rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))  # not the shard draws' stream
        joins, self.leaves = cluster.each("join"), cluster.each("leave")
        self.first = [worker for worker, time in enumerate(joins) if time == 0]
        self.changes = [Change(time, worker, "join") for worker, time in enumerate(joins) if time > 0]
        self.changes += [Change(time, worker, "leave") for worker, time in enumerate(self.leaves) if time > 0]
        self.fails: dict[int, float] = {}
        if self.mtbf is not None:
            times = np.array(joins) + self.rng.exponential(self.mtbf, cluster.workers)
            self.fails = dict(enumerate(times.tolist()))
            self.changes += [Change(time, worker, "fail") for worker, time in self.fails.items()]
        heapify(self.changes)

    def next(self) -> Change:
        """Take the next change; what follows from it is drawn."""
        change = heappop(self.changes)
        if change.what == "fail":
            del self.fails[change.worker]
            if self.mttr is not None:
                self._follow(change, self.mttr, "return")
        elif change.what == "return" and self.mtbf is not None:
            self.fails[change.worker] = self._follow(change, self.mtbf, "fail")
        return change

    def _follow(self, change: Change, mean: float, what: str) -> float:
        time = change.time + self.rng.exponential(mean)
        leaves = self.leaves[change.worker] or math.inf
        if what == "fail" or time < leaves:  # who is to leave may still fail on its last visit; it does not come back
            heappush(self.changes, Change(time, change.worker, what))
        return time
