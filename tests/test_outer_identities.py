"""Outer methods: identities between them, and how they are built."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.test_outer import EXAMPLES, WORKERS, bits, random_arrivals, run_arrivals
from toybench.config import Budget, Cluster, ConfigError, Gaussians, InnerAdamW, Run
from toybench.outer import MARKS, METHODS, OuterOptimizer, as_outer, make_outer, outer_builder, outer_numbers
from toybench.outer.autocorrelation import Autocorrelation
from toybench.outer.base import scaled
from toybench.outer.buffered import Buffered
from toybench.outer.delay_compensation import DelayCompensation
from toybench.outer.delayed_nesterov import DelayedNesterov
from toybench.outer.fedasync import FedAsync, FedAsyncHinge
from toybench.outer.fedbuff import FedBuff
from toybench.outer.halos import HALoS
from toybench.outer.heloco import HeLoCo, corrected
from toybench.outer.momentum_look_ahead import MLA
from toybench.outer.ormo import OrMo
from toybench.outer.restarts import RestartedNesterov
from toybench.outer.ringmaster import REACH, Ringmaster
from toybench.outer.sgd import SGD, Control, Momentum, Nesterov
from toybench.outer.staleness import DelayAdaptive, Poly, PolyThreshold
from toybench.timeline import simulate

# Identities between methods.


def final(settings, gradients, theta=None, workers=WORKERS, **kwargs):
    """The last parameters of a run from zero."""
    theta = np.zeros_like(gradients[0]) if theta is None else theta
    return run_arrivals(make_outer(settings, workers), theta, gradients, **kwargs)[0].params


@pytest.mark.parametrize(
    "settings",
    [Buffered(lr=0.1, period=1), *(DelayedNesterov(lr=0.1, period=1, activation=c) for c in (0.0, 0.3, 1.0))],
    ids=lambda s: f"{type(s).__name__}-{getattr(s, 'activation', '')}",
)
def test_period_one_is_nesterov(settings, float64):
    theta, gradients, staleness, pulled = random_arrivals()
    arrivals = {"theta": theta, "staleness": staleness, "pulled": pulled}
    np.testing.assert_allclose(
        final(settings, gradients, **arrivals), final(Nesterov(lr=0.1), gradients, **arrivals), rtol=1e-12
    )


@pytest.mark.parametrize("settings", [Poly(lr=0.1), PolyThreshold(lr=0.1, threshold=0), DelayCompensation(lr=0.1)])
def test_fresh_arrivals_leave_nesterov(settings, float64):
    """Staleness 0 weighs 1, and without drift there is nothing to compensate."""
    theta, gradients, _, _ = random_arrivals()
    np.testing.assert_allclose(final(settings, gradients, theta), final(Nesterov(lr=0.1), gradients, theta), rtol=1e-12)


@pytest.mark.parametrize(
    "settings, plain",
    [
        (MLA(lr=0.1, momentum=0.0), SGD(lr=0.1)),
        (FedBuff(lr=0.1, exponent=0.0, buffer_size=1), SGD(lr=0.1)),
        (FedBuff(lr=0.1, exponent=0.0, buffer_size=4), Buffered(lr=0.1, momentum=0.0, period=4)),
        (FedBuff(lr=0.1, exponent=0.5, buffer_size=1), Poly(lr=0.1, momentum=0.0, exponent=0.5)),
        (FedAsync(lr=0.1, exponent=0.0), FedAsyncHinge(lr=0.1, slope=0.0)),
        (DelayAdaptive(lr=0.1, patience=5), SGD(lr=0.1)),  # no arrival is staler
        (Ringmaster(lr=0.1, delay_threshold=REACH), SGD(lr=0.1)),
        (RestartedNesterov(lr=0.1, restart_period=1000), Nesterov(lr=0.1)),
        (RestartedNesterov(lr=0.1, momentum=0.9, restart_period=1), SGD(lr=0.19)),
        (OrMo(lr=0.1, momentum=0.0), SGD(lr=0.1)),
        (HeLoCo(lr=0.1, max_shrink=0.0, turn=0.0), MLA(lr=0.1)),  # but for what workers are handed
        (Control(lr=0.1, momentum=0.8), Nesterov(lr=0.1, momentum=0.8)),
    ],
    ids=lambda s: type(s).__name__,
)
def test_limit_cases(settings, plain, float64):
    """Whatever the staleness and the drift."""
    theta, gradients, staleness, pulled = random_arrivals()
    arrivals = {"theta": theta, "staleness": staleness, "pulled": pulled}
    np.testing.assert_allclose(final(settings, gradients, **arrivals), final(plain, gradients, **arrivals), rtol=1e-12)


@pytest.mark.parametrize("settings", [FedAsync(lr=0.1), FedAsyncHinge(lr=0.1)], ids=lambda s: type(s).__name__)
def test_mixing_without_delay_is_sgd(settings, float64):
    theta, gradients, _, _ = random_arrivals()
    np.testing.assert_allclose(final(settings, gradients, theta), final(SGD(lr=0.1), gradients, theta), rtol=1e-12)


def test_fedbuff_counts_staleness_in_its_own_steps():
    """Buffer of two: pulled at the start, arrivals 0 and 1 are fresh, 2 and 3 one step late."""
    outer = make_outer(FedBuff(lr=1.0, buffer_size=2), WORKERS)
    _, path = run_arrivals(outer, np.float32(0), np.ones(4, np.float32), staleness=np.arange(4))
    np.testing.assert_allclose(path, [0, -1, -1, -1 - 2**-0.5], rtol=1e-6)


def test_ringmaster_counts_accepted_arrivals_only():
    """R = 1 and every pull at the start: the first arrival is accepted, and makes all others late."""
    g = np.ones(6, np.float32)
    _, path = run_arrivals(make_outer(Ringmaster(lr=1.0, delay_threshold=1), WORKERS), np.float32(0), g, np.arange(6))
    assert path.tolist() == [-1] * 6
    # Pulled after the first arrival, nothing has been accepted since: all the ignored ones do not count.
    staleness = np.array([0, 1, 2, 3, 4, 4])
    _, path = run_arrivals(make_outer(Ringmaster(lr=1.0, delay_threshold=1), WORKERS), np.float32(0), g, staleness)
    assert path.tolist() == [-1] * 5 + [-2]


@pytest.mark.parametrize("back, accepted", [(REACH - 1, True), (REACH, False)])
def test_ringmaster_ignores_what_lies_beyond_its_reach(back, accepted):
    """An arrival of no delay, pulled after the first one, comes after ever so many that were ignored."""
    staleness = np.array([0, *range(1, back + 1), back])
    outer = make_outer(Ringmaster(lr=1.0, delay_threshold=1), WORKERS)
    server, _ = run_arrivals(outer, np.float32(0), np.ones(len(staleness), np.float32), staleness)
    assert server.params == (-2 if accepted else -1)


def test_autocorrelation_at_half_is_sgd(float64):
    """Every pseudo-gradient at 60° to the one before: the cosine stays ½ and the gain 1."""
    angle = np.pi / 3 * np.arange(12)
    gradients = np.random.default_rng(0).uniform(1, 2, (12, 1)) * np.stack([np.cos(angle), np.sin(angle)], 1)
    np.testing.assert_allclose(
        final(Autocorrelation(lr=0.1), gradients), final(SGD(lr=0.1), gradients), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("sign, gain", [(1, 1.2), (-1, 0.8)])
def test_autocorrelation_stays_between_its_ends(sign, gain, float64):
    """Which lie within the published clamp to [½, 2]."""
    gradients = np.float64(sign) ** np.arange(60)
    _, path = run_arrivals(make_outer(Autocorrelation(lr=1.0), WORKERS), np.zeros(()), gradients)
    np.testing.assert_allclose(abs(path[-1] - path[-2]), gain, rtol=1e-12)


def test_autocorrelation_measures_over_all_parameters(float64):
    """Leaves of a tree are one vector."""
    gradients = np.random.default_rng(2).normal(size=(9, 6))
    tree = {"a": gradients[:, :2], "b": gradients[:, 2:].reshape(9, 2, 2)}
    whole = final(Autocorrelation(lr=0.1), gradients)
    parts = final(Autocorrelation(lr=0.1), tree, theta={"a": np.zeros(2), "b": np.zeros((2, 2))})
    np.testing.assert_allclose(np.concatenate([parts["a"], parts["b"].ravel()]), whole, rtol=1e-12)


def unequal_arrivals(grace):
    """A simulated cluster's staleness [E] and the arrivals taken at each pull [E]."""
    cluster = Cluster(sec_per_step=(0.58, 0.75, 1.51, 3.33), local_steps=5, grace=grace)
    timeline = simulate(cluster, Budget(rounds=10), seed=0)
    return timeline.staleness, timeline.pulled_at


