"""Outer methods: NumPy twins written from published formulas, and one law table for all."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toybench.config import Outer
from toybench.outer import METHODS, make_outer, outer_builder, outer_numbers
from toybench.outer.adam import Adam, AdamW
from toybench.outer.autocorrelation import Autocorrelation
from toybench.outer.buffered import Buffered
from toybench.outer.delay_compensation import DelayCompensation
from toybench.outer.delayed_nesterov import DelayedNesterov
from toybench.outer.fedasync import FedAsync, FedAsyncHinge
from toybench.outer.fedbuff import FedBuff
from toybench.outer.halos import HALoS
from toybench.outer.heloco import HeLoCo
from toybench.outer.momentum_look_ahead import MLA
from toybench.outer.ormo import OrMo
from toybench.outer.restarts import RestartedNesterov
from toybench.outer.ringmaster import Ringmaster
from toybench.outer.sgd import SGD, Control, Momentum, Nesterov
from toybench.outer.staleness import DelayAdaptive, Poly, PolyThreshold
from toybench.server import apply_arrival, open_server

WORKERS = 4

# Every number away from its default, so that each one must take part.
EXAMPLES: dict[str, Outer] = {
    "sgd": SGD(lr=0.3),
    "momentum": Momentum(lr=0.2, momentum=0.8),
    "nesterov": Nesterov(lr=0.2, momentum=0.8),
    "adam": Adam(lr=0.05, b1=0.8, b2=0.95, eps=1e-2),
    "adamw": AdamW(lr=0.05, b1=0.8, b2=0.95, eps=1e-2, weight_decay=0.3),
    "poly": Poly(lr=0.2, momentum=0.8, exponent=0.7),
    "poly_threshold": PolyThreshold(lr=0.2, momentum=0.8, exponent=0.7, threshold=3),
    "delay_compensation": DelayCompensation(lr=0.2, momentum=0.8, strength=0.6),
    "buffered": Buffered(lr=0.2, momentum=0.8, period=3),
    "delayed_nesterov": DelayedNesterov(lr=0.2, momentum=0.8, period=3, activation=0.2),
    "mla": MLA(lr=0.2, momentum=0.8),
    "heloco": HeLoCo(lr=0.2, momentum=0.8, keep_above=0.3, shrink=0.7, max_shrink=0.2, turn=0.8, momentum_weight=2.0),
    "fedasync": FedAsync(lr=0.3, exponent=0.7),
    "fedasync_hinge": FedAsyncHinge(lr=0.3, slope=2.0, hinge=2),
    "fedbuff": FedBuff(lr=0.3, exponent=0.7, buffer_size=3),
    "delay_adaptive": DelayAdaptive(lr=0.3, patience=2),
    "ringmaster": Ringmaster(lr=0.3, delay_threshold=2),
    "restarted_nesterov": RestartedNesterov(lr=0.2, momentum=0.8, restart_period=3),
    "autocorrelation": Autocorrelation(lr=0.3),
    "ormo": OrMo(lr=0.2, momentum=0.8, group_size=3),
    "halos": HALoS(
        lr=0.4,
        momentum=0.6,
        global_period=3,
        local_servers=3,
        local_lr=0.5,
        local_momentum=0.8,
        local_period=2,
        merge_every=2,
        merge_weight=0.3,
    ),
    "control": Control(lr=0.2, momentum=0.8),
}
every_method = pytest.mark.parametrize("name", METHODS)


def with_settings(name, **changes):
    """The example of a method with some settings changed."""
    return type(EXAMPLES[name])(**{**vars(EXAMPLES[name]), **changes})


def run_arrivals(outer, theta, gradients, staleness=None, pulled=None, step=None):
    """Apply pseudo-gradients [E, ...] one by one; the last server, and the parameters after each arrival.

    The workers take turns. Left out, `staleness` is 0, `pulled` the parameters at the arrival (no drift), and `step`
    true.
    """
    count = len(jax.tree.leaves(gradients)[0])

    def body(server, row):
        e, g, tau, at, go = row
        at = server.params if pulled is None else at
        who = {"worker": e % WORKERS, "num_steps": 5, "arrival": e, "dispatch": e - tau}
        server = apply_arrival(outer, server, g, step=go, staleness=tau, pulled_params=at, **who)
        return server, server.params

    defaults = {"tau": np.zeros(count, int), "at": np.zeros(count), "go": np.ones(count, bool)}
    given = {"tau": staleness, "at": pulled, "go": step}
    columns = (jnp.asarray(defaults[key] if value is None else value) for key, value in given.items())
    return jax.lax.scan(body, open_server(outer, theta), (jnp.arange(count), gradients, *columns))


def random_arrivals(seed=0, count=20, dtype=np.float64):
    """Parameters, and pseudo-gradients [E, 5], staleness [E] up to 5 and pulled parameters [E, 5]."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=5).astype(dtype),
        rng.normal(size=(count, 5)).astype(dtype),
        np.minimum(rng.integers(0, 6, count), np.arange(count)),
        rng.normal(size=(count, 5)).astype(dtype),
    )


