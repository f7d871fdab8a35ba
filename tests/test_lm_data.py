"""Tokens to batches: shards that share no document, batches that are the same everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.data import Corpus
from lm.order import sequence_index
from lm.prepare import prepare
from lm.sources import find_sources
from lm.tokens import Bytes
from tests.corpora import documents, fill_shelf, refused


@pytest.fixture
def corpus(tmp_path):
    prepare(find_sources([fill_shelf(tmp_path / "shelf")]), Bytes(), tmp_path / "corpus", 0.1)
    return Corpus.open(tmp_path / "corpus")


def test_a_damaged_folder(corpus):
    refused(lambda: Corpus.open(corpus.folder / "not"), "task.data", "not there")
    (corpus.folder / "train.bin").write_bytes(b"short")
    refused(lambda: Corpus.open(corpus.folder), "task.data", "train.bin", "damaged")
    (corpus.folder / "meta.json").write_text('{"schema": 99}')
    refused(lambda: Corpus.open(corpus.folder), "task.data", "prepare it again")


@pytest.mark.parametrize("partition", ["iid", "domain"])
def test_shards_share_no_document_and_leave_none(corpus, partition):
    shards = corpus.split(3, partition, seed=5)
    assert sorted(np.concatenate(shards.documents)) == list(range(corpus.meta["train"]["documents"]))
    assert sum(shards.tokens) == corpus.meta["train"]["tokens"]
    assert max(shards.tokens) < 1.6 * min(shards.tokens)
    domains = [set(np.fromfile(corpus.folder / "train.domains.bin", "<u4")[chosen]) for chosen in shards.documents]
    if partition == "domain":
        assert not domains[0] & domains[1] and not domains[1] & domains[2]
    else:
        assert all(len(found) == 7 for found in domains)
        assert max(shards.tokens) - min(shards.tokens) < 500


def test_batches_are_the_documents_of_the_shard(corpus):
    shards = corpus.split(2, "iid", seed=1)
    packed = shards.packed(32)
    assert packed.dtype == np.uint16 and packed.shape == (2, shards.count(32), 33)
    training = documents(corpus.folder, "train")
    for shard in range(2):
        text = "".join(training[i] + "\0" for i in shards.documents[shard])
        stream = np.concatenate([packed[shard, :, :-1].ravel(), packed[shard, -1:, -1]])
        said = bytes(np.where(stream == 256, 0, stream).astype(np.uint8))
        assert text.encode().startswith(said)
        assert np.array_equal(packed[shard, 1:, 0], packed[shard, :-1, -1])


def test_a_step_has_the_same_batch_however_it_is_asked_for(corpus):
    shards, again = corpus.split(3, "iid", seed=2), Corpus.open(corpus.folder).split(3, "iid", seed=2)
    packed = jnp.asarray(shards.packed(16))
    pick = jax.jit(
        lambda shard, step: packed[shard][
            sequence_index(shard, step, jnp.arange(8), batch=8, count=packed.shape[1], seed=2, xp=jnp)
        ]
    )
    for shard, first in ((0, 0), (2, 7), (1, 10**6), (1, 2**31 - 4)):
        many = again.batches(shard, first, 3, batch=8, sequence=16)
        for i in range(3):
            one = shards.batch(shard, first + i, batch=8, sequence=16)
            assert one.dtype == np.int32 and one.shape == (8, 17)
            assert np.array_equal(one, many[i])
            assert np.array_equal(one, pick(jnp.int32(shard), jnp.int32(first + i)))
    assert not np.array_equal(shards.batch(0, 0, 8, 16), corpus.split(3, "iid", seed=3).batch(0, 0, 8, 16))


@pytest.mark.parametrize("count", [1, 2, 7, 64, 97, 1000])
@pytest.mark.parametrize("batch", [1, 5, 8])
def test_no_sequence_comes_twice_in_a_pass(count, batch):
    batches = max(count // batch, 1)
    step, row = np.repeat(np.arange(3 * batches), batch), np.tile(np.arange(batch), 3 * batches)
    found = sequence_index(1, step, row, batch=batch, count=count, seed=3)
    assert found.min() >= 0 and found.max() < count
    if count >= batch:
        passes = found.reshape(3, -1)
        assert all(len(set(once)) == batches * batch for once in passes)
        assert count < 20 or not np.array_equal(np.sort(passes[0]), passes[0])
        assert count < 20 or not np.array_equal(passes[0], passes[1])
    else:
        assert set(found[:batch]) == set(range(count))


def test_orders_look_random():
    """Of all places a number may go to, each is as likely, also together with its neighbour's."""
    count, passes = 50, 4000
    step, row = np.repeat(np.arange(passes), count), np.tile(np.arange(count), passes)
    found = sequence_index(0, step, row, batch=count, count=count, seed=1).reshape(passes, count)
    expected = passes / count
    for numbers in (found[:, 0], found[:, 17], (found[:, 1] - found[:, 0]) % count):
        seen = np.bincount(numbers, minlength=count)
        seen, places = (seen[1:], count - 1) if seen[0] == 0 else (seen, count)
        chi = ((seen - passes / places) ** 2 / expected).sum()
        assert chi < places + 5 * (2 * places) ** 0.5


@pytest.mark.parametrize("count", [1, 3, 1000, 2**20 + 7, 2**31 - 1])
@pytest.mark.parametrize("batch", [1, 8, 4096])
def test_numpy_and_jax_choose_alike(count, batch):
    row = np.arange(batch)
    traced = jax.jit(
        lambda shard, step, seed: sequence_index(
            shard, step, jnp.arange(batch), batch=batch, count=count, seed=seed, xp=jnp
        )
    )
    for shard, step, seed in ((0, 0, 0), (3, 12345, 7), (2**31 - 1, 2**31 - 1, 2**31 - 1), (1, 2**31 - 2, 5)):
        ours = sequence_index(shard, step, row, batch=batch, count=count, seed=seed)
        assert ours.dtype == np.int32 and ours.min() >= 0 and ours.max() < count
        assert np.array_equal(ours, traced(jnp.int32(shard), jnp.int32(step), jnp.int32(seed)))


def test_held_out_sequences(corpus):
    found = corpus.held_out(20, 64)
    assert found.dtype == np.int32 and found.shape == (20, 65)
    assert np.array_equal(found, corpus.held_out(20, 64))
    held_out = np.fromfile(corpus.folder / "held_out.bin", "<u2")
    whole = [held_out[i : i + 65] for i in range(0, len(held_out) - 64, 64)]
    places = [i for row in found for i, one in enumerate(whole) if np.array_equal(row, one)]
    apart = np.diff(places)
    assert len(places) == 20 and places[0] == 0 and apart.min() > 0 and apart.max() - apart.min() <= 1
    refused(lambda: corpus.held_out(10**6, 64), "task.held_out", "10")


def test_too_little_data(corpus):
    refused(lambda: corpus.split(4, "iid", 0).batch(0, 0, 1, 10**6), "task.data", "cluster.shards = 4", "sequence")
    refused(lambda: corpus.split(8, "domain", 0), "task.partition", "cluster.shards = 8", "has 7")
    refused(lambda: corpus.split(2000, "iid", 0), "task.data", "cluster.shards = 2000")
    refused(lambda: corpus.split(2, "odd", 0), "task.partition")