@pytest.mark.parametrize("grace", [0.0, 1.0])
def test_ordered_momentum_is_heavy_ball_on_the_groups(grace, float64):
    """After every arrival: heavy ball on the sums, so far, of the groups of jobs, in the order of the groups."""
    lr, beta = 0.1, 0.8
    staleness, job = unequal_arrivals(grace)
    gradients = np.random.default_rng(3).normal(size=(len(job), 5))
    _, path = run_arrivals(make_outer(OrMo(lr=lr, momentum=beta), WORKERS), np.zeros(5), gradients, staleness)
    groups = np.ceil(job / WORKERS).astype(int)
    for e in range(len(job)):
        theta, m = np.zeros(5), np.zeros(5)
        for group in range(int(np.ceil(e / WORKERS)) + 1):
            m = beta * m + gradients[: e + 1][groups[: e + 1] == group].sum(0)
            theta = theta - lr * m
        np.testing.assert_allclose(path[e], theta, rtol=1e-9, atol=1e-12)


def test_jobs_are_numbered_as_ordered_momentum_needs():
    """0 for the first k jobs, t + 1 for that given out after arrival t, as long as workers restart on their own."""
    staleness, pulled_at = unequal_arrivals(grace=0.0)
    assert (np.arange(len(staleness)) - staleness == pulled_at).all()
    assert (pulled_at == 0).sum() == WORKERS
    assert len(set(pulled_at[pulled_at > 0])) == (pulled_at > 0).sum()


