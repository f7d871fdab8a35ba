"""The transformer, and the task around it: laws, limit cases, counts, and training through `toybench.train`."""

from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("flax")

from lm import benchmark, model
from lm.config import CHOICES, SIZES, TWIN, flops_per_token, parameters, parts
from lm.task import LanguageTask
from toybench.config import ConfigError
from toybench.inner import InnerOptimizer, constant, local_update
from toybench.loading import load_run
from toybench.task import check_task, data_of
from toybench.training import footprint, train

KEY = jax.random.key(0)


@dataclass(frozen=True)
class Counting:
    """A corpus to learn fast: every sequence counts upwards, modulo 32, from anywhere."""

    sequences: int = 24  # of all shards together

    def split(self, shards, partition, seed):
        first = np.random.default_rng(seed).integers(32, size=(shards, self.sequences // shards, 1))
        return SimpleNamespace(packed=lambda sequence: (first + np.arange(sequence + 1)) % 32)

    def held_out(self, n, sequence):
        return (np.arange(n)[:, None] + np.arange(sequence + 1)) % 32


def changed(**changes):
    return replace(TWIN, **changes)


SCANNED = changed(scan_layers=True)  # compiles in half the time
TASK = LanguageTask(SCANNED, Counting())


def tokens_of(settings, batch=2, length=None, seed=0):
    """Random tokens [batch, L]."""
    shape = (batch, settings.sequence if length is None else length)
    return jnp.asarray(np.random.default_rng(seed).integers(settings.vocabulary, size=shape))


def loss_of(settings, params, token, **options):
    return model.sequence_losses(settings, params, token[:, :-1], token[:, 1:], **options).mean()


@lru_cache
def value_and_gradient(settings):
    """Of tokens [B, L + 1]; compiled once for all tests."""
    return jax.jit(jax.value_and_grad(partial(loss_of, settings)))


def assert_close(a, b, rtol=1e-5, atol=1e-6):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


# Parameters


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "settings", [*(s.model for s in SIZES.values()), changed(heads=3, expansion=3)], ids=[*SIZES, "odd"]
)
def test_parameters_by_part(settings, tied):
    settings = replace(settings, tied=tied)
    params = jax.eval_shape(partial(model.init, settings), KEY)
    blocks = params["blocks"]
    found = {
        "embedding": size(params["embedding"]),
        "attention": size(blocks["attention"]),
        "perceptron": size(blocks["perceptron"]),
        "norms": size((blocks["attention_norm"], blocks["perceptron_norm"], params["norm"])),
    } | ({} if tied else {"output": size(params["output"])})
    assert found == {name: part.each * part.times for name, part in parts(settings).items()}
    assert sum(found.values()) == size(params) == parameters(settings)


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_parameters_are_a_plain_dict_of_float32(compute):
    settings, token = changed(compute=compute, scan_layers=True), tokens_of(TWIN)
    params = model.init(settings, KEY)

    def plain(node):
        return all(map(plain, node.values())) if type(node) is dict else isinstance(node, jax.Array)

    assert plain(params)
    loss, gradient = jax.eval_shape(value_and_gradient(settings), params, token)
    logits = jax.eval_shape(partial(model.logits, settings), params, token)
    for leaf in jax.tree.leaves((params, gradient, loss, logits)):
        assert leaf.dtype == jnp.float32


def test_blocks_start_apart_and_alike_for_the_same_key():
    params, again = model.init(TWIN, KEY), model.init(TWIN, jax.random.key(0))
    assert_close(params, again, 0, 0)
    kernel = params["blocks"]["attention"]["query"]["kernel"]
    assert (kernel[0] != kernel[1]).all()
    np.testing.assert_allclose(kernel.std(), TWIN.width**-0.5, rtol=0.1)
    np.testing.assert_allclose(
        params["blocks"]["attention"]["out"]["kernel"].std(), (16 * 2 * TWIN.layers) ** -0.5, rtol=0.1
    )


# What it computes


@pytest.mark.parametrize("scan", [False, True])
def test_a_logit_depends_on_no_later_token(scan):
    """By gradients, which are exactly zero: distinct tokens, so that each has a row of the embedding for itself."""
    settings = changed(tied=False, scan_layers=scan)
    params, token = model.init(settings, KEY), jax.random.permutation(KEY, settings.vocabulary)[None, : TWIN.sequence]

    def logits(embedding):
        return model.logits(settings, params | {"embedding": embedding}, token)[0].sum(-1)  # [L]

    slopes_LxVxD = jax.jit(jax.jacrev(logits))(params["embedding"])["embedding"]
    by_input_LxL = np.abs(slopes_LxVxD[:, token[0]]).sum(-1)
    later = np.triu(np.ones((TWIN.sequence, TWIN.sequence), bool), 1)
    assert (by_input_LxL[later] == 0).all() and (by_input_LxL[~later] > 0).all()


def test_a_longer_sequence_begins_alike():
    params, token = model.init(TWIN, KEY), tokens_of(TWIN)
    short, whole = model.logits(TWIN, params, token[:, :7]), model.logits(TWIN, params, token)
    np.testing.assert_allclose(short, whole[:, :7], rtol=1e-4, atol=1e-5)


def test_attention_depends_on_relative_positions_only():
    q, k, v = jax.random.normal(KEY, (3, 2, 9, 2, 8))
    position = jnp.arange(9)

    def attended(query_shift, key_shift):
        return model.attend(model.rotate(q, position + query_shift), model.rotate(k, position + key_shift), v)

    np.testing.assert_allclose(attended(100, 100), attended(0, 0), rtol=1e-3, atol=1e-4)
    assert np.abs(attended(3, 0) - attended(0, 0)).max() > 0.1
    np.testing.assert_allclose(jnp.linalg.norm(model.rotate(q, position), axis=-1), jnp.linalg.norm(q, axis=-1), 1e-5)


def test_the_same_tokens_in_another_order_are_another_context():
    params = model.init(TWIN, KEY)
    a, b = (model.logits(TWIN, params, jnp.array([order]))[0, -1] for order in ([5, 6, 7], [6, 5, 7]))
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("width", [16, 512])
def test_an_untrained_model_knows_nothing(width, tied):
    settings = changed(width=width, head_size=width // 2, tied=tied)
    token = tokens_of(settings, batch=32)
    loss = jax.jit(partial(loss_of, settings))(model.init(settings, KEY), token)
    assert abs(loss - np.log(settings.vocabulary)) < 0.06  # 0.02 expected, more where few tokens are drawn


def test_sequence_losses_are_cross_entropies():
    params, token = model.init(TWIN, KEY), tokens_of(TWIN, 3)
    logits = np.asarray(model.logits(TWIN, params, token[:, :-1]), np.float64)
    at_target = np.take_along_axis(logits, np.asarray(token)[:, 1:, None], -1)[..., 0]
    expected = (np.log(np.exp(logits).sum(-1)) - at_target).mean(-1)
    np.testing.assert_allclose(model.sequence_losses(TWIN, params, token[:, :-1], token[:, 1:]), expected, rtol=1e-5)


def test_logits_in_blocks_change_nothing():
    params, token = model.init(TWIN, KEY), tokens_of(TWIN, 5)
    two = 2 * 4 * (TWIN.sequence - 1) * TWIN.vocabulary  # bytes; blocks of two sequences, two, one
    blocks = jax.jit(jax.value_and_grad(partial(loss_of, SCANNED, most=two)))(params, token)
    assert_close(blocks, value_and_gradient(SCANNED)(params, token))


@pytest.mark.parametrize(
    "changes",
    [{"remat": True}, {"scan_layers": True}, {"scan_layers": True, "remat": True}],
    ids=lambda changes: " ".join(changes),
)
def test_how_it_is_compiled_changes_nothing(changes):
    other = changed(**changes)
    params, token = model.init(TWIN, KEY), tokens_of(TWIN)
    assert_close(model.init(other, KEY), params, 0, 0)
    assert_close(value_and_gradient(other)(params, token), value_and_gradient(TWIN)(params, token))


def test_remat_recomputes():
    params, token = model.init(TWIN, KEY), tokens_of(TWIN)

    def flops(settings):
        return value_and_gradient(settings).lower(params, token).cost_analysis()["flops"]

    assert flops(changed(remat=True)) > 1.15 * flops(TWIN)


def test_bfloat16_is_near_float32():
    params, token = model.init(TWIN, KEY), tokens_of(TWIN)
    exact, rough = (value_and_gradient(replace(SCANNED, compute=c))(params, token) for c in ("float32", "bfloat16"))
    assert 0 < abs(exact[0] - rough[0]) < 0.01
    a, b = (jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(g)]) for _, g in (exact, rough))
    assert jnp.linalg.norm(a - b) < 0.05 * jnp.linalg.norm(a)


