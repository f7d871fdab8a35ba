"""The engine against its definition, its limit cases, and itself under other groupings."""

import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from toybench import training
from toybench.config import Budget, Cluster, ConfigError, Gaussians, InnerAdamW, InnerSGD, Run
from toybench.engine import replay, seed_keys
from toybench.gaussians import GaussianMixture
from toybench.inner import InnerOptimizer, local_update, warmup_cosine
from toybench.outer import METHODS, OuterOptimizer, as_outer, make_outer
from toybench.outer.base import momentum_of
from toybench.outer.buffered import Buffered
from toybench.outer.delayed_nesterov import DelayedNesterov
from toybench.outer.fedasync import FedAsync
from toybench.outer.halos import HALoS
from toybench.outer.heloco import HeLoCo
from toybench.outer.momentum_look_ahead import MLA
from toybench.outer.ormo import OrMo
from toybench.outer.ringmaster import Ringmaster
from toybench.outer.sgd import SGD, Momentum, Nesterov
from toybench.task import check_task
from toybench.timeline import simulate
from toybench.training import footprint, inner_numbers, make_inner, task_of, train

UNEQUAL = (0.58, 0.75, 1.51, 3.33)
EQUAL = (1.0,) * 4
TASK = Gaussians(clusters=2, dimension=6, hidden=5, points=400, held_out=64, batch=4)
BASE = Run(
    task=TASK,
    cluster=Cluster(sec_per_step=UNEQUAL, local_steps=5, grace=0.5),
    inner=InnerAdamW(lr=5e-3),
    outer=Nesterov(lr=0.2),
    budget=Budget(rounds=6, evaluations=6),
)


def with_cluster(run, **changes):
    return replace(run, cluster=replace(run.cluster, **changes))


def train_one(run, seed=0, **options):
    return train(run, [seed], **options)[0]


def replay_one(run, seed=0, outer=None):
    """The plain loop on the same run."""
    cluster = run.cluster
    return replay(
        task_of(run),
        make_inner("adamw" if isinstance(run.inner, InnerAdamW) else "sgd", inner_numbers(run)),
        make_outer(run.outer, cluster.workers) if outer is None else outer,
        simulate(cluster, run.budget, seed),
        jax.random.key(seed),
        workers=cluster.workers,
        shards=cluster.num_shards,
        reset=run.inner.reset,
    )


def assert_close(a, b, tolerance=1e-9):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def first(params):
    return jax.tree.map(lambda leaf: leaf[0], params)


@pytest.mark.parametrize("method", METHODS)
def test_compiled_chunks_equal_the_plain_loop(method, float64):
    run = replace(BASE, outer=METHODS[method].settings(lr=0.1))
    assert_close(first(train_one(run).params), replay_one(run).params)


@pytest.mark.parametrize(
    "run",
    [
        with_cluster(BASE, barrier=True),
        with_cluster(BASE, dynamic_steps=True),
        with_cluster(BASE, shards=7),
        with_cluster(BASE, sec_per_step=(1.0,)),
        with_cluster(BASE, mtbf=12.0, mttr=3.0, latency=(0.1,), join=(0.0, 0.0, 4.0, 0.0)),
        with_cluster(BASE, barrier=True, mtbf=12.0, mttr=3.0),
        replace(BASE, inner=replace(BASE.inner, reset=True, warmup=3, first_step_peak=True)),
        replace(BASE, inner=InnerSGD(lr=0.05, momentum=0.5)),
    ],
    ids=[
        *("barrier", "dynamic steps", "shards", "one worker", "failures", "failures and a barrier"),
        *("inner settings", "inner SGD"),
    ],
)
def test_compiled_chunks_equal_the_plain_loop_on_every_kind_of_cluster(run, float64):
    assert_close(first(train_one(run).params), replay_one(run).params)


def test_a_pull_of_the_outer_optimizer_reaches_the_workers(float64):
    nesterov = make_outer(BASE.outer, 4)
    ahead = OuterOptimizer(
        nesterov.init, nesterov.update, lambda state, params, worker: jax.tree.map(lambda p: p + 0.01 * worker, params)
    )
    trained = train_one(BASE, outer=ahead)
    assert_close(first(trained.params), replay_one(BASE, outer=ahead).params)
    with pytest.raises(AssertionError):
        assert_close(first(trained.params), replay_one(BASE).params)