def test_ordered_momentum_of_one_worker_is_heavy_ball(float64):
    theta, gradients, _, _ = random_arrivals()
    ordered, plain = (final(s, gradients, theta, workers=1) for s in (OrMo(lr=0.1), Momentum(lr=0.1)))
    np.testing.assert_allclose(ordered, plain, rtol=1e-12)


def test_halos_that_merges_at_every_arrival_is_its_local_server(float64):
    """One local server, K = 1, α = 1, and a global server that takes what it gets."""
    theta, gradients, _, _ = random_arrivals()
    below = {"local_lr": 0.2, "local_momentum": 0.8, "local_period": 3}
    settings = HALoS(lr=1.0, momentum=0.0, global_period=1, merge_every=1, merge_weight=1.0, **below)
    plain = DelayedNesterov(lr=0.2, momentum=0.8, period=3)
    np.testing.assert_allclose(final(settings, gradients, theta), final(plain, gradients, theta), rtol=1e-12)


def test_halos_that_forwards_everything_is_its_global_server(float64):
    theta, gradients, _, _ = random_arrivals()
    below = {"local_lr": 1.0, "local_momentum": 0.0, "local_period": 1}
    settings = HALoS(lr=0.2, momentum=0.8, global_period=3, merge_every=1, **below)
    plain = DelayedNesterov(lr=0.2, momentum=0.8, period=3)
    np.testing.assert_allclose(final(settings, gradients, theta), final(plain, gradients, theta), rtol=1e-12)


def test_halos_hands_out_the_local_parameters():
    """Before the first merge the global ones stand still, and each local server has moved on its own."""
    outer = make_outer(HALoS(local_lr=1.0, local_momentum=0.0, local_period=1, local_servers=2), WORKERS)
    server, path = run_arrivals(outer, np.float32(0), np.array([1, 10, 1, 10], np.float32))
    assert path.tolist() == [0] * 4
    assert [float(outer.pull(server.outer_state, server.params, w)) for w in range(WORKERS)] == [-2, -20, -2, -20]


def test_heloco_hands_out_a_point_ahead(float64):
    """θ − ημm, with the m of momentum look-ahead."""
    g = np.array([[1.0, -2.0]])
    outer = make_outer(HeLoCo(lr=0.1, momentum=0.8), WORKERS)
    server, _ = run_arrivals(outer, np.zeros(2), g)
    np.testing.assert_allclose(
        outer.pull(server.outer_state, server.params, 0), server.params - 0.1 * 0.8 * 0.2 * g[0], rtol=1e-12
    )


@pytest.mark.parametrize("cosine", [0.9, 0.2, 0.1, 0.0, -0.1, -0.9])
def test_heloco_keeps_turns_or_damps(cosine, float64):
    """By the cosine to the momentum, along the first axis: the part across it is new, and is never damped."""
    given, m = 2.0 * np.array([cosine, np.sqrt(1 - cosine**2)]), np.array([3.0, 0.0])
    defaults = {key: value for key, value in vars(HeLoCo()).items() if key not in ("lr", "momentum", "scale")}
    mended = np.asarray(corrected(jnp.asarray(given), jnp.asarray(m), **defaults))
    if cosine >= 0.2:
        np.testing.assert_array_equal(mended, given)
    elif cosine >= 0:
        np.testing.assert_allclose(np.linalg.norm(mended), 2.0, rtol=1e-7)
        assert mended[0] > given[0]
    else:
        np.testing.assert_allclose(mended[1], given[1], rtol=1e-12)
        share = min(0.5 * -cosine * 2 / (2 + 3 * 3 + 1e-8), 0.5)
        np.testing.assert_allclose(mended[0], (1 - share) * given[0], rtol=1e-12)