def test_workers_at_once_are_workers_one_by_one():
    factor_W = jnp.array([1.0, 0.5, 1.5, 0.9])
    params_W = jax.tree.map(lambda leaf: jnp.multiply.outer(factor_W, leaf), model.init(TWIN, KEY))
    token_W = jnp.stack([tokens_of(TWIN, seed=w) for w in range(4)])
    together = jax.jit(jax.vmap(value_and_gradient(SCANNED)))(params_W, token_W)
    for w in range(4):
        params, of_worker = (jax.tree.map(lambda leaf, w=w: leaf[w], tree) for tree in (params_W, together))
        assert_close(value_and_gradient(SCANNED)(params, token_W[w]), of_worker)


def test_operations_are_those_that_the_compiler_counts():
    """Within 5 %: it counts attention's whole square, of which causal attention needs half, and the elementwise."""
    settings = replace(SIZES["tiny"].model, batch=4)
    params = jax.eval_shape(partial(model.init, settings), KEY)
    token = jax.ShapeDtypeStruct((settings.batch, settings.sequence + 1), jnp.int32)
    cost = jax.jit(jax.value_and_grad(partial(loss_of, settings))).lower(params, token).compile().cost_analysis()
    square = 6 * settings.layers * settings.heads * settings.head_size * settings.sequence
    counted = cost["flops"] / (settings.batch * settings.sequence)
    np.testing.assert_allclose(counted, flops_per_token(settings) + square, rtol=0.05)