@pytest.mark.parametrize("changes", [{}, {"barrier": True}, {"grace": 0.0}], ids=str)
def test_local_servers_hand_out_what_the_plain_loop_does(changes, float64):
    """Settings that merge often enough for a run as short as this."""
    halos = HALoS(lr=0.5, global_period=2, local_lr=0.4, local_period=2, merge_every=3, merge_weight=0.5)
    run = replace(with_cluster(BASE, **changes), outer=halos)
    trained = train_one(run)
    assert_close(first(trained.params), replay_one(run).params)
    assert trained.metrics["loss"][0, -1] < trained.metrics["loss"][0, 0]


def test_heloco_without_corrections_is_momentum_look_ahead_that_hands_out_a_point_ahead(float64):
    """Limit case β_max = 0, k_d = 0: MLA, and every worker starts from θ − ημm."""
    mla = make_outer(MLA(lr=0.3, momentum=0.8), 4)

    def pull(state, params, worker):
        return jax.tree.map(lambda p, m: p - 0.3 * 0.8 * m, params, momentum_of(state, params))

    ahead = OuterOptimizer(mla.init, mla.update, pull)
    uncorrected = replace(BASE, outer=HeLoCo(lr=0.3, momentum=0.8, max_shrink=0.0, turn=0.0))
    assert_close(train_one(uncorrected).params, train_one(BASE, outer=ahead).params)


@pytest.mark.parametrize(
    "settings, plain",
    [
        (OrMo(lr=0.3, momentum=0.8), Momentum(lr=0.3, momentum=0.8)),
        (Ringmaster(lr=0.3, delay_threshold=1), SGD(lr=0.3)),
        (FedAsync(lr=0.3), SGD(lr=0.3)),
    ],
    ids=lambda s: type(s).__name__,
)
def test_with_a_barrier_nothing_is_late(settings, plain, float64):
    run = with_cluster(BASE, barrier=True)
    assert_close(train_one(replace(run, outer=settings)).params, train_one(replace(run, outer=plain)).params)


def test_delayed_nesterov_with_a_period_of_all_workers_is_synchronous_at_equal_speeds(float64):
    run = replace(with_cluster(BASE, sec_per_step=EQUAL), outer=DelayedNesterov(lr=0.5))
    sync = replace(with_cluster(run, barrier=True), outer=Nesterov(lr=0.5))
    delayed, synchronous = train_one(run), train_one(sync)
    assert_close(delayed.metrics, synchronous.metrics)  # after every round
    assert_close(delayed.params, synchronous.params)


@pytest.mark.parametrize("speeds, grace", [(EQUAL, 0.0), (UNEQUAL, 1000.0)])
def test_a_buffer_of_all_workers_is_synchronous(speeds, grace, float64):
    run = replace(with_cluster(BASE, sec_per_step=speeds, grace=grace), outer=Buffered(lr=0.5))
    sync = replace(with_cluster(run, barrier=True), outer=Nesterov(lr=0.5))
    assert_close(train_one(run).metrics, train_one(sync).metrics)
    assert_close(train_one(run).params, train_one(sync).params)


@pytest.mark.parametrize("activation", [0.0, 0.4, 1.0])
def test_delayed_nesterov_with_period_one_is_nesterov(activation, float64):
    delayed = replace(BASE, outer=DelayedNesterov(lr=0.2, period=1, activation=activation))
    assert_close(train_one(delayed).params, train_one(BASE).params)


def test_one_worker_with_outer_sgd_is_plain_training(float64):
    run = replace(
        with_cluster(BASE, sec_per_step=(1.0,)),
        inner=InnerAdamW(lr=5e-3, warmup=4, final_lr=1e-4),
        outer=SGD(lr=1.0),
        budget=Budget(rounds=7),
    )
    task, steps = GaussianMixture(TASK), 35
    data_key, init_key = seed_keys(jax.random.key(0))
    data, params = task.data(data_key, 1), task.init(init_key)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 5e-3, 4, steps, 1e-4)
    adamw = optax.adamw(schedule, weight_decay=0.1)
    state = adamw.init(params)
    for step in range(steps):
        gradient = jax.grad(task.loss)(params, task.batch(data, 0, step))
        updates, state = adamw.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    assert_close(first(train_one(run).params), params)


