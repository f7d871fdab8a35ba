"""The virtual clock with transfers, failures, joins and leaves: no step is lost for good, nobody waits for the dead."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden import digests
from toybench.config import Budget, Cluster, ConfigError
from toybench.presence import Presence
from toybench.timeline import play, simulate

BASE = Cluster(sec_per_step=(1.0, 1.3, 2.1, 4.7), local_steps=10)
FAILING = {"mtbf": 60.0, "mttr": 15.0}
RULES = {
    "async": {},
    "grace": {"grace": 4.0},
    "quorum": {"quorum": 2, "coalesce": True},
    "barrier": {"barrier": True},
    "coalesce": {"coalesce": True, "grace": 4.0},
    "dylu": {"dynamic_steps": True},
}
GOLDEN = {
    "default": "ef72d86213a5ee89",
    "fast": "38d832045f6caa2f",
    "notebook": "22cc3bb354d622f7",
    "notebook-small": "22cc3bb354d622f7",
    "none-4": "dba469ab947a9e69",
    "slight-4": "2013d8ba17ac3852",
    "moderate-4": "ab0866cf019893f3",
    "very-4": "ef72d86213a5ee89",
    "very-4-noniid": "ef72d86213a5ee89",
    "very-8": "0787bc252740ff14",
    "very-16": "492608e27f7ee689",
}


def same(a, b, but=()):
    for name, ours, theirs in zip(a._fields, a, b):
        if name not in but:
            np.testing.assert_array_equal(ours, theirs, err_msg=name)


def test_timelines_are_what_they_were_before_clusters_had_faults():
    assert digests() == GOLDEN


@pytest.mark.parametrize("rule", RULES)
def test_faults_that_never_happen_change_nothing(rule):
    plain = replace(BASE, **RULES[rule])
    idle = {"latency": (0.0,), "bandwidth": (1e6,), "mtbf": 1e12, "mttr": 1.0, "join": (0.0,), "leave": (1e9,)}
    ours, theirs = (simulate(cluster, Budget(20), 3) for cluster in (replace(plain, **idle), plain))
    assert [column.tobytes() for column in ours] == [column.tobytes() for column in theirs]


# Transfers


@pytest.mark.parametrize("rule", ["async", "grace", "quorum", "barrier"])
def test_a_transfer_is_as_good_as_slower_steps(rule):
    """Of visits of H steps: the rows are those of workers whose every step takes an H-th of the transfer longer."""
    moved = replace(BASE, latency=(0.5, 1.0, 0.0, 2.0), bandwidth=(1e6,), pull_bytes=1e5, push_bytes=2e5, **RULES[rule])
    extra = [2 * latency + 8 * 3e5 / 1e6 for latency in (0.5, 1.0, 0.0, 2.0)]
    slower = replace(BASE, sec_per_step=[s + x / 10 for s, x in zip(BASE.sec_per_step, extra)], **RULES[rule])
    ours, theirs = (simulate(cluster, Budget(50), 0) for cluster in (moved, slower))
    same(ours, theirs, but=("time", "start"))
    np.testing.assert_allclose(ours.time, theirs.time, rtol=1e-9)


def test_latency_only_shifts_a_barriers_time():
    barrier = replace(BASE, barrier=True)
    ours, theirs = (simulate(cluster, Budget(10), 0) for cluster in (replace(barrier, latency=(1.5,)), barrier))
    same(ours, theirs, but=("time", "start"))
    np.testing.assert_allclose(ours.time - theirs.time, 3.0 * np.repeat(np.arange(1, 11), 4))


# Failures


def given_out(played):
    """[(shard, first step, steps)] of all visits that arrived or run, and of what is lost and not given out again."""
    timeline = played.timeline
    rows = zip(timeline.shard.tolist(), timeline.first_step.tolist(), timeline.num_steps.tolist())
    return [*rows, *(visit[1:4] for _, visit in played.running), *played.scheduler.lost]


def partitions(played):
    for shard, consumed in enumerate(played.scheduler.shards.consumed):
        at = 0
        for _, first, steps in sorted(part for part in given_out(played) if part[0] == shard):
            if first != at:
                return False
            at += steps
        if at != consumed:
            return False
    return True


clusters = st.builds(
    lambda seconds, faults, rule, more: replace(BASE, sec_per_step=seconds, **RULES[rule], **faults, **more),
    st.lists(st.sampled_from([0.5, 1.0, 1.3, 2.0, 6.0]), min_size=2, max_size=6),
    st.builds(dict, mtbf=st.sampled_from([10.0, 40.0, 300.0]), mttr=st.sampled_from([0.1, 10.0, 200.0])),
    st.sampled_from(sorted(RULES)),
    st.sampled_from([{}, {"shards": 2}, {"shards": 1100}, {"sharding": "least_visited"}, {"latency": (0.7,)}]),
)


@settings(deadline=None)
@given(clusters, st.integers(0, 5))
def test_every_step_of_every_shard_is_given_out_once(cluster, seed):
    played = play(cluster, Budget(8), seed)
    assert partitions(played)
    timeline = played.timeline
    assert (np.diff(timeline.time) >= 0).all() and (timeline.staleness >= 0).all()
    assert timeline.step[-1] and timeline.local_steps[-1] >= Budget(8).total_steps(cluster)
    assert (timeline.pulled_at <= np.arange(len(timeline.time))).all()
    if cluster.barrier:
        assert (timeline.staleness == 0).all()
    again = play(cluster, Budget(8), seed)
    assert [column.tobytes() for column in timeline] == [column.tobytes() for column in again.timeline]


@pytest.mark.parametrize("rule", RULES)
def test_nobody_works_while_down_and_who_comes_back_is_fresh(rule):
    cluster = replace(BASE, **RULES[rule], **FAILING)
    played, presence = play(cluster, Budget(60), 1), Presence(cluster, 1)
    timeline, comebacks = played.timeline, 0
    changes = [presence.next() for _ in range(400)]
    assert len(played.lost) > 5
    for worker in range(4):
        ends = [change.time for change in changes if change.worker == worker]  # fail, return, fail, return, …
        mine = np.flatnonzero(timeline.worker == worker)
        assert (np.diff(timeline.start[mine]) > 0).all() and (
            timeline.start[mine[1:]] >= timeline.time[mine[:-1]]
        ).all()
        begun, ended = np.searchsorted(ends, timeline.start[mine], "right"), np.searchsorted(ends, timeline.time[mine])
        assert (begun == ended).all() and (begun % 2 == 0).all()
        assert timeline.reset[mine].tolist() == (np.diff(begun, prepend=0) > 0).tolist()
        comebacks += timeline.reset[mine].sum()
    assert comebacks > 5
    for start, finish, visit in played.lost:
        assert (finish, visit.worker, "fail") in changes and start < finish


def test_failures_are_the_same_under_all_rules():
    found = [play(replace(BASE, **rule, **FAILING), Budget(40), 2).lost for rule in (RULES["async"], RULES["dylu"])]
    first = [{(finish, visit.worker) for _, finish, visit in lost} for lost in found]
    until = min(max(first[0]), max(first[1]))  # nobody is idle under either
    assert {event for event in first[0] if event <= until} == {event for event in first[1] if event <= until}
    assert len(first[0]) > 5


def test_a_round_closes_when_the_last_one_at_work_is_lost():
    """Then the server steps on what the others sent, and they start again at the time of the loss."""
    cluster = Cluster(sec_per_step=(1.0, 100.0), local_steps=10, barrier=True, mtbf=300.0)
    fails = [Presence(cluster, seed).fails for seed in range(200)]
    seed = next(seed for seed in range(200) if fails[seed][1] < 1000 < fails[seed][0])  # in the first visit
    timeline, loss = simulate(cluster, Budget(2), seed), fails[seed][1]
    assert timeline.worker.tolist() == [0] * 4 and timeline.step.all()
    assert timeline.start[1] == loss and timeline.time[1] == pytest.approx(loss + 10)
    assert timeline.pulled_at.tolist() == [0, 1, 2, 3]


def test_a_quorum_of_more_than_are_present_is_everybody_present():
    cluster = replace(BASE, quorum=4, leave=(0.0, 0.0, 0.0, 1.0))
    timeline = simulate(cluster, Budget(10), 0)
    assert (timeline.worker == 3).sum() == 1  # ended its visit, and went
    rounds = timeline.pulled_at[4:]
    assert (np.unique(rounds, return_counts=True)[1] == 3).all()


# Joins and leaves


def test_workers_join_late_and_end_their_last_visit():
    cluster = Cluster(sec_per_step=(1.0, 1.0), local_steps=10, join=(0.0, 14.0), leave=(35.0, 0.0))
    timeline = simulate(cluster, Budget(4), 0)
    assert timeline.start[timeline.worker == 1].tolist() == [14, 24, 34, 44]
    assert timeline.time[timeline.worker == 0].tolist() == [10, 20, 30, 40]
    assert timeline.pulled_at[timeline.worker == 1].tolist() == [1, 3, 5, 7]
    assert timeline.reset.tolist() == [False, False, True, *[False] * 5]


def test_a_barrier_takes_newcomers_with_the_next_round():
    cluster = Cluster(sec_per_step=(1.0, 1.0), local_steps=10, barrier=True, join=(0.0, 14.0))
    timeline = simulate(cluster, Budget(3), 0)
    assert timeline.worker.tolist() == [0, 0, 0, 1, 0, 1]
    assert timeline.start.tolist() == [0, 10, 20, 20, 30, 30]


@pytest.mark.parametrize("rule", RULES)
def test_when_all_are_gone_it_says_so(rule):
    for gone in ({"leave": (50.0,)}, {"mtbf": 50.0}):
        with pytest.raises(ConfigError, match=r"^cluster: all workers are gone for good after \d+ of 4,000 local"):
            play(replace(BASE, **RULES[rule], **gone), Budget(100), 0)


def test_everybody_may_come_late():
    timeline = simulate(replace(BASE, join=(5.0, 6.0, 7.0, 8.0)), Budget(5), 0)
    assert timeline.start[0] == 5.0 and set(timeline.worker.tolist()) == {0, 1, 2, 3}


# Settings


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"latency": (1.0, 2.0)}, "latency: must be one number, or one for each of 4 workers, got 2"),
        ({"bandwidth": ()}, "bandwidth: must be one number"),
        ({"bandwidth": (0.0,)}, "bandwidth: must be > 0"),
        ({"mtbf": 1.0}, "mtbf: must be >= 1.43 s"),
        ({"join": (9.0,), "leave": (9.0, 0.0, 10.0, 0.0)}, "leave: must be later than join"),
        ({"latency": ("x",)}, "latency: expected a list of numbers or nothing"),
        ({"push_bytes": -1}, "push_bytes: must be >= 0"),
    ],
)
def test_settings_that_cannot_be(settings, said):
    with pytest.raises(ConfigError, match=f"^{said}"):
        replace(BASE, **settings)


def test_large_whole_numbers_are_numbers():
    assert replace(BASE, bandwidth=[5_000_000_000], pull_bytes=10**10).bandwidth == (5e9,)
