"""The scheduler on the wall clock: what happened goes in, what the server takes and who is to do what comes out.

It knows no parameters and reads no clock. Equal events in equal order give equal outcomes, so that a server that died
is rebuilt from a list of them. It differs from the simulation in one thing: a group of a grace period stays open until
the period is over or nobody computes, where simulated time lets everybody go at the last arrival within it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from toybench.config import Cluster
from toybench.scheduler import Scheduler, Visit
from toybench.timeline import Timeline

SMOOTH = 0.5  # of a worker's measured speed, the weight of the last visit


class Given(NamedTuple):
    """A visit that a worker is to make."""

    id: int  # never used twice in a run
    visit: Visit
    reset: bool  # with fresh inner state
    since: float  # seconds since the run began


class Arrival(NamedTuple):
    """A visit that arrived: a row of the timeline."""

    id: int
    time: float
    since: float
    visit: Visit
    reset: bool


class Outcome(NamedTuple):
    """What follows from an event, in this order."""

    taken: tuple[tuple[int, bool], ...] = ()  # numbers of arrivals that the server takes, and whether it then steps
    given: tuple[Given, ...] = ()  # visits from the parameters after that


@dataclass
class Coordinator:
    """Algorithm 2 over workers that come, finish, die and come back.

    Args:
        cluster: its rules. The steps of DyLU follow measured speeds.
        goal: local steps, of all workers, at which the run ends.
        seed: of the shard draws.
        declared: whether the cluster's speeds hold for a worker until it is measured; else all are taken for equal.
        gather: seconds that those who are there wait for the rest of the cluster's workers before anybody begins.
    """

    cluster: Cluster
    goal: int
    seed: int
    declared: bool = False
    gather: float = math.inf
    begun: bool = False
    running: dict[int, Given] = field(default_factory=dict)  # by worker
    arrivals: list[Arrival] = field(default_factory=list)
    stepped: list[bool] = field(default_factory=list)  # for each arrival that the server has taken
    speeds: dict[int, float] = field(default_factory=dict)  # worker -> seconds of a local step, measured
    steps_done: int = 0
    lost: int = 0  # visits
    lost_steps: int = 0

    def __post_init__(self):
        if not self.declared:
            self.cluster = replace(self.cluster, sec_per_step=(1.0,) * self.cluster.workers)
        self.scheduler = Scheduler(self.cluster, np.random.default_rng(self.seed))
        self.known: set[int] = set()  # workers that have ever been in
        self.next_id = 0
        self.fresh: set[int] = set()  # workers that came while a group was open: they pull when it closes
        self.closes_at = math.inf  # seconds since the run began

    @property
    def done(self) -> bool:
        """Whether all local steps have arrived and the server has stepped on them."""
        return self.steps_done >= self.goal and len(self.stepped) == len(self.arrivals)

    # Events

    def join(self, worker: int, now: float) -> Outcome:
        """A worker comes, or comes back: what it was doing is lost, and it begins with fresh inner state."""
        before = self.leave(worker, now) if worker in self.scheduler.present else Outcome()
        self.known.add(worker)
        if self.speeds and not self.declared and worker not in self.speeds:
            there = [speed for one, speed in self.speeds.items() if one in self.scheduler.present]
            fastest = min(there or self.speeds.values())
            self.scheduler.set_speed(worker, fastest)  # as fast as any, until it is measured
        if not self.begun or len(self.stepped) < len(self.arrivals):  # what it would pull is not there yet
            self.scheduler.wait(worker)
            self.fresh.add(worker)
            return before if self.begun else self.tick(now)
        return Outcome(before.taken, before.given + self._given([self.scheduler.join(worker)], now, {worker}))

    def arrive(self, worker: int, now: float, seconds: float) -> Outcome:
        """A worker's visit has come in; it took so many seconds, in the unit of the cluster's speeds."""
        given = self.running.pop(worker)
        self._measure(worker, seconds / given.visit.num_steps)
        steps = self.scheduler.arrive(given.visit, now)
        self.arrivals.append(Arrival(given.id, now, given.since, given.visit, given.reset))
        self.steps_done += given.visit.num_steps
        taken = self._take(False) if len(self.arrivals) - len(self.stepped) > 1 else ()
        taken += self._take(True) if steps else ()
        if self.closes_at == math.inf and self.scheduler.group >= self.scheduler.quorum:
            self.closes_at = now + self.scheduler.grace
        closed = self.tick(now)
        return Outcome(taken + closed.taken, closed.given)

    def leave(self, worker: int, now: float) -> Outcome:
        """A worker is gone, or has missed its deadline: what it was doing is given out again."""
        if worker in self.running:
            visit = self.running.pop(worker).visit
            self.lost, self.lost_steps = self.lost + 1, self.lost_steps + visit.num_steps
            self.scheduler.lose(visit)
        elif worker in self.scheduler.idle:
            self.scheduler.leave(worker)
            self.fresh.discard(worker)
        return self.tick(now)

    def due(self, now: float) -> bool:
        """Whether the group is to be closed: its grace period is over, or nobody computes any more."""
        if not self.begun:
            return len(self.scheduler.idle) >= self.cluster.workers or (bool(self.scheduler.idle) and now > self.gather)
        return bool(self.scheduler.idle) and (not self.running or now >= self.closes_at)

    def tick(self, now: float) -> Outcome:
        """Time has passed: the group is closed if it is due."""
        if not self.due(now):
            return Outcome()
        self.begun, self.closes_at = True, math.inf
        taken = self._take(True) if len(self.stepped) < len(self.arrivals) else ()
        if self.done:
            return Outcome(taken)
        fresh, self.fresh = self.fresh, set()
        return Outcome(taken, self._given(self.scheduler.restart(), now, fresh))

    # What follows

    def _take(self, step: bool) -> tuple[tuple[int, bool], ...]:
        """The server takes the next arrival. The last of an open group waits: whether it steps is not known yet."""
        self.stepped.append(step)
        return ((len(self.stepped) - 1, step),)

    def _given(self, visits: list[Visit], now: float, fresh: set[int]) -> tuple[Given, ...]:
        ids = range(self.next_id, self.next_id + len(visits))
        given = tuple(Given(id, visit, visit.worker in fresh, now) for id, visit in zip(ids, visits))
        self.next_id += len(visits)
        self.running |= {one.visit.worker: one for one in given}
        return given

    def _measure(self, worker: int, seconds: float) -> None:
        before = self.speeds.get(worker, seconds)
        self.speeds[worker] = SMOOTH * seconds + (1 - SMOOTH) * before
        alike = len(self.speeds) == 1 and not self.declared
        for one in sorted(self.scheduler.present) if alike else (worker,):
            self.scheduler.set_speed(one, self.speeds[worker])

    # What it leaves

    def timeline(self) -> Timeline:
        """The arrivals that the server has taken."""
        return timeline_of(self.arrivals, self.stepped)

    def state(self) -> dict[str, Any]:
        """Everything, as JSON can say it; only between groups, when the server has taken all arrivals.

        Raises:
            ValueError: a group is open.
        """
        if len(self.stepped) < len(self.arrivals):
            raise ValueError("a group is open")
        return {
            "scheduler": self.scheduler.state(),
            "running": [[*given._replace(visit=[*given.visit])] for given in self.running.values()],
            "arrivals": [[*a._replace(visit=[*a.visit])] for a in self.arrivals],
            "stepped": [*self.stepped],
            "speeds": [[*item] for item in self.speeds.items()],
            "counts": [self.steps_done, self.lost, self.lost_steps, self.next_id],
            "known": sorted(self.known),
            "fresh": sorted(self.fresh),
            "begun": self.begun,
            "closes_at": None if math.isinf(self.closes_at) else self.closes_at,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state` of the same cluster."""
        self.scheduler = Scheduler.restored(self.cluster, state["scheduler"])
        running = [Given(id, Visit(*visit), *rest) for id, visit, *rest in state["running"]]
        self.running = {given.visit.worker: given for given in running}
        self.arrivals = read_arrivals(state)
        self.stepped, self.fresh, self.known = [*state["stepped"]], {*state["fresh"]}, {*state["known"]}
        self.speeds = {int(worker): speed for worker, speed in state["speeds"]}
        self.steps_done, self.lost, self.lost_steps, self.next_id = state["counts"]
        self.begun = state["begun"]
        self.closes_at = math.inf if state["closes_at"] is None else state["closes_at"]


def timeline_of(arrivals: Sequence[Arrival], stepped: Sequence[bool]) -> Timeline:
    """Arrivals as a timeline, its seconds those of the wall clock; those that the server has not taken are left out."""
    rows = [(a.time, a.since, *a.visit, step, a.reset) for a, step in zip(arrivals, stepped)]
    kinds = (float, float, int, int, int, int, int, bool, bool)
    columns = zip(*rows) if rows else [()] * len(kinds)
    time, start, worker, shard, first, num, pulled, step, reset = map(np.array, columns, kinds)
    return Timeline(time, start, worker, shard, num, first, pulled, step, reset)


def read_arrivals(state: dict[str, Any]) -> list[Arrival]:
    """The arrivals of a coordinator's `state`."""
    return [Arrival(id, time, since, Visit(*visit), reset) for id, time, since, visit, reset in state["arrivals"]]