def test_one_worker_with_nesterov_is_snoo(float64):
    """SNOO (arXiv 2510.15830): after every K inner steps s = w₀ − w, b ← μb + s, w ← w₀ − η(μb + s)."""
    lr, mu, steps = 0.7, 0.8, BASE.cluster.local_steps
    run = replace(with_cluster(BASE, sec_per_step=(1.0,)), inner=InnerSGD(lr=0.05, final_lr=0.05))
    run = replace(run, outer=Nesterov(lr=lr, momentum=mu))
    task = GaussianMixture(TASK)
    data_key, init_key = seed_keys(jax.random.key(0))
    data, slow = task.data(data_key, 1), task.init(init_key)
    b = jax.tree.map(jnp.zeros_like, slow)
    for cycle in range(run.budget.rounds):
        fast = slow
        for step in range(cycle * steps, (cycle + 1) * steps):
            gradient = jax.grad(task.loss)(fast, task.batch(data, 0, step))
            fast = jax.tree.map(lambda w, g: w - 0.05 * g, fast, gradient)
        s = jax.tree.map(jnp.subtract, slow, fast)
        b = jax.tree.map(lambda b, s: mu * b + s, b, s)
        slow = jax.tree.map(lambda w, b, s: w - lr * (mu * b + s), slow, b, s)
    assert_close(first(train_one(run).params), slow)


def test_every_lane_is_the_single_run(float64):
    runs = [
        BASE,
        replace(BASE, outer=Nesterov(lr=0.05, momentum=0.5)),
        replace(BASE, inner=replace(BASE.inner, lr=1e-3, reset=True)),
        with_cluster(BASE, barrier=True, local_steps=3),
        with_cluster(BASE, dynamic_steps=True, sec_per_step=(1.0, 1.1, 2.0, 6.0)),
    ]
    together = train(runs, [3, 5, 8])
    for run, result in zip(runs, together):
        for s, seed in enumerate(result.seeds):
            alone = train_one(run, seed)
            assert_close(jax.tree.map(lambda leaf, s=s: leaf[s], result.params), first(alone.params))
            assert_close(result.metrics["loss"][s], alone.metrics["loss"][0])
            np.testing.assert_array_equal(result.time[s], alone.time[0])


@pytest.mark.parametrize("capacity", [1, 3, 100])
def test_the_size_of_a_chunk_does_not_matter(capacity, float64, monkeypatch):
    expected = train_one(BASE)
    monkeypatch.setattr(training, "CAPACITY", capacity)
    result = train_one(BASE)
    assert_close(result.params, expected.params)
    assert_close(result.metrics, expected.metrics)


def test_runs_of_different_programs_come_back_in_order():
    runs = [replace(BASE, outer=m.settings(lr=0.1)) for m in METHODS.values()] + [
        with_cluster(BASE, sec_per_step=EQUAL)
    ]
    for run, result in zip(runs, train(runs, [0, 1]), strict=True):
        assert result.run is run
        assert result.metrics["loss"].shape == (2, 7)


@dataclass(frozen=True)
class CountingTask(GaussianMixture):
    """Counts how often its loss is traced."""

    traces: ClassVar[list] = []

    def loss(self, params, batch):
        self.traces.append(1)
        return super().loss(params, batch)


def test_moving_a_number_does_not_recompile(caplog):
    task = CountingTask(TASK)
    run = replace(BASE, outer=DelayedNesterov(lr=0.1))
    train(run, [0, 1], task=task)
    before = len(task.traces)
    assert before > 0
    moved = [
        replace(run, outer=DelayedNesterov(lr=0.3, momentum=0.5, period=2, activation=0.1, scale="1/k")),
        replace(run, inner=InnerAdamW(lr=1e-3, warmup=2, b1=0.5, weight_decay=0.0, decay_steps=9, reset=True)),
        with_cluster(run, sec_per_step=(1.0, 2.0, 3.0, 40.0), grace=3.0),
        with_cluster(run, dynamic_steps=True, local_steps=11, sharding="least_visited"),
        with_cluster(run, barrier=True),
        replace(run, budget=Budget(rounds=9, evaluations=6)),
    ]
    with caplog.at_level("WARNING"), jax.log_compiles():
        for changed in moved:
            train(changed, [4, 5], task=task)
        assert len(task.traces) == before and not compiled(caplog)
        train(with_cluster(run, sec_per_step=EQUAL + EQUAL), [0, 1], task=task)
        assert len(task.traces) > before and compiled(caplog)  # a shape does


