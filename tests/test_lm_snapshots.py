"""What workers hold between visits: on the device or on the host, as it is or rounded."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_lm_train import CLUSTER, training

import lm.snapshots
from lm import benchmark
from lm.checkpoint import Checkpoints
from lm.config import SIZES, parameters
from lm.loop import Stopped, carry_out
from lm.placement import Placement, place
from toybench.config import ConfigError, ConfigWarning
from toybench.engine import replay
from toybench.inner import make_inner
from toybench.outer import make_outer
from toybench.outer.base import OuterOptimizer
from toybench.training import inner_numbers

HOST, ROUNDED = Placement(snapshots="host"), Placement(dtype="bfloat16")
BOTH = Placement(snapshots="host", dtype="bfloat16")
SPREAD = Placement(workers=2, snapshots="host")


def held(state):
    """What workers hold: leaves of floating arrays."""
    return [leaf for leaf in jax.tree.leaves((state.pulled, state.inner_states)) if leaf.ndim]


def assert_same(found, wanted):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def interrupted(one, folder, stop_after):
    """A run that is stopped after so many arrivals; its checkpoint stays."""
    calls = []
    checkpoints = Checkpoints(folder, one)
    with pytest.raises(Stopped):
        carry_out(one, checkpoints, stop=lambda: calls.append(None) or len(calls) == stop_after)
    checkpoints.close()


def resumed(one, folder):
    checkpoints = Checkpoints(folder, one)
    try:
        return carry_out(one, checkpoints, resume=True)
    finally:
        checkpoints.close()


@pytest.mark.parametrize("lanes, placement", [(1, HOST), (2, HOST), (2, SPREAD)])
@pytest.mark.parametrize("method", ["delayed_nesterov", "heloco"])
def test_where_snapshots_are_kept_changes_no_number(lanes, placement, method):
    wanted = carry_out(training(method, lanes)).state
    found = carry_out(training(method, lanes, placement=placement)).state
    assert_same(found, wanted)
    assert {leaf.sharding.memory_kind for leaf in held(found)} == {"pinned_host"}
    assert {leaf.sharding.memory_kind for leaf in jax.tree.leaves(found.server)} == {"device"}


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_backend_without_pinned_memory_keeps_numpy_arrays(monkeypatch, lanes):
    wanted = carry_out(training(lanes=lanes)).state
    monkeypatch.setattr(lm.snapshots, "PINNED", "nowhere")
    found = carry_out(training(lanes=lanes, placement=HOST)).state
    assert_same(found, wanted)
    assert {type(leaf) for leaf in held(found)} == {np.ndarray}


def test_visits_that_wait_for_their_arrival_wait_on_the_host():
    one = training(lanes=3, placement=HOST)
    first, *others = one.visits(one.waves[0], one.begin()).values()
    assert {leaf.sharding.memory_kind for leaf in jax.tree.leaves(first)} == {"device"}
    assert others and {leaf.sharding.memory_kind for leaf in jax.tree.leaves(others)} == {"pinned_host"}


# Rounded


def rounded(params):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), params)


@pytest.mark.parametrize("method, reset", [("delayed_nesterov", True), ("fedasync", False), ("heloco", False)])
@pytest.mark.parametrize("lanes, placement", [(1, ROUNDED), (2, BOTH)])
def test_rounded_snapshots_are_a_server_that_hands_out_rounded_parameters(method, reset, lanes, placement):
    """The plain loop with that server: starts, pseudo-gradients and what the method is told are all of it."""
    one = training(method, lanes, reset=reset, placement=placement)
    run, outer = one.run, make_outer(one.run.outer, one.run.cluster.workers)
    coarse = OuterOptimizer(outer.init, outer.update, lambda *args: rounded(outer.pull(*args)))
    wanted = replay(
        one.task,
        make_inner("adamw", inner_numbers(run)),
        coarse,
        one.timeline,
        jax.random.key(one.seed),
        workers=run.cluster.workers,
        shards=run.cluster.num_shards,
        reset=reset,
    ).params["table"]
    found = carry_out(one).state
    exact = carry_out(training(method, lanes, reset=reset)).state.server.params["table"]
    away, seen = (np.abs(found.server.params["table"] - other).max() for other in (wanted, exact))
    assert away < 5e-6 and seen > 4 * away  # nearer to it than to a server that rounds nothing
    assert {leaf.dtype for leaf in jax.tree.leaves(found.pulled)} == {jnp.dtype(jnp.bfloat16)}
    states = [leaf for state in found.inner_states for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert {leaf.dtype for leaf in states} == {jnp.dtype(jnp.float32)}


# Shared


@pytest.mark.parametrize("placement", [Placement(), HOST, ROUNDED, BOTH])
def test_workers_that_pull_the_same_share_a_snapshot(placement):
    one = training("nesterov", 1, replace(CLUSTER, barrier=True), placement=placement)
    state = one.begin()
    for e, after, _ in one.arrivals(state):
        state = after
        shared = {tuple(map(id, jax.tree.leaves(tree))) for tree in state.pulled}
        assert len(shared) == 1 or not one.timeline.step[e]
    own = training("heloco", placement=placement).begin()  # each worker is handed something of its own
    assert len({id(tree["table"]) for tree in own.pulled}) == 3


@pytest.mark.parametrize("placement, copies", [(Placement(), (3, 0)), (ROUNDED, (2.5, 0)), (BOTH, (0, 2.5))])
def test_the_benchmark_tells_what_a_worker_holds_and_where(placement, copies, capsys):
    found = benchmark.measure_kept("tiny", placement, 1)
    size = 4 * parameters(SIZES["tiny"].model)
    assert (found.device_bytes / size, found.host_bytes / size) == pytest.approx(copies, abs=0.01)
    assert found.arrival_seconds > 0
    benchmark.print_kept([found])
    assert "ms an arrival" in capsys.readouterr().out


# Resumed


@pytest.mark.parametrize("lanes, placement", [(1, HOST), (2, HOST), (1, ROUNDED), (2, BOTH), (2, SPREAD)])
def test_stopped_and_resumed_is_uninterrupted_wherever_snapshots_are(tmp_path, lanes, placement):
    whole = carry_out(training(lanes=lanes, placement=placement))
    for stop_after in (1, 9):
        folder = tmp_path / str(stop_after)
        interrupted(training(lanes=lanes, placement=placement), folder, stop_after)
        found = resumed(training(lanes=lanes, placement=placement), folder)
        assert_same(found.state, whole.state)
        kinds = [{leaf.sharding.memory_kind for leaf in held(done.state)} for done in (found, whole)]
        assert kinds[0] == kinds[1]
        np.testing.assert_array_equal(found.curves.metrics["loss"], whole.curves.metrics["loss"])


@pytest.mark.parametrize("before, after", [(Placement(), HOST), (HOST, Placement()), (ROUNDED, BOTH)])
def test_a_checkpoint_goes_on_in_another_memory_bit_for_bit(tmp_path, before, after):
    interrupted(training(placement=before), tmp_path, 5)
    found = resumed(training(placement=after), tmp_path)
    assert_same(found.state, carry_out(training(placement=before)).state)


@pytest.mark.parametrize("before, after", [(Placement(), ROUNDED), (BOTH, HOST)])
def test_a_checkpoint_of_another_precision_is_refused(tmp_path, before, after):
    interrupted(training(placement=before), tmp_path, 5)
    said = f"resume: the checkpoint is of snapshot_dtype {before.dtype}, not {after.dtype}"
    with pytest.raises(ConfigError, match=said):
        resumed(training(placement=after), tmp_path)


def test_a_checkpoint_goes_on_over_another_mesh_and_says_so(tmp_path):
    interrupted(training(lanes=2, placement=Placement(workers=2)), tmp_path, 5)
    with pytest.warns(ConfigWarning, match="is of mesh 2x1, not 1x1: it goes on, but not bit for bit"):
        found = resumed(training(lanes=2), tmp_path)
    wanted = carry_out(training(lanes=2)).state.server.params["table"]
    np.testing.assert_allclose(found.state.server.params["table"], wanted, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    "words, said",
    [
        ({"snapshots": "disk"}, "snapshots: must be one of device, host, got 'disk'"),
        ({"dtype": "int8"}, "snapshot_dtype: must be one of float32, bfloat16, got 'int8'"),
    ],
)
def test_what_is_no_memory_or_no_precision_is_refused(words, said):
    with pytest.raises(ConfigError) as refused:
        place(None, 1, 1, 1, **words)
    assert str(refused.value) == said