class Arrival(NamedTuple):
    """What a twin is told of an arrival."""

    number: int
    worker: int
    staleness: int
    pulled: np.ndarray


# Twins: (settings, memory, θ, g, arrival) -> θ. `memory` is what the method keeps between arrivals.


def twin_sgd(s, memory, theta, g, at):
    return theta - s.lr * g


def twin_momentum(s, memory, theta, g, at):
    memory["m"] = s.momentum * memory.get("m", 0.0) + g
    return theta - s.lr * memory["m"]


def twin_nesterov(s, memory, theta, g, at):
    memory["m"] = s.momentum * memory.get("m", 0.0) + g
    return theta - s.lr * (g + s.momentum * memory["m"])


def twin_adam(s, memory, theta, g, at):
    t = memory["t"] = memory.get("t", 0) + 1
    memory["m"] = s.b1 * memory.get("m", 0.0) + (1 - s.b1) * g
    memory["v"] = s.b2 * memory.get("v", 0.0) + (1 - s.b2) * g**2
    return theta - s.lr * (memory["m"] / (1 - s.b1**t)) / (np.sqrt(memory["v"] / (1 - s.b2**t)) + s.eps)


def twin_adamw(s, memory, theta, g, at):
    return twin_adam(s, memory, theta, g, at) - s.lr * s.weight_decay * theta


def twin_poly(s, memory, theta, g, at):
    return twin_nesterov(s, memory, theta, (1 + at.staleness) ** -s.exponent * g, at)


def twin_poly_threshold(s, memory, theta, g, at):
    return theta if at.staleness > s.threshold else twin_poly(s, memory, theta, g, at)


def twin_delay_compensation(s, memory, theta, g, at):
    return twin_nesterov(s, memory, theta, g + s.strength * g * g * (theta - at.pulled), at)


def twin_buffered(s, memory, theta, g, at):
    waiting = memory.setdefault("waiting", [])
    waiting.append(g)
    if len(waiting) < (s.period or WORKERS):
        return theta
    mean = sum(waiting) / len(waiting)
    waiting.clear()
    return twin_nesterov(s, memory, theta, mean, at)


def twin_delayed_nesterov(s, memory, theta, g, at):
    period, c = s.period or WORKERS, s.activation
    t = memory["t"] = memory.get("t", -1) + 1
    memory["buffer"] = memory.get("buffer", 0.0) + g
    if (t + 1) % period:
        return theta - s.lr * (c * s.momentum * memory.get("m", 0.0) + g / period)
    memory["m"] = s.momentum * memory.get("m", 0.0) + memory["buffer"] / period
    memory["buffer"] = 0.0
    return theta - s.lr * ((1 - c * period + c) * s.momentum * memory["m"] + g / period)


twin_control = twin_nesterov


def twin_mla(s, memory, theta, g, at):
    memory["m"] = s.momentum * memory.get("m", 0.0) + (1 - s.momentum) * g
    return theta - s.lr * (s.momentum * memory["m"] + g)


def twin_heloco(s, memory, theta, g, at):
    m = memory.get("m", np.zeros_like(g))
    size, momentum_size = np.linalg.norm(g), np.linalg.norm(m)
    if size < 1e-8 or momentum_size < 1e-8:
        return twin_mla(s, memory, theta, g, at)
    u, v = g / size, m / momentum_size
    c = u @ v
    conf = size / (size + s.momentum_weight * momentum_size + 1e-8)
    if c < 0:
        g = g - min(-s.shrink * c * conf, s.max_shrink) * c * size * v
    elif c < s.keep_above:
        towards = min(s.turn * (1 - c) * conf, 1)
        w = (1 - towards) * u + towards * v
        g = size * w / np.linalg.norm(w)
    return twin_mla(s, memory, theta, g, at)


def twin_fedasync(s, memory, theta, g, at):
    local, mixed = at.pulled - g, s.lr * (1 + at.staleness) ** -s.exponent
    return (1 - mixed) * theta + mixed * local


def twin_fedasync_hinge(s, memory, theta, g, at):
    late = at.staleness - s.hinge
    local, mixed = at.pulled - g, s.lr * (1 if late <= 0 else 1 / (s.slope * late + 1))
    return (1 - mixed) * theta + mixed * local


