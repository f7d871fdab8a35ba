"""Workers that are lost, join and leave: the state machine without a clock."""

import json

import numpy as np
import pytest

from toybench.config import Cluster
from toybench.scheduler import Scheduler, Visit


def machine(workers=3, seed=0, **cluster):
    return Scheduler(Cluster(sec_per_step=(1.0,) * workers, **cluster), np.random.default_rng(seed))


def part(visit):
    return visit.shard, visit.first_step, visit.num_steps


def test_lost_steps_are_given_out_again_first():
    scheduler = machine(local_steps=10)
    visits = scheduler.start()
    scheduler.lose(visits[1])
    assert scheduler.present == {0, 2}
    scheduler.arrive(visits[0], 10.0)
    [again] = scheduler.restart()
    assert part(again) == part(visits[1]) and (again.worker, again.pulled_at) == (0, 1)
    assert part(scheduler.join(1)) not in {part(visit) for visit in visits}


def test_a_slower_worker_takes_the_first_part_and_the_rest_stays_lost():
    scheduler = Scheduler(
        Cluster(sec_per_step=(1.0, 3.0), local_steps=10, dynamic_steps=True), np.random.default_rng(0)
    )
    fast, slow = scheduler.start()
    assert (fast.num_steps, slow.num_steps) == (10, 3)
    scheduler.arrive(slow, 9.0)
    scheduler.lose(fast)
    scheduler.join(5)  # a worker whose speed nobody knows takes H: all that is lost
    assert scheduler.running[5][1:4] == fast[1:4]
    scheduler.lose(scheduler.running[5])
    scheduler.set_speed(0, 1.0)
    scheduler.wait(0)  # idle, and the fastest
    scheduler.idle.remove(0)
    scheduler.running[0] = Visit(0, 0, 0, 1, 0)
    [first] = scheduler.restart()
    assert first == Visit(1, fast.shard, fast.first_step, 3, 1)
    assert [*scheduler.lost] == [(fast.shard, fast.first_step + 3, 7)]


def test_a_barrier_waits_for_those_who_are_present():
    scheduler = machine(barrier=True)
    visits = scheduler.start()
    assert not scheduler.arrive(visits[0], 1.0)
    scheduler.lose(visits[1])
    assert not scheduler.complete
    assert scheduler.arrive(visits[2], 5.0) and scheduler.complete  # the server steps on two
    assert [visit.worker for visit in scheduler.restart()] == [0, 2]


def test_a_loss_may_close_a_round():
    scheduler = machine(barrier=True)
    visits = scheduler.start()
    assert not scheduler.arrive(visits[0], 1.0) and not scheduler.arrive(visits[1], 2.0)
    scheduler.lose(visits[2])
    assert scheduler.complete and scheduler.group == 2


def test_who_waits_starts_with_the_next_round_and_holds_none_open():
    scheduler = machine(barrier=True)
    visits = scheduler.start()
    scheduler.lose(visits[0])
    scheduler.arrive(visits[1], 1.0)
    scheduler.wait(0)
    assert scheduler.arrive(visits[2], 2.0)
    assert [(visit.worker, visit.pulled_at) for visit in scheduler.restart()] == [(0, 2), (1, 2), (2, 2)]


def test_a_quorum_counts_arrivals_not_who_is_idle():
    scheduler = machine(quorum=2)
    visits = scheduler.start()
    scheduler.arrive(visits[0], 1.0)
    scheduler.leave(0)
    assert scheduler.takes(100.0)  # of a quorum of two, one has arrived
    scheduler.arrive(visits[1], 2.0)
    assert not scheduler.takes(3.0)