def test_poly_threshold_drops_above_the_threshold():
    """The dropped arrivals might as well not have come, for parameters and momentum both."""
    theta, gradients, _, _ = random_arrivals(dtype=np.float32)
    staleness = np.arange(20) % 3 + 9  # 9, 10, 11, the threshold being 10
    kept = staleness <= 10
    outer = make_outer(PolyThreshold(lr=0.1), WORKERS)
    all_of_them, path = run_arrivals(outer, theta, gradients, staleness)
    only_kept, _ = run_arrivals(outer, theta, gradients[kept], staleness[kept])
    assert bits(all_of_them) == bits(only_kept)
    moved = np.any(np.diff(np.concatenate([theta[None], path]), axis=0) != 0, axis=1)
    assert moved.tolist() == kept.tolist()


def test_sequential_momentum_gain(float64):
    """Eq. 5: four equal pseudo-gradients one by one move 12.14 εg, their mean 1.9 εg."""
    lr, beta, g = 0.1, 0.9, np.ones((4, 1))
    server, _ = run_arrivals(make_outer(Nesterov(lr=lr, momentum=beta), WORKERS), np.zeros(1), g)
    displacement = -float(server.params[0]) / lr
    assert displacement == pytest.approx(4 + 4 * beta + 3 * beta**2 + 2 * beta**3 + beta**4, rel=1e-12)
    assert round(displacement, 2) == 12.14
    (m,) = [leaf for leaf in jax.tree.leaves(server.outer_state) if leaf.shape == (1,)]
    np.testing.assert_allclose(m, 1 + beta + beta**2 + beta**3, rtol=1e-12)
    averaged = final(Nesterov(lr=lr, momentum=beta), g, step=np.arange(4) == 3)
    np.testing.assert_allclose(-averaged / lr, 1.9, rtol=1e-12)


@pytest.mark.parametrize("settings", [DelayedNesterov(lr=0.1), Buffered(lr=0.1)], ids=lambda s: type(s).__name__)
def test_a_full_buffer_is_one_synchronous_step(settings, float64):
    """N = k and c = 0: whatever the k pseudo-gradients, after them stands Nesterov's step on their mean."""
    theta, gradients, _, _ = random_arrivals(count=5 * WORKERS)
    rounds = np.arange(5 * WORKERS) % WORKERS == WORKERS - 1
    _, path = run_arrivals(make_outer(settings, WORKERS), theta, gradients)
    _, synchronous = run_arrivals(make_outer(Nesterov(lr=0.1), WORKERS), theta, gradients, step=rounds)
    np.testing.assert_allclose(path[rounds], synchronous[rounds], rtol=1e-12)


@pytest.mark.parametrize(
    "settings, synchronous, expected",
    [
        (SGD(lr=0.1), False, 1),
        (Momentum(lr=0.1), False, 10),
        (Nesterov(lr=0.1), False, 10),
        (Nesterov(lr=0.1, scale="1/sqrt(k)"), False, 10 / WORKERS**0.5),
        (Nesterov(lr=0.1), True, 10 / WORKERS),
        (Buffered(lr=0.1), False, 10 / WORKERS),
        (Buffered(lr=0.1, period=2), False, 10 / 2),
        (DelayedNesterov(lr=0.1), False, 10 / WORKERS),
        (DelayedNesterov(lr=0.1, period=2, activation=0.5), False, 10 / 2),
        (MLA(lr=0.1), False, 1.9),
        (HeLoCo(lr=0.1), False, 1.9),
        (OrMo(lr=0.1), False, 10),
        (OrMo(lr=0.1), True, 10 / WORKERS),
        (FedBuff(lr=0.1, buffer_size=2), False, 1 / 2),
        (Autocorrelation(lr=0.1), False, 1.2),
    ],
)
def test_steady_displacement(settings, synchronous, expected, float64):
    """Section 4: what one arrival of a constant g moves in the long run, in units of εg."""
    count = 400 * WORKERS
    step = np.arange(count) % WORKERS == WORKERS - 1 if synchronous else None
    _, path = run_arrivals(make_outer(settings, WORKERS, synchronous), np.zeros(()), np.ones(count), step=step)
    assert float(path[-1 - WORKERS] - path[-1]) / WORKERS / 0.1 == pytest.approx(expected, rel=1e-9)


