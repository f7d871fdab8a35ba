"""A virtual clock over the scheduler: a cluster becomes a Timeline, before any parameter is touched. NumPy only."""

from __future__ import annotations

import math
from array import array
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from toybench.config import Budget, Cluster, ConfigError
from toybench.presence import Presence
from toybench.scheduler import Scheduler, Visit


class Timeline(NamedTuple):
    """What happened on the cluster: one row an arrival, in the order in which the server took them; E arrivals."""

    time: np.ndarray  # [E] simulated seconds at which the visit finished
    start: np.ndarray  # [E] simulated seconds at which it began
    worker: np.ndarray  # [E]
    shard: np.ndarray  # [E]
    num_steps: np.ndarray  # [E] local steps of the visit: H, fewer under DyLU
    first_step: np.ndarray  # [E] the shard's cursor: indexes its data and its inner learning rate
    pulled_at: np.ndarray  # [E] arrivals taken when this worker pulled
    step: np.ndarray  # [E] bool: the server steps after this arrival, on the mean since its last step
    reset: np.ndarray  # [E] bool: the visit starts with fresh inner state

    @property
    def version(self) -> np.ndarray:
        """[E + 1] versions: outer steps made before each arrival, and at the end."""
        return np.concatenate([[0], np.cumsum(self.step)])

    @property
    def staleness(self) -> np.ndarray:
        """[E] τ: version when the server meets the arrival less the version that its worker pulled."""
        return self.version[:-1] - self.version[self.pulled_at]

    @property
    def local_steps(self) -> np.ndarray:
        """[E] local steps made by all workers up to and including each arrival."""
        return np.cumsum(self.num_steps)

    def pulls(self, workers: int) -> np.ndarray:
        """[E, W] bool: which workers pull right after each arrival (the first pull, before any, is not in it)."""
        pulls = np.zeros((len(self.time), workers), dtype=bool)
        later = self.pulled_at > 0
        pulls[self.pulled_at[later] - 1, self.worker[later]] = True
        return pulls


class Played(NamedTuple):
    """A timeline, and what the cluster did that is not in it."""

    timeline: Timeline
    lost: list[tuple[float, float, Visit]]  # visits that ended in a failure: seconds of beginning and end
    running: list[tuple[float, Visit]]  # at work when the run ended: seconds of beginning
    scheduler: Scheduler  # as it stands at the end

    @property
    def lost_steps(self) -> int:
        """Local steps of the visits that were lost; they were given out again, or will be."""
        return sum(visit.num_steps for _, _, visit in self.lost)


def simulate(cluster: Cluster, budget: Budget, seed: int) -> Timeline:
    """The arrivals of `play`, in server order."""
    return play(cluster, budget, seed).timeline


def play(cluster: Cluster, budget: Budget, seed: int) -> Played:
    """Run Algorithm 2 on simulated time (paper, Algorithms 2, 4 and 5), with workers that fail, join and leave.

    A visit takes the transfer of its pull, its steps, and the transfer of its push. A failure is noticed at once; the
    visit has no row, and its steps are the next to be given out. Who comes in late or comes back starts at once from
    the current version with fresh inner state, or with the next round under a barrier. Nobody is waited for who is
    not there, by a barrier or by a quorum. Who leaves ends its visit first.

    Args:
        cluster: workers, speeds and rules.
        budget: the run ends with the arrival that reaches its local steps, or its group where a group steps together.
        seed: of the shard draws, and from another stream of the failures. Equal arguments give equal bytes.

    Raises:
        ConfigError: all workers are gone before the budget is spent.
    """
    clock = _Clock(cluster, seed)
    scheduler, running, changes = clock.scheduler, clock.running, clock.presence.changes
    total, goal, stepped = 0, budget.total_steps(cluster), True
    clock.launch(scheduler.start(clock.presence.first))
    while total < goal or not stepped:
        changing = bool(changes) and (not running or changes[0].time < running[0][0])
        next_time = changes[0].time if changing else running[0][0] if running else math.inf
        awaited = scheduler.running or (stepped and not scheduler.idle)
        if next_time < math.inf and awaited and scheduler.takes(next_time):
            # Restarts happen at the last event of a group: waiting out the grace period costs nothing.
            clock.now = next_time
            if changing:
                clock.change()
            else:
                visit, stepped = clock.arrive()
                total += visit.num_steps
        elif not stepped:  # the group is closed, and steps on its mean
            clock.step[-1] = stepped = True
        elif not clock.launch(scheduler.restart()) and not changes and not running:
            raise ConfigError("cluster", f"all workers are gone for good after {total:,} of {goal:,} local steps")
    left = [(clock.began[worker], visit) for worker, visit in scheduler.running.items()]
    return Played(clock.timeline(), clock.lost, left, scheduler)