def test_dynamic_steps_follow_measured_speeds_and_the_fastest_who_is_present():
    cluster = Cluster(sec_per_step=(1.0, 2.0, 4.0), local_steps=40, dynamic_steps=True)
    scheduler = Scheduler(cluster, np.random.default_rng(0))
    visits = scheduler.start()
    assert [visit.num_steps for visit in visits] == [40, 20, 10]
    scheduler.arrive(visits[1], 40.0)
    scheduler.set_speed(1, 1.25)
    assert [visit.num_steps for visit in scheduler.restart()] == [32]
    scheduler.arrive(visits[0], 41.0)
    scheduler.leave(0)  # worker 1 is the fastest from now on
    scheduler.arrive(visits[2], 42.0)
    assert [visit.num_steps for visit in scheduler.restart()] == [12]
    assert scheduler.join(0).num_steps == 40


def test_workers_that_the_cluster_does_not_have_may_join():
    scheduler = machine(local_steps=7, dynamic_steps=True)
    assert [visit.worker for visit in scheduler.start([1])] == [1]
    assert scheduler.join(40).num_steps == 7
    scheduler.set_speed(41, 2.0)
    assert scheduler.join(41).num_steps == 3


def test_many_measurements_are_not_kept():
    scheduler = machine(dynamic_steps=True)
    scheduler.start()
    for i in range(1000):
        scheduler.set_speed(i % 3, 1 + i / 1000)
    assert len(scheduler._fastest) < 10


@pytest.mark.parametrize("act", ["arrive twice", "lose twice", "join", "wait", "leave", "speed"])
def test_what_cannot_be_is_refused(act):
    scheduler = machine()
    visits = scheduler.start()
    scheduler.arrive(visits[0], 1.0)
    scheduler.lose(visits[1])
    refused = {
        "arrive twice": lambda: scheduler.arrive(visits[0], 2.0),
        "lose twice": lambda: scheduler.lose(visits[1]),
        "join": lambda: scheduler.join(2),
        "wait": lambda: scheduler.wait(0),
        "leave": lambda: scheduler.leave(2),
        "speed": lambda: scheduler.set_speed(2, 0.0),
    }
    before = scheduler.state()
    with pytest.raises(ValueError, match=r"worker|seconds"):
        refused[act]()
    assert scheduler.state() == before


RULES = [
    {},
    {"grace": 2.0},
    {"barrier": True},
    {"coalesce": True, "quorum": 2, "grace": 1.0},
    {"dynamic_steps": True},
    {"sharding": "least_visited"},
    {"shards": 1200},
    {"shards": 1200, "dynamic_steps": True},
    {"shards": 1200, "sharding": "least_visited"},
]


def walk(scheduler, rng, length):
    """Random arrivals, losses, joins and restarts; what was given out."""
    for time in range(length):
        act, running = rng.integers(10), [*scheduler.running.values()]
        if act == 0 and len(running) > 1:
            scheduler.lose(running[rng.integers(len(running))])
        elif act == 1 and len(scheduler.present) < 5:
            yield scheduler.join(min({*range(6)} - scheduler.present))
        elif act == 2:
            scheduler.set_speed(int(rng.integers(6)), float(rng.uniform(0.5, 3)))
        elif act < 7 and running:
            yield scheduler.arrive(running[rng.integers(len(running))], float(time))
        else:
            yield from scheduler.restart()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: " ".join(map(str, rule)) or "async")
def test_restored_in_the_middle_of_a_run_it_goes_on_with_the_same_visits(rule):
    cluster = Cluster(sec_per_step=(1.0, 1.3, 2.0, 5.0), local_steps=12, **rule)
    scheduler, rng = Scheduler(cluster, np.random.default_rng(5)), np.random.default_rng(1)
    scheduler.start()
    assert len([*walk(scheduler, rng, 300)]) > 100
    again = Scheduler.restored(cluster, json.loads(json.dumps(scheduler.state())))
    assert again.state() == scheduler.state()
    same = np.random.default_rng()
    same.bit_generator.state = rng.bit_generator.state
    assert [*walk(again, same, 300)] == [*walk(scheduler, rng, 300)]
    assert again.state() == scheduler.state()


def test_a_state_of_another_cluster_is_refused():
    with pytest.raises(ValueError, match="expected a state of 5 shards, got 3"):
        Scheduler.restored(Cluster(shards=5), machine().state())