def compiled(caplog):
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith("Compiling")]


def test_a_diverged_lane_is_marked_and_leaves_the_others_alone():
    wild = replace(BASE, outer=Nesterov(lr=1e30))
    calm, burst = train([BASE, wild], [0, 1])
    assert burst.diverged.all() and not calm.diverged.any()
    np.testing.assert_array_equal(calm.metrics["loss"], train([BASE, BASE], [0, 1])[0].metrics["loss"])
    np.testing.assert_array_equal(burst.final_loss, burst.metrics["loss"][:, 0])


def test_seeds_differ_and_methods_share_them():
    a, b = train([BASE, replace(BASE, outer=Nesterov(lr=0.0))], [0, 1])
    np.testing.assert_array_equal(a.metrics["loss"][:, 0], b.metrics["loss"][:, 0])
    assert a.metrics["loss"][0, 0] != a.metrics["loss"][1, 0]
    assert (b.metrics["loss"] == b.metrics["loss"][:, :1]).all()


def test_any_optax_optimizer_is_an_outer_optimizer():
    result = train_one(BASE, outer=optax.adamw(0.01))
    assert np.isfinite(result.final_loss).all()
    assert_close(result.params, train_one(BASE, outer=as_outer(optax.adamw(0.01))).params, 1e-6)


def test_inner_and_outer_of_ones_own_together():
    result = train_one(
        BASE, inner=InnerOptimizer(optax.sgd(1.0), lambda shard_step, visit_step: 1e-2), outer=optax.sgd(0.5)
    )
    assert result.final_loss[0] < result.metrics["loss"][0, 0]
    assert set(result.custom) == {"inner", "outer"}


def test_a_task_of_ones_own_stands_in_the_run():
    assert_close(train_one(replace(BASE, task=GaussianMixture(TASK))).params, train_one(BASE).params, 0)


@dataclass(frozen=True)
class SameForAll(GaussianMixture):
    """The toy with one data set for every seed, made in the compiled program."""

    def data(self, key, shards):
        return super().data(jax.random.key(7), shards)


@dataclass(frozen=True)
class OnHost(SameForAll):
    """The same, handed in from the host, once for all seeds; a seed's own data are nothing."""

    def data(self, key, shards):
        return {}

    def host_data(self, shards):
        return jax.device_get(SameForAll(self.settings).data(None, shards))

    def batch(self, data, shard, step):
        assert data[0] == {}
        return super().batch(data[1], shard, step)

    def evaluate(self, params, data):
        return super().evaluate(params, data[1])


def test_data_on_the_host_are_shared_by_all_seeds(float64):
    runs = [replace(BASE, outer=replace(BASE.outer, lr=lr)) for lr in (0.1, 0.2)]
    inside, outside = (train(runs, [0, 1, 2], task=task(TASK)) for task in (SameForAll, OnHost))
    for ours, theirs in zip(outside, inside):
        assert_close((ours.metrics, ours.params), (theirs.metrics, theirs.params))
    each, once = footprint(SameForAll(TASK), 4, 4), footprint(OnHost(TASK), 4, 4)
    assert once == (0, each.lane, each.seed) and once.of(5, 1) == each.of(1, 1)
    check_task(OnHost(TASK))