# The task


def test_it_keeps_the_laws():
    check_task(LanguageTask(replace(SCANNED, compute="bfloat16", tied=False, remat=True), Counting()), shards=3)
    assert LanguageTask(SCANNED, Counting()) == TASK and hash(LanguageTask(SCANNED, Counting())) == hash(TASK)
    assert LanguageTask(SCANNED, Counting(48)) != TASK


def test_batches_are_sequences_of_the_shard():
    data = data_of(TASK, KEY, 3)
    tokens = np.asarray(data[1]["tokens"])
    assert tokens.shape == (3, 8, TWIN.sequence + 1) and tokens.dtype == np.uint16
    for shard in range(3):
        found = [TASK.batch(data, jnp.int32(shard), jnp.int32(step)) for step in range(4)]  # a pass: 4 batches of 2
        assert found[0].dtype == jnp.int32
        np.testing.assert_array_equal(np.sort(np.concatenate(found), 0), np.sort(tokens[shard], 0))


def test_evaluation_is_the_loss_of_the_held_out_sequences_whatever_the_batch():
    params, data = TASK.init(KEY), data_of(TASK, KEY, 2)
    metrics = TASK.evaluate(params, data)
    expected = TASK.loss(params, data[1]["held_out"].astype(jnp.int32))
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["perplexity"], np.exp(expected), rtol=1e-5)
    uneven = LanguageTask(replace(SCANNED, batch=3), Counting())
    np.testing.assert_allclose(uneven.evaluate(params, data)["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "task, name",
    [(LanguageTask(changed(vocabulary=31), Counting()), "vocabulary"), (LanguageTask(TWIN, Counting(1)), "data")],
)
def test_data_that_do_not_fit_are_refused(task, name):
    with pytest.raises(ConfigError, match=name):
        task.host_data(2)


def test_it_learns_a_batch_by_heart():
    task = LanguageTask(replace(SCANNED, vocabulary=64), Counting())
    token, params = tokens_of(task.settings, length=17), task.init(KEY)
    inner = InnerOptimizer(optax.adam(1.0), constant(1e-2))
    visit = jax.jit(partial(local_update, task, inner, batch_at=lambda j: token, first_step=0, num_steps=150))
    pseudo_gradient, _, _ = visit(params, inner.transformation.init(params))
    learned = jax.tree.map(jnp.subtract, params, pseudo_gradient)
    assert task.loss(params, token) > 4 and task.loss(learned, token) < 0.05


# Through toybench


def run_of(**outer):
    size = asdict(SCANNED)
    return load_run(
        {
            "task": {"kind": "language_model"} | size,
            "cluster": {"sec_per_step": [1.0, 2.0], "local_steps": 5, "dynamic_steps": True},
            "inner": {"lr": 1e-2, "warmup": 5},
            "outer": {"method": "delayed_nesterov", "lr": 0.7} | outer,
            "budget": {"rounds": 6, "evaluations": 3},
        },
        CHOICES,
    )


def test_training_lowers_the_loss_and_a_lane_is_a_single_run():
    runs = [run_of(), run_of(lr=0.4)]
    results = train(runs, [0, 1], task=TASK)
    for result in results:
        assert result.metrics["loss"].shape == result.metrics["perplexity"].shape == (2, 4)
        assert abs(result.metrics["loss"][:, 0] - np.log(TWIN.vocabulary)).max() < 0.1
        assert (result.final_loss < 0.8 * result.metrics["loss"][:, 0]).all()
    lane = results[1].metrics["loss"][1]
    [alone] = train(runs[1], [1], task=TASK)
    np.testing.assert_allclose(alone.metrics["loss"][0], lane, rtol=1e-3)
    assert "LanguageTask" in alone.custom["task"]


def test_its_tokens_are_counted_once_not_for_every_seed():
    needs = footprint(TASK, 2, 2)
    assert needs.seed == 4 and needs.shared == 2 * (TWIN.sequence + 1) * (Counting().sequences + TWIN.held_out)
    assert needs.of(5, 0) == needs.shared + 20


def test_the_benchmark_measures(monkeypatch):
    monkeypatch.setattr(benchmark, "product_rate", lambda dtype: 1e9)
    line = benchmark.measure("tiny", SCANNED, workers=2, steps=2, repeats=1)
    assert line.parameters == parameters(SCANNED) and line.peak_bytes > 0 and 0 < line.outer_share < 1
    np.testing.assert_allclose(line.tokens_per_second * line.step_seconds, 2 * TWIN.batch * TWIN.sequence)
    np.testing.assert_allclose(line.share * 1e9, line.tokens_per_second * flops_per_token(SCANNED))
    benchmark.print_table([line])