def twin_fedbuff(s, memory, theta, g, at):
    versions, waiting = memory.setdefault("versions", [0]), memory.setdefault("waiting", [])
    staleness = versions[at.number] - versions[at.number - at.staleness]
    waiting.append((1 + staleness) ** -s.exponent * g)
    full = len(waiting) == s.buffer_size
    versions.append(versions[-1] + full)
    if not full:
        return theta
    mean = sum(waiting) / s.buffer_size
    waiting.clear()
    return theta - s.lr * mean


def twin_delay_adaptive(s, memory, theta, g, at):
    k = s.patience or WORKERS
    return theta - s.lr * (1 if at.staleness <= k else k / at.staleness) * g


def twin_ringmaster(s, memory, theta, g, at):
    accepted = memory.setdefault("accepted", [0])  # after so many arrivals
    accept = accepted[at.number] - accepted[at.number - at.staleness] < (s.delay_threshold or WORKERS)
    accepted.append(accepted[-1] + accept)
    return theta - s.lr * g if accept else theta


def twin_restarted_nesterov(s, memory, theta, g, at):
    if at.number % (s.restart_period or WORKERS) == 0:
        memory["m"] = 0.0
    return twin_nesterov(s, memory, theta, g, at)


def twin_autocorrelation(s, memory, theta, g, at):
    rho, before = memory.get("rho", 0.5), memory.get("before", np.zeros_like(g))
    if np.linalg.norm(g) > 0 and np.linalg.norm(before) > 0:
        rho = 0.5 * rho + 0.5 * (g @ before) / (np.linalg.norm(g) * np.linalg.norm(before))
    gain = np.clip((1 + 0.5 / (1 - 0.5 * rho)) / (1 + 0.5 / (1 - 0.5 * 0.5)), 0.5, 2)
    memory["rho"], memory["before"] = rho, gain * g
    return theta - s.lr * gain * g


def twin_ormo(s, memory, theta, g, at):
    beta, k, u = s.momentum, s.group_size or WORKERS, memory.get("u", 0.0)
    job, now = int(np.ceil((at.number - at.staleness) / k)), int(np.ceil(at.number / k))
    while memory.setdefault("group", 0) < now:
        theta, u = theta - beta * u, beta * u
        memory["group"] += 1
    memory["u"] = u + beta ** (now - job) * s.lr * g
    return theta - (1 - beta ** (now - job + 1)) / (1 - beta) * s.lr * g


def twin_halos(s, memory, theta, g, at):
    start = memory.setdefault("start", theta)
    server = memory.setdefault(at.worker % s.local_servers, {"theta": start, "base": start, "count": 0, "dn": {}})
    below = DelayedNesterov(lr=s.local_lr, momentum=s.local_momentum, period=s.local_period)
    above = DelayedNesterov(lr=s.lr, momentum=s.momentum, period=s.global_period)
    server["theta"] = twin_delayed_nesterov(below, server["dn"], server["theta"], g, at)
    server["count"] += 1
    if server["count"] == s.merge_every:
        moved = server["base"] - server["theta"]
        theta = twin_delayed_nesterov(above, memory.setdefault("dn", {}), theta, moved, at)
        merged = (1 - s.merge_weight) * server["theta"] + s.merge_weight * theta
        server |= {"theta": merged, "base": merged, "count": 0}
    return theta


TWINS = {name: globals()[f"twin_{name}"] for name in METHODS}


@pytest.mark.parametrize("scale", ["1", "1/sqrt(k)", "1/k"])
@every_method
def test_follows_its_formula(name, scale, float64):
    settings = with_settings(name, scale=scale)
    theta, gradients, staleness, pulled = random_arrivals()
    _, path = run_arrivals(make_outer(settings, WORKERS), theta, gradients, staleness, pulled)
    weight, memory, expected = {"1": 1.0, "1/sqrt(k)": 0.5, "1/k": 0.25}[scale], {}, []
    for e in range(len(gradients)):
        at = Arrival(e, e % WORKERS, int(staleness[e]), pulled[e])
        theta = TWINS[name](settings, memory, theta, weight * gradients[e], at)
        expected.append(theta)
    np.testing.assert_allclose(path, expected, rtol=1e-10, atol=1e-12)


# The law table: what holds for every method.


def tree_arrivals(dtype, count=7):
    """Parameters and pseudo-gradients of two leaves of different ranks."""
    rng = np.random.default_rng(1)
    theta = {"w": rng.normal(size=(3, 2)), "b": rng.normal(size=2)}
    gradients = {"w": rng.normal(size=(count, 3, 2)), "b": rng.normal(size=(count, 2))}
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), (theta, gradients))