def test_data_on_the_host_are_no_constants_of_a_compiled_program(float64):
    """Neither of the engine's nor of the plain loop's: jax warns of programs with more than so many bytes of them."""
    before = jax.config.jax_captured_constants_warn_bytes
    data = OnHost(TASK).host_data(4)
    jax.config.update("jax_captured_constants_warn_bytes", 10_000)
    try:
        with pytest.warns(UserWarning, match="constants were captured"):
            jax.jit(lambda i: jnp.asarray(data["x"])[0, i]).lower(0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result, alone = train_one(replace(BASE, task=OnHost(TASK))), replay_one(replace(BASE, task=OnHost(TASK)))
    finally:
        jax.config.update("jax_captured_constants_warn_bytes", before)
    assert_close(alone.params, first(result.params))


def test_the_weight_on_pseudo_gradients_is_for_asynchronous_ones(float64):
    sync = with_cluster(BASE, barrier=True)
    assert_close(train_one(replace(sync, outer=Nesterov(lr=0.2, scale="1/k"))).params, train_one(sync).params, 0)
    with pytest.raises(AssertionError):
        assert_close(train_one(replace(BASE, outer=Nesterov(lr=0.2, scale="1/k"))).params, train_one(BASE).params)


@pytest.mark.parametrize("seeds", [[], [-1], [0.5], [2**31], [0, 0], [True]])
def test_seeds_that_cannot_be(seeds):
    with pytest.raises(ConfigError, match="seeds"):
        train(BASE, seeds)


def test_any_optax_optimizer_is_an_inner_optimizer():
    inner = InnerOptimizer(optax.lion(1.0), lambda shard_step, visit_step: jnp.asarray(1e-3))
    assert train_one(BASE, inner=inner).final_loss[0] < train_one(BASE, inner=inner).metrics["loss"][0, 0]


@pytest.mark.parametrize("warmup", [0, 10])
def test_learning_rate_of_equation_3(warmup):
    rate = warmup_cosine(1.0, 0.1, warmup, 110)
    rates = [float(rate(jnp.int32(t), jnp.int32(1))) for t in (0, 5, 10, 60, 110, 500)]
    cosine = [0.1 + 0.45 * (1 + np.cos(np.pi * (t - warmup) / (110 - warmup))) for t in (0, 5, 10, 60)]
    expected = [0.0, 0.5, *cosine[2:], 0.1, 0.1] if warmup else [*cosine, 0.1, 0.1]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_the_first_step_of_a_visit_can_run_at_the_peak():
    rate = warmup_cosine(1.0, 0.0, 0, 100, True)
    assert rate(jnp.int32(50), jnp.int32(0)) == 1.0
    assert abs(rate(jnp.int32(50), jnp.int32(1)) - 0.5) < 1e-6


def test_local_update_stops_at_its_steps_in_a_longer_loop(float64):
    task, inner = GaussianMixture(TASK), make_inner("adamw", inner_numbers(BASE))
    data, params = task.data(jax.random.key(0), 2), task.init(jax.random.key(1))
    visit = partial(
        local_update, task, inner, params, inner.transformation.init(params), lambda j: task.batch(data, 0, j)
    )
    short = visit(0, 3)
    padded = visit(0, 3, trip=9)
    assert_close(short, padded, 1e-12)


def test_pseudo_gradients_point_downhill():
    """A plain outer step of rate 1 on one visit's pseudo-gradient lands where the worker did."""
    run = replace(with_cluster(BASE, sec_per_step=(1.0,)), outer=SGD(lr=1.0))
    assert train_one(run).metrics["loss"][0, -1] < train_one(run).metrics["loss"][0, 0]
    assert not np.allclose(train_one(replace(run, outer=Momentum(lr=1.0))).params["output"]["bias"], 0)


def test_dropping_compiled_programs_changes_no_bit(monkeypatch):
    """Programs hold memory maps, which a process has only so many of: they are dropped now and then, and come back."""
    runs = [replace(BASE, outer=METHODS[name].settings(lr=0.1)) for name in ("sgd", "nesterov", "poly", "sgd")]
    kept = [train(run, [3])[0] for run in runs]
    drops = []
    clear = jax.clear_caches
    monkeypatch.setattr(training, "MOST_PROGRAMS", 2)
    monkeypatch.setattr(training, "_compiled", set())
    monkeypatch.setattr(jax, "clear_caches", lambda: (drops.append(None), clear()))
    again = [train(run, [3])[0] for run in runs]
    assert len(drops) >= 1
    for ours, theirs in zip(again, kept):
        np.testing.assert_array_equal(ours.metrics["loss"], theirs.metrics["loss"])