class _Clock:
    """The visits under way, in the order in which they end, and those that ended."""

    def __init__(self, cluster: Cluster, seed: int):
        self.scheduler, self.presence = Scheduler(cluster, np.random.default_rng(seed)), Presence(cluster, seed)
        self.seconds, self.barrier = cluster.sec_per_step, cluster.barrier
        self.transfer = [pull + push for pull, push in cluster.transfer]
        self.now = 0.0
        self.running: list[tuple[float, int, float, Visit]] = []  # finish, worker (breaks ties), start, visit
        self.began: dict[int, float] = {}  # of each worker's last visit
        self.fresh: set[int] = set()  # came in during the run, and have not arrived since
        self.leaving: set[int] = set()  # after their visit
        self.lost: list[tuple[float, float, Visit]] = []
        # Of what ended, flat: a million visits as objects would be another gigabyte and slow every collection down.
        self.times, self.visits = array("d"), array("q")  # finish and start; the five numbers of a visit
        self.step, self.reset = array("b"), array("b")

    def launch(self, visits: list[Visit]) -> bool:
        """Begin visits now; one that a failure will cut short never arrives. Returns whether there were any."""
        now, fails = self.now, self.presence.fails
        for visit in visits:
            worker = visit.worker
            # Twelve digits: equal finishes stay equal whatever the unit of time, and the worker decides their order.
            finish = float(f"{now + (visit.num_steps * self.seconds[worker] + self.transfer[worker]):.12g}")
            self.began[worker] = now
            if not fails or finish <= fails.get(worker, math.inf):
                heappush(self.running, (finish, worker, now, visit))
        return bool(visits)

    def arrive(self) -> tuple[Visit, bool]:
        """The next visit, and whether the server steps on it at once."""
        finish, _, start, visit = heappop(self.running)
        stepped = self.scheduler.arrive(visit, finish)
        self.times.extend((finish, start))
        self.visits.extend(visit)
        self.step.append(stepped)
        self.reset.append(visit.worker in self.fresh)
        self.fresh.discard(visit.worker)
        if visit.worker in self.leaving:
            self.scheduler.leave(visit.worker)
        return visit, stepped

    def change(self) -> None:
        """The next worker comes or goes."""
        (time, worker, what), scheduler = self.presence.next(), self.scheduler
        visit = scheduler.running.get(worker)
        if what in ("join", "return"):
            self.fresh.add(worker)
            if self.barrier:
                scheduler.wait(worker)
            else:
                self.launch([scheduler.join(worker)])
        elif what == "fail" and visit is not None:
            scheduler.lose(visit)
            self.lost.append((self.began[worker], time, visit))
        elif what == "leave" and visit is not None:
            self.leaving.add(worker)
        elif worker in scheduler.idle:
            scheduler.leave(worker)

    def timeline(self) -> Timeline:
        """All that arrived."""
        times = np.array(self.times).reshape(-1, 2).T.copy()
        numbers = np.array(self.visits).reshape(-1, len(Visit._fields)).T.copy()
        marks = {"step": np.array(self.step, bool), "reset": np.array(self.reset, bool)}
        return Timeline(time=times[0], start=times[1], **dict(zip(Visit._fields, numbers)), **marks)
