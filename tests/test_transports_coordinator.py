"""The scheduler on the wall clock: where nothing unforeseen happens it is the simulation."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wall import SPEEDS, coordinator, drive
from toybench.config import Budget, Cluster
from toybench.timeline import simulate
from toybench.transports.coordinator import Coordinator

BUDGET = Budget(rounds=12)
RULES = {
    "asynchronous": {},
    "DyLU": {"dynamic_steps": True},
    "barrier": {"barrier": True},
    "quorum": {"quorum": 2},
    "least visited": {"sharding": "least_visited", "dynamic_steps": True},
}


def cluster(**rules) -> Cluster:
    return Cluster(sec_per_step=SPEEDS, local_steps=12, **{"grace": 0.0} | rules)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("seed", (0, 7))
def test_on_a_clock_without_surprises_it_is_the_simulation(name, seed):
    one = cluster(**RULES[name])
    real, model = drive(coordinator(one, BUDGET, seed), one), simulate(one, BUDGET, seed)
    for column in ("time", "start", "worker", "shard", "num_steps", "first_step", "pulled_at", "step", "staleness"):
        np.testing.assert_allclose(getattr(real, column), getattr(model, column), rtol=1e-9, err_msg=column)


@pytest.mark.parametrize("rules", ({"grace": 3.0}, {"grace": 3.0, "coalesce": True}), ids=str)
def test_a_grace_period_is_waited_out(rules):
    """Nobody who could still come within it is known: those who are there restart when it is over, or all are in."""
    one = cluster(**rules)
    real = drive(coordinator(one, BUDGET), one)
    for e in np.flatnonzero(real.pulled_at > 0):
        group = real.time[real.pulled_at == real.pulled_at[e]]
        last = real.time[real.pulled_at[e] - 1]
        assert last <= real.start[e] <= last + 3.0 + 1e-9 and len(group)
    waited = real.start - real.time[np.maximum(real.pulled_at - 1, 0)]
    assert waited.max() > 1.0  # and it was


@pytest.mark.parametrize("name", [*RULES, "coalesce"])
def test_brought_back_at_any_moment_it_goes_on_the_same(name):
    one = cluster(**RULES.get(name, {"coalesce": True, "grace": 3.0}))

    def reborn(before):
        if len(before.stepped) < len(before.arrivals):
            with pytest.raises(ValueError, match="open"):
                before.state()
            return before
        after = coordinator(one, BUDGET)
        after.restore(json.loads(json.dumps(before.state())))
        return after

    straight, broken = drive(coordinator(one, BUDGET), one), drive(coordinator(one, BUDGET), one, after=reborn)
    for there, here in zip(straight, broken):
        np.testing.assert_array_equal(there, here)


def covered(one: Coordinator) -> dict[int, list[tuple[int, int]]]:
    """By shard, the steps that arrived, are on the way, or are to be given out again: (first, number), ascending."""
    visits = [a.visit for a in one.arrivals] + [g.visit for g in one.running.values()]
    parts = [(v.shard, v.first_step, v.num_steps) for v in visits] + [tuple(part) for part in one.scheduler.lost]
    found: dict[int, list[tuple[int, int]]] = {}
    for shard, first, steps in sorted(parts):
        found.setdefault(shard, []).append((first, steps))
    return found


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_happens_every_step_of_a_shard_is_given_out_once(data):
    rules = data.draw(st.sampled_from([*RULES.values(), {"coalesce": True, "grace": 2.0}]))
    one, now = coordinator(cluster(**rules), replace(BUDGET, rounds=3), gather=5.0), 0.0
    for _ in range(60):
        if one.done:
            break
        now += data.draw(st.floats(0.0, 2.0))
        worker = data.draw(st.integers(0, 5))  # more than the cluster names
        match data.draw(st.sampled_from(("arrive", "arrive", "arrive", "join", "leave", "tick"))):
            case "arrive" if worker in one.running:
                one.arrive(worker, now, data.draw(st.floats(0.01, 5.0)))
            case "join":
                one.join(worker, now)
            case "leave":
                one.leave(worker, now)
            case _:
                one.tick(now)
        for parts in covered(one).values():
            ends = [first + steps for first, steps in parts]
            assert [first for first, _ in parts] == [0, *ends[:-1]]
        assert set(one.running) == set(one.scheduler.running)
        assert len(one.arrivals) - len(one.stepped) in (0, 1)
        ids = [a.id for a in one.arrivals] + [g.id for g in one.running.values()]
        assert len(ids) == len(set(ids))


def test_a_barrier_does_not_wait_for_the_dead():
    one = coordinator(cluster(barrier=True), BUDGET)
    for w in range(4):
        one.join(w, 0.0)
    for w in range(3):
        assert not one.arrive(w, 10.0 + w, 7.0).given
    outcome = one.leave(3, 20.0)
    assert outcome.taken[-1] == (2, True) and sorted(g.visit.worker for g in outcome.given) == [0, 1, 2]
    assert one.lost == 1 and one.lost_steps == 12
    assert outcome.given[0].visit.first_step == 0  # what the dead one had, first


def test_who_comes_while_a_group_is_open_pulls_when_it_closes():
    one = coordinator(cluster(barrier=True), BUDGET)
    for w in range(4):
        one.join(w, 0.0)
    one.arrive(0, 5.0, 5.0)
    assert not one.join(4, 6.0).given
    for w in (1, 2):
        one.arrive(w, 7.0, 5.0)
    outcome = one.arrive(3, 9.0, 5.0)
    assert [g.visit.worker for g in outcome.given] == [0, 1, 2, 3, 4]
    assert [g.reset for g in outcome.given] == [False] * 4 + [True]
    assert {g.visit.pulled_at for g in outcome.given} == {4}


def test_nobody_begins_before_all_are_there_or_it_has_taken_too_long():
    one = coordinator(cluster(), BUDGET, gather=30.0)
    assert not one.join(0, 1.0).given and not one.join(2, 2.0).given
    assert not one.tick(29.0).given
    assert [g.visit.worker for g in one.tick(31.0).given] == [0, 2]
    assert [g.visit.worker for g in one.join(3, 32.0).given] == [3]


def test_steps_follow_a_worker_that_slows_down():
    """DyLU from what was measured, whatever the cluster said."""
    one = Coordinator(cluster(dynamic_steps=True), 10**6, 0)
    given = [g for w in range(4) for g in one.join(w, 0.0).given]
    assert {g.visit.num_steps for g in given} == {12}  # nobody is known to be slower
    [first] = one.arrive(0, 1.0, 12 * 0.1).given
    assert first.visit.num_steps == 12
    [slow] = one.arrive(1, 2.0, 12 * 0.4).given
    assert slow.visit.num_steps == 3
    for _ in range(12):
        [slow] = one.arrive(1, 3.0, slow.visit.num_steps * 0.1).given
    assert slow.visit.num_steps >= 11


def test_who_comes_late_is_taken_to_be_as_fast_as_the_fastest():
    one = Coordinator(cluster(dynamic_steps=True), 10**6, 0)
    for w in range(4):
        one.join(w, 0.0)
    one.arrive(0, 1.0, 12 * 50.0)  # slower than any number that stands for nothing known
    [late] = one.join(4, 2.0).given
    [again] = one.arrive(1, 3.0, 12 * 50.0).given
    assert late.visit.num_steps == again.visit.num_steps == 12