def arrays(numbers):
    """Numbers as a compiled run gets them: arrays of their own dtype, not Python scalars that yield to others."""
    return {name: np.asarray(number) for name, number in numbers.items()}


def before_and_after(name, dtype, traced):
    """A server at the start and after seven arrivals, its numbers traced or not."""
    theta, gradients = tree_arrivals(dtype)
    constants = outer_numbers(EXAMPLES[name], WORKERS)

    @jax.jit
    def run(numbers):
        outer = outer_builder(name)(numbers if traced else constants)
        return open_server(outer, theta), run_arrivals(outer, theta, gradients, staleness=np.arange(7) % 4)[0]

    return run(arrays(constants))


@pytest.mark.parametrize("dtype, traced", [(jnp.float32, False), (jnp.float32, True), (jnp.bfloat16, False)])
@every_method
def test_finite_and_stable_under_scan(name, dtype, traced):
    """Structure, shapes and dtypes of the server survive repeated arrivals, in a scan and as declared."""
    before, after = before_and_after(name, dtype, traced)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(lambda x: (x.shape, x.dtype), after)
    assert {x.dtype for x in jax.tree.leaves(after.params)} == {jnp.dtype(dtype)}
    assert all(np.isfinite(np.asarray(x, np.float64)).all() for x in jax.tree.leaves(after))
    assert not np.array_equal(before.params["w"], after.params["w"])


@pytest.mark.parametrize("name", [name for name in METHODS if name != "sgd"])  # which keeps no state
def test_traced_numbers_keep_bfloat16(name):
    before_and_after(name, jnp.bfloat16, traced=True)


@every_method
def test_lanes_of_settings_equal_single_runs(name, float64):
    """Numbers may be traced: a vmapped run over settings is the single runs side by side."""
    theta, gradients, staleness, pulled = random_arrivals()
    settings = [METHODS[name].settings(), EXAMPLES[name], with_settings(name, lr=0.01, scale="1/k")]
    numbers = [outer_numbers(s, WORKERS) for s in settings]
    stacked = {key: np.array([n[key] for n in numbers]) for key in numbers[0]}

    def run(numbers):
        return run_arrivals(outer_builder(name)(numbers), theta, gradients, staleness, pulled)[1]

    single = jax.jit(run)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(run))(stacked), [single(arrays(n)) for n in numbers], rtol=1e-10, atol=1e-12
    )


@every_method
def test_changed_numbers_do_not_retrace(name):
    theta, gradients = tree_arrivals(jnp.float32)
    traces = []

    @jax.jit
    def run(numbers):
        traces.append(name)
        return run_arrivals(outer_builder(name)(numbers), theta, gradients)[0].params

    first = run(outer_numbers(METHODS[name].settings(), WORKERS))
    second = run(outer_numbers(with_settings(name, scale="1/k"), 8))
    assert len(traces) == 1
    assert not np.array_equal(first["w"], second["w"])


def test_whole_numbers_do_not_retrace():
    assert type(outer_numbers(Nesterov(lr=1), WORKERS)["lr"]) is float


def bits(tree):
    """A tree's contents to the last bit."""
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("waiting", [0, 2])
@every_method
def test_unmoved_by_a_masked_arrival(name, waiting):
    """Nothing moves, neither between steps nor in the middle of a round."""
    outer = make_outer(EXAMPLES[name], WORKERS)
    theta, gradients = tree_arrivals(jnp.float32)
    step = np.arange(7) < 7 - waiting

    @jax.jit
    def mask(server):
        nothing = jax.tree.map(jnp.zeros_like, theta)
        extras = {"staleness": 0, "pulled_params": nothing, "worker": 0, "num_steps": 0, "arrival": 0, "dispatch": 0}
        return apply_arrival(outer, server, nothing, step=False, valid=False, **extras)

    server, _ = run_arrivals(outer, theta, gradients, step=step)
    assert server.count == waiting
    assert bits(mask(mask(server))) == bits(server)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@every_method
def test_what_a_worker_is_handed_is_shaped_as_the_parameters(name, dtype):
    """For every worker at once, numbers traced, as the engine asks."""
    theta, gradients = tree_arrivals(dtype)

    @jax.jit
    def run(numbers):
        outer = outer_builder(name)(numbers)
        server, _ = run_arrivals(outer, theta, gradients)
        return jax.vmap(lambda w: outer.pull(server.outer_state, server.params, w))(jnp.arange(WORKERS))

    handed = run(arrays(outer_numbers(EXAMPLES[name], WORKERS)))
    shapes = jax.tree.map(lambda x: (x.shape[1:], x.dtype), handed)
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), theta)
    assert all(np.isfinite(np.asarray(x, np.float64)).all() for x in jax.tree.leaves(handed))
