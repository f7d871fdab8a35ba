"""Training at scale: the same spine as the toy's, through waves, checkpoints, stops and kills."""

import json
import warnings
from dataclasses import dataclass, replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lm.checkpoint import Checkpoints
from lm.config import TWIN
from lm.loop import NotFinite, Stopped, carry_out
from lm.maker import maker_of
from lm.train import Training
from lm.waves import plan_waves
from tests.corpora import refused
from toybench.config import Budget, Cluster, ConfigError, ConfigWarning, InnerAdamW, Run
from toybench.engine import replay, seed_keys
from toybench.inner import make_inner
from toybench.outer import METHODS, make_outer
from toybench.timeline import simulate
from toybench.training import inner_numbers

CLUSTER = Cluster(sec_per_step=(1.0, 1.7, 3.1), local_steps=4, dynamic_steps=True)
BUDGET = Budget(rounds=5, evaluations=5)


@dataclass(frozen=True)
class Lookup:
    """Next token from this one by a table: a language model of one matrix."""

    vocabulary: int = 11

    def init(self, key):
        return {"table": 0.1 * jax.random.normal(key, (self.vocabulary, self.vocabulary))}

    def loss(self, params, batch):
        logits = params["table"][batch[..., :-1]]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[..., 1:]).mean()

    def evaluate(self, params, data):
        return {"loss": self.loss(params, data)}

    def data(self, key, shards):  # for `replay`
        return {}

    def batch(self, data, shard, step):
        return tokens(shard, step)


def tokens(shard, step):
    """[batch, sequence + 1] a walk whose stride is the shard's."""
    start = jnp.arange(TWIN.batch)[:, None] * 5 + step
    return (start + (shard + 1) * jnp.arange(TWIN.sequence + 1)[None, :]) % 11


class Walks:
    """The same as a corpus."""

    def batches(self, shard, first, n, batch, sequence):
        return np.stack([np.asarray(tokens(shard, first + j)) for j in range(n)])


def training(method="delayed_nesterov", lanes=1, cluster=CLUSTER, reset=False, **more):
    outer = METHODS[method].settings(lr=0.5)
    run = Run(replace(TWIN, vocabulary=11), cluster, InnerAdamW(lr=0.05, warmup=2, reset=reset), outer, BUDGET)
    return Training(run, more.pop("seed", 3), Lookup(), Walks(), np.asarray(tokens(0, 99)), lanes, **more)


def final(training, **more):
    return carry_out(training, **more).state.server.params


def definition(training):
    run = training.run
    return replay(
        training.task,
        make_inner("adamw", inner_numbers(run)),
        make_outer(run.outer, run.cluster.workers, run.cluster.barrier),
        training.timeline,
        jax.random.key(training.seed),
        workers=run.cluster.workers,
        shards=run.cluster.num_shards,
        reset=run.inner.reset,
    ).params