def test_server_steps_on_the_mean_of_a_round():
    g, step = np.array([1.0, 2.0, 6.0, 10.0], np.float32), [False, False, True, True]
    server, path = run_arrivals(make_outer(SGD(lr=1.0), 3), np.float32(0), g, step=step)
    assert path.tolist() == [0, 0, -3, -13]
    assert server.count == 0 and server.total == 0


# Building: defaults, warnings, strangers.


OPEN = {(m.settings, key) for m in METHODS.values() for key, value in vars(m.settings()).items() if value is None}


@pytest.mark.parametrize("settings, name", sorted(OPEN, key=str), ids=lambda x: getattr(x, "__name__", x))
def test_what_is_left_open_is_the_number_of_workers(settings, name):
    theta, gradients, _, _ = random_arrivals()
    for workers in (3, 8):
        explicit = settings(**{name: workers})
        assert outer_numbers(settings(), workers) == outer_numbers(explicit, workers)
        assert bits(final(settings(), gradients, theta, workers)) == bits(final(explicit, gradients, theta, workers))


def test_with_a_barrier_a_round_is_one_job():
    assert outer_numbers(OrMo(), 8, barrier=True)["group_size"] == 1
    assert outer_numbers(OrMo(group_size=3), 8, barrier=True)["group_size"] == 3


def test_halos_warns_of_local_servers_that_never_learn():
    cluster = {"cluster": Cluster(barrier=True), "outer": HALoS(local_servers=2)}
    with pytest.warns(UserWarning, match="outer.local_servers"):
        Run(task=Gaussians(), inner=InnerAdamW(), budget=Budget(), **cluster)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HALoS(local_servers=2).check(4)
        HALoS().check(4, barrier=True)


def test_delayed_nesterov_warns_above_one_over_n():
    with pytest.warns(UserWarning, match=r"outer.activation: 0.1 is above 1/N = 0.0625"):
        DelayedNesterov(period=16, activation=0.1).check(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DelayedNesterov(period=10, activation=0.1).check(4)


def test_delayed_nesterov_warns_above_one_over_the_workers():
    with pytest.warns(UserWarning, match="above 1/N"):
        make_outer(DelayedNesterov(activation=0.1), 16)


@pytest.mark.parametrize("c", [-0.1, 1.1, float("nan")])
def test_delayed_nesterov_refuses_an_activation_outside_zero_to_one(c):
    with pytest.raises(ConfigError, match="activation"):
        DelayedNesterov(activation=c)


def test_any_optax_optimizer_is_an_outer_optimizer():
    theta, gradients, staleness, pulled = random_arrivals(dtype=np.float32)
    for optimizer in (optax.adamw(0.1), optax.lion(0.1)):
        outer = as_outer(optimizer)
        server, _ = run_arrivals(outer, theta, gradients, staleness, pulled)
        params, state = theta, optimizer.init(theta)
        for g in gradients:
            updates, state = optimizer.update(g, state, params)
            params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(server.params, params, rtol=1e-5)
        assert outer.pull(server.outer_state, server.params, 0) is server.params


def test_a_method_of_ones_own_keeps_its_pull():
    def look_ahead(state, params, worker):
        return params - 1.0

    optimizer = optax.sgd(0.1)
    own = as_outer(OuterOptimizer(optimizer.init, optimizer.update, look_ahead))
    assert own.pull is look_ahead
    assert as_outer(own) is own


def test_a_scaled_method_keeps_its_pull():
    def look_ahead(state, params, worker):
        return params - 1.0

    optimizer = optax.sgd(0.1)
    halved = scaled(OuterOptimizer(optimizer.init, optimizer.update, look_ahead), 0.5)
    theta, gradients, _, _ = random_arrivals(dtype=np.float32)
    assert halved.pull is look_ahead
    server, _ = run_arrivals(halved, theta, gradients)
    np.testing.assert_allclose(server.params, theta - 0.05 * gradients.sum(0), rtol=1e-5)


def test_builders_are_shared():
    """Equal names give the same object, so that compiled programs are found again."""
    assert outer_builder("poly") is outer_builder("poly")
    assert outer_builder("poly") is not outer_builder("nesterov")


def test_every_method_says_what_it_is():
    assert set(EXAMPLES) == set(METHODS)
    assert len({method.settings for method in METHODS.values()}) == len(METHODS)
    assert all(method.formula and method.source and method.mark in MARKS for method in METHODS.values())
