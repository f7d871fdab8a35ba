"""Algorithm 2 without a clock: dynamic steps (Eq. 6), shard draws (Eq. 2), groups and barriers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toybench.config import Cluster
from toybench.scheduler import Scheduler, Visit, dynamic_steps
from toybench.shards import shard_deficit


def scheduler(workers=4, seed=0, **cluster):
    return Scheduler(Cluster(sec_per_step=(1.0,) * workers, **cluster), np.random.default_rng(seed))


def steps_of(sec_per_step, local_steps):
    """Steps of all workers."""
    return [dynamic_steps(seconds, min(sec_per_step), local_steps) for seconds in sec_per_step]


def drive(machine, rounds):
    """All workers arrive in order, round after round; every visit that was given out, in order."""
    given_out = machine.start()
    latest = given_out
    for time in range(1, rounds):
        for visit in latest:
            machine.arrive(visit, float(time))
        latest = machine.restart()
        given_out = given_out + latest
    return given_out


# Eq. 6


@pytest.mark.parametrize(
    "sec_per_step, local_steps, expected",
    [
        ([1.0, 2.0, 3.0], 50, [50, 25, 16]),
        ([2.0, 1.0], 5, [2, 5]),
        ([0.58, 0.75, 1.51, 3.33], 50, [50, 38, 19, 8]),
        ([1.0, 1000.0], 20, [20, 1]),  # at least one
        ([0.7, 0.7, 0.7], 50, [50, 50, 50]),
    ],
)
def test_dynamic_steps_by_hand(sec_per_step, local_steps, expected):
    assert steps_of(sec_per_step, local_steps) == expected


def test_dynamic_steps_are_not_lost_to_rounding():
    """Speeds are hundredths, so exact arithmetic says what ⌊H·v/v_max⌋ is; a bare floor is sometimes one short."""
    short = 0
    for fastest in range(1, 40):
        for steps in range(1, 60):
            slow = np.array([fastest, 2 * fastest, 3 * fastest, 3 * fastest + 1])
            exact = np.maximum(steps * fastest // slow, 1)
            assert steps_of((slow / 100).tolist(), steps) == exact.tolist()
            naive = np.floor(steps * (1 / (slow / 100)) / (1 / (fastest / 100)))
            short += np.any(naive < exact)
    assert short > 0


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=8), st.integers(1, 200))
def test_dynamic_steps_give_the_fastest_all_and_the_slowest_some(sec_per_step, local_steps):
    steps = np.array(steps_of(sec_per_step, local_steps))
    assert steps[np.argmin(sec_per_step)] == local_steps
    assert (steps >= 1).all() and (steps <= local_steps).all()
    order = np.argsort(sec_per_step, kind="stable")
    assert (np.diff(steps[order]) <= 0).all()


def test_scheduler_uses_dynamic_steps_only_if_asked():
    slow = {"sec_per_step": (1.0, 2.0), "local_steps": 10}
    for dynamic, expected in ((True, [10, 5]), (False, [10, 10])):
        machine = Scheduler(Cluster(**slow, dynamic_steps=dynamic), np.random.default_rng(0))
        assert [visit.num_steps for visit in machine.start()] == expected


# Eq. 2


@pytest.mark.parametrize(
    "sizes, consumed, expected",
    [
        ([1, 1], [0, 0], [1 / 2, 1 / 2]),
        ([1, 1, 2], [0, 0, 0], [1 / 3, 1 / 3, 1 / 3]),  # at the start uniform, whatever the sizes
        ([1, 1], [3, 1], [0, 1]),
        ([1, 1, 2], [10, 0, 10], [0, 1, 0]),
        ([1, 1, 2], [6, 2, 2], [0, 1 / 7, 6 / 7]),
        ([1, 1, 2], [5, 5, 10], [1 / 3, 1 / 3, 1 / 3]),  # nobody lags
        ([1, 1, 1], [1, 1, 1], [1 / 3, 1 / 3, 1 / 3]),
        ([1, 1, 1, 1], [4, 4, 2, 0], [0, 0, 1 / 6, 5 / 6]),
    ],
)
def test_shard_probabilities_by_hand(sizes, consumed, expected):
    np.testing.assert_allclose(shard_deficit(np.array(sizes, float), np.array(consumed)), expected, atol=1e-12)


shard_states = st.integers(1, 8).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(1, 1000), min_size=n, max_size=n), st.lists(st.integers(0, 10**9), min_size=n, max_size=n)
    )
)


@given(shard_states)
def test_shard_probabilities_are_a_distribution(state):
    sizes, consumed = (np.array(x) for x in state)
    p = shard_deficit(sizes.astype(float), consumed)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert (p >= 0).all()
    np.random.default_rng(0).choice(len(p), p=p)  # NumPy agrees
    if consumed.sum() and p.max() > p.min():  # not the uniform fallback
        ahead = consumed / consumed.sum() > sizes / sizes.sum()
        assert (p[ahead] == 0).all()


def test_visits_are_even_in_the_long_run():
    visits = np.bincount([visit.shard for visit in drive(scheduler(), 500)])
    assert len(visits) == 4
    assert np.ptp(visits) <= 4


def test_uneven_steps_are_evened_out():
    """Eq. 2 counts examples: shards get equal steps though workers take unequal ones."""
    cluster = Cluster(sec_per_step=(1.0, 1.7, 3.1, 9.3), local_steps=40, dynamic_steps=True)
    visits = drive(Scheduler(cluster, np.random.default_rng(1)), 500)
    steps = np.bincount([v.shard for v in visits], weights=[v.num_steps for v in visits])
    np.testing.assert_allclose(steps / steps.sum(), 0.25, atol=0.002)


def test_a_shard_that_is_ahead_waits_until_the_others_caught_up():
    machine = scheduler(local_steps=10)
    machine.shards.consumed[:] = [1000, 0, 0, 0]
    visits = drive(machine, 100)
    totals = 1000 + 10 * np.arange(len(visits))
    early = [visit.shard for visit, total in zip(visits, totals) if total < 4000]
    assert len(early) == 300 and 0 not in early
    assert 0 in [visit.shard for visit in visits[300:]]
    consumed = machine.shards.consumed
    np.testing.assert_allclose(consumed / consumed.sum(), 0.25, atol=0.01)


def test_least_visited_spreads_evenly():
    """No shard is ever more than one visit ahead of another, whatever the steps."""
    cluster = Cluster(sec_per_step=(1.0, 2.0, 5.0), dynamic_steps=True, sharding="least_visited", shards=5)
    shards = [visit.shard for visit in drive(Scheduler(cluster, np.random.default_rng(0)), 40)]
    for n in range(1, len(shards) + 1):
        assert np.ptp(np.bincount(shards[:n], minlength=5)) <= 1
    assert shards[:5] != shards[5:10]  # ties are drawn at random


@pytest.mark.parametrize("sharding", ["proportional", "least_visited"])
def test_a_worker_does_not_own_a_shard(sharding):
    visits = drive(scheduler(sharding=sharding), 30)
    assert len({visit.shard for visit in visits if visit.worker == 0}) == 4


@pytest.mark.parametrize("shards", [1, 3, 9])
def test_shards_need_not_be_as_many_as_workers(shards):
    assert {visit.shard for visit in drive(scheduler(shards=shards), 30)} == set(range(shards))


def test_first_step_is_the_running_sum_of_a_shards_steps():
    cluster = Cluster(sec_per_step=(1.0, 2.0, 5.0), local_steps=10, dynamic_steps=True)
    cursor = [0, 0, 0]
    for visit in drive(Scheduler(cluster, np.random.default_rng(3)), 40):
        assert visit.first_step == cursor[visit.shard]
        cursor[visit.shard] += visit.num_steps


# Groups


def test_grace_runs_from_the_first_arrival_of_a_group():
    machine = scheduler(workers=3, grace=2.0)
    visits = machine.start()
    assert machine.takes(1e9)  # no group is open: the first to finish is waited for
    assert machine.arrive(visits[0], 10.0)
    assert machine.takes(12.0) and not machine.takes(12.000001)
    assert machine.arrive(visits[1], 12.0)
    assert not machine.takes(13.0)  # the second arrival did not extend it
    assert [(visit.worker, visit.pulled_at) for visit in machine.restart()] == [(0, 2), (1, 2)]
    assert machine.takes(1e9)
    assert machine.restart() == []  # the third is still at work


def test_without_grace_only_ties_restart_together():
    machine = scheduler(workers=2)
    machine.arrive(machine.start()[0], 10.0)
    assert machine.takes(10.0) and not machine.takes(10.000001)


def test_barrier_waits_for_all_and_steps_once():
    machine = scheduler(workers=3, barrier=True, grace=0.0)
    for _ in range(2):
        visits = machine.start() if machine.arrivals == 0 else machine.restart()
        assert [machine.arrive(visit, time) for visit, time in zip(visits, (1.0, 50.0, 1e6))] == [False, False, True]
        assert machine.takes(1e9)


def test_restart_gives_visits_in_order_of_workers():
    machine = scheduler(workers=4)
    visits = machine.start()
    assert [visit.worker for visit in visits] == [0, 1, 2, 3]
    for visit in reversed(visits):
        machine.arrive(visit, 1.0)
    assert [visit.worker for visit in machine.restart()] == [0, 1, 2, 3]


def test_least_visited_draws_the_only_candidate():
    machine = scheduler(sharding="least_visited")
    machine.shards.visits[:] = [3, 2, 1, 2]
    assert machine._assign(0) == Visit(worker=0, shard=2, first_step=0, num_steps=50, pulled_at=0)