@pytest.mark.parametrize("method", ["delayed_nesterov", "heloco", "halos", "sgd"])
@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_training_at_scale_is_the_plain_loop(method, lanes):
    one = training(method, lanes)
    found, wanted = final(one), definition(one)
    np.testing.assert_allclose(found["table"], wanted["table"], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("cluster", [replace(CLUSTER, barrier=True), replace(CLUSTER, grace=5.0, coalesce=True)])
@pytest.mark.parametrize("reset", [False, True])
def test_rules_of_the_cluster_hold_at_scale(cluster, reset):
    one = training("nesterov", 2, cluster, reset)
    np.testing.assert_allclose(final(one)["table"], definition(one)["table"], rtol=2e-4, atol=2e-5)


def test_the_loss_falls_and_is_evaluated_where_the_toy_would():
    one = training()
    curves = carry_out(one).curves
    loss = curves.metrics["loss"][0]
    assert len(loss) == BUDGET.evaluations + 1 and loss[-1] < loss[0] - 0.1
    assert curves.local_steps[0, 0] == 0 and curves.local_steps[0, -1] == one.timeline.local_steps[-1]


# Waves


@pytest.mark.parametrize("lanes", [1, 2, 3, 8])
def test_every_visit_is_in_one_wave_and_none_begins_before_its_pull(lanes):
    timeline = simulate(CLUSTER, BUDGET, 0)
    waves = plan_waves(timeline, lanes)
    assert sorted(e for wave in waves for e in wave) == list(range(len(timeline.time)))
    for wave in waves:
        assert 1 <= len(wave) <= lanes and len(set(timeline.worker[wave])) == len(wave)
        assert (timeline.pulled_at[wave] <= wave.min()).all()


def test_equal_workers_fill_their_waves():
    timeline = simulate(Cluster(sec_per_step=(1.0,) * 4, barrier=True), BUDGET, 0)
    assert {len(wave) for wave in plan_waves(timeline, 4)} == {4}


# Checkpoints


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("method", ["delayed_nesterov", "heloco"])
def test_stopped_and_resumed_is_uninterrupted_bit_for_bit(tmp_path, lanes, method):
    whole = carry_out(training(method, lanes))
    for stop_after in (1, 4, 9):
        one, calls = training(method, lanes), []

        def stop(calls=calls, stop_after=stop_after):
            calls.append(None)
            return len(calls) == stop_after

        folder = tmp_path / str(stop_after)
        first = Checkpoints(folder, one)
        with pytest.raises(Stopped):
            carry_out(one, first, stop=stop)
        first.close()
        again = training(method, lanes)
        second = Checkpoints(folder, again)
        found = carry_out(again, second, resume=True)
        second.close()
        for a, b in zip(jax.tree.leaves(found.state), jax.tree.leaves(whole.state)):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(found.curves.metrics["loss"], whole.curves.metrics["loss"])


def test_a_finished_run_resumes_to_its_end(tmp_path):
    one = training()
    checkpoints = Checkpoints(tmp_path, one)
    whole = carry_out(one, checkpoints)
    again = carry_out(one, checkpoints, resume=True)
    checkpoints.close()
    np.testing.assert_array_equal(again.state.server.params["table"], whole.state.server.params["table"])
    np.testing.assert_array_equal(again.curves.metrics["loss"], whole.curves.metrics["loss"])


def test_seconds_are_of_all_processes_that_trained(tmp_path, monkeypatch):
    """A clock that goes a second with every arrival."""
    arrivals = len((one := training()).timeline.time)
    at = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr("lm.loop.time", SimpleNamespace(monotonic=lambda: at.seconds))
    checkpoints = Checkpoints(tmp_path, one)

    def go_on(until=arrivals):
        left = iter(range(until))

        def stop():
            at.seconds += 1.0
            return next(left, None) is None

        at.seconds += 1000.0  # between processes
        return carry_out(one, checkpoints, resume=True, stop=stop)

    with pytest.raises(Stopped):
        go_on(3)
    assert checkpoints.latest().seconds == 4.0
    assert go_on().seconds == arrivals
    assert go_on().seconds == arrivals  # which was at its end
    checkpoints.close()
    [meta] = tmp_path.glob(f"{arrivals}/meta/metadata")
    meta.write_text(json.dumps({k: v for k, v in json.loads(meta.read_text()).items() if k != "seconds"}))
    checkpoints = Checkpoints(tmp_path, one)
    assert go_on().seconds == 0.0  # as of a version that did not note it
    checkpoints.close()


def test_a_checkpoint_of_other_code_is_gone_on_with_and_told_of(tmp_path, monkeypatch):
    one = training()

    def last(**changes):
        monkeypatch.setattr("lm.checkpoint.maker_of", lambda training: made | changes)
        checkpoints = Checkpoints(tmp_path, one)
        try:
            return checkpoints.latest()
        finally:
            checkpoints.close()

    made = maker_of(one)
    checkpoints = Checkpoints(tmp_path, one)
    carry_out(one, checkpoints)
    checkpoints.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert last() is not None
    told = f"by jax {made['jax']}, not 0.1, lm {made['lm']}, not x: it goes on, but not bit for bit$"
    with pytest.warns(ConfigWarning, match=told) as warned:
        assert last(lm="x", jax="0.1") is not None
    assert len(warned) == 1
    [meta] = tmp_path.glob("*/meta/metadata")
    meta.write_text(json.dumps({k: v for k, v in json.loads(meta.read_text()).items() if k != "maker"}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert last(lm="x") is not None  # one that does not say


def change_meta(folder, arrivals, meta):
    (folder / str(arrivals) / "meta" / "metadata").write_text(json.dumps(meta))


@pytest.mark.parametrize(
    "damage",
    [
        lambda meta: [],
        lambda meta: "x",
        lambda meta: None,
        lambda meta: meta | {"run": "x"},
        lambda meta: meta | {"run": meta["run"] | {"task": "x"}},
        lambda meta: {k: v for k, v in meta.items() if k != "points"},
        lambda meta: meta | {"points": []},
        lambda meta: meta | {"points": [point[:3] for point in meta["points"]]},
        lambda meta: meta | {"points": [[*point[:3], {}] for point in meta["points"]]},
        lambda meta: meta | {"points": [[*point[:3], "x"] for point in meta["points"]]},
        lambda meta: meta | {"points": [["x", *point[1:]] for point in meta["points"]]},
        lambda meta: meta | {"seed": None},
        lambda meta: meta | {"seconds": "x"},
        lambda meta: {k: v for k, v in meta.items() if k != "which"},
        lambda meta: meta | {"which": []},
        lambda meta: meta | {"which": [0] * 7},
        lambda meta: meta | {"which": [5] * 3},
    ],
)
def test_a_checkpoint_that_says_nonsense_is_one_line_that_names_the_one_before(damaged, damage):
    one, folder, (first, last), meta = damaged
    change_meta(folder, first, meta)
    change_meta(folder, last, damage(meta))
    checkpoints = Checkpoints(folder, one)
    good = f"; the last good one is {first}: once {str(folder / str(last))!r} is removed, --resume goes on from it"
    refused(checkpoints.latest, f"resume: checkpoint {last} in {str(folder)!r}: ", good)
    change_meta(folder, first, damage(meta))
    refused(checkpoints.latest, "; there is no good one before it")
    checkpoints.close()


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A run with two checkpoints, and what the last says."""
    one, folder = training(), tmp_path_factory.mktemp("damaged")
    checkpoints = Checkpoints(folder, one)
    carry_out(one, checkpoints, every=0.0)
    checkpoints.close()
    kept = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
    return one, folder, kept, json.loads((folder / str(kept[-1]) / "meta" / "metadata").read_text())


@pytest.mark.parametrize(
    "change, said",
    [
        ({"cluster": replace(CLUSTER, grace=1.0)}, "cluster.grace 0.0, not 1.0"),
        ({"method": "sgd"}, "outer.method delayed_nesterov, not sgd"),
        ({"seed": 4}, "seed 3, not 4"),
        ({"lanes": 2}, "lanes 1, not 2"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, said):
    one = training()
    checkpoints = Checkpoints(tmp_path, one)
    carry_out(one, checkpoints)
    checkpoints.close()
    other = training(**change)
    checkpoints = Checkpoints(tmp_path, other)
    with pytest.raises(ConfigError, match=said):
        carry_out(other, checkpoints, resume=True)
    checkpoints.close()


def test_a_run_that_loses_itself_says_where(tmp_path):
    @dataclass(frozen=True)
    class Exploding(Lookup):
        def loss(self, params, batch):
            return super().loss(params, batch) / jnp.where(jnp.abs(params["table"]).max() > 0.6, 0.0, 1.0)

    one = replace(training(), task=Exploding())
    checkpoints = Checkpoints(tmp_path, one)
    with pytest.raises(NotFinite, match=r"worker \d's visit of \d+ steps is .*arrival \d+.*checkpoint"):
        carry_out(one, checkpoints, every=0.0)
    checkpoints.close()


def test_a_pretrained_model_is_a_start():
    start = {"table": jnp.full((11, 11), 0.25)}
    one = training(start=start)
    np.testing.assert_array_equal(one.begin().server.params["table"], start["table"])
    fresh = training().begin().server.params["table"]
    np.testing.assert_array_equal(fresh, Lookup().init(seed_keys(jax.random.key(3))[1])["table"])


# With real text


def test_the_devices_engine_and_the_hosts_train_alike(tmp_path):
    """The same Run: lanes of the toy's compiled chunks, and batches from the host."""
    from lm.data import Corpus
    from lm.prepare import prepare
    from lm.sources import find_sources
    from lm.task import DEALT, LanguageTask
    from lm.tokens import Bytes
    from toybench.training import train

    for i in range(40):
        (tmp_path / f"{i:02}.txt").write_text(f"document {i} " * (10 + i))
    prepare(find_sources([str(tmp_path)]), Bytes(), str(tmp_path / "out"), 0.2)
    corpus = Corpus.open(tmp_path / "out", 257)
    model = replace(TWIN, vocabulary=257, data=str(tmp_path / "out"))
    run = Run(model, CLUSTER, InnerAdamW(lr=0.01), METHODS["delayed_nesterov"].settings(lr=0.5), BUDGET)
    task, shards = LanguageTask(model, corpus), CLUSTER.num_shards
    dealt = corpus.split(shards, "iid", DEALT).ordered(task.order(7))
    held_out = np.uint32(0), {"held_out": corpus.held_out(model.held_out, model.sequence)}
    host = carry_out(Training(run, 7, task, dealt, held_out, 2))
    [device] = train(run, [7, 8], task=task)
    np.testing.assert_allclose(host.curves.metrics["loss"][0], device.metrics["loss"][0], rtol=2e-3)
    assert host.curves.metrics["loss"][0, -1] < host.curves.metrics["loss"][0, 0] - 0.5
    np.testing.assert_array_equal(host.curves.local_steps[0], device.local_steps[0])
