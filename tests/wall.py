"""Real workers without any: a clock set by hand, a run too small to wait for."""

import heapq

from toybench.config import Budget, Cluster
from toybench.loading import overlay
from toybench.presets import load_preset
from toybench.timeline import Timeline
from toybench.transports.coordinator import Coordinator
from toybench.transports.work import ToyWork

SPEEDS = (0.58, 0.75, 1.51, 3.33)


def coordinator(cluster: Cluster, budget: Budget, seed: int = 0, **others) -> Coordinator:
    return Coordinator(cluster, budget.total_steps(cluster), seed, declared=True, **others)


def drive(one: Coordinator, cluster: Cluster, now: float = 0.0, after=lambda one: one) -> Timeline:
    """Every worker takes as long as the cluster says, on a clock of numbers; `after` may replace the coordinator."""
    running: list[tuple[float, int, int]] = []

    def launch(outcome):
        for given in outcome.given:
            w = given.visit.worker
            finish = float(f"{given.since + given.visit.num_steps * cluster.sec_per_step[w]:.12g}")
            heapq.heappush(running, (finish, w, given.id))

    for w in range(cluster.workers):
        launch(one.join(w, now))
    while not one.done:
        finish, w, id = heapq.heappop(running)
        if one.closes_at <= finish and one.due(one.closes_at):
            heapq.heappush(running, (finish, w, id))
            launch(one.tick(one.closes_at))
            continue
        launch(one.arrive(w, finish, one.running[w].visit.num_steps * cluster.sec_per_step[w]))
        one = after(one)
    return one.timeline()


def small(**changes) -> ToyWork:
    """The fast preset, shorter."""
    shorter = {"budget.rounds": 4, "budget.evaluations": 2, "cluster.grace": 0.0}
    return ToyWork(overlay(load_preset("fast"), shorter | changes), 0)
