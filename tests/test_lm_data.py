"""Text to tokens to batches: what is refused, what a kill leaves, that batches are the same everywhere."""

import errno
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lm.prepare
from lm.commands import data as command
from lm.config import BYTES
from lm.data import Corpus, python_corpus
from lm.order import sequence_index
from lm.prepare import is_held_out, prepare
from lm.sources import find_sources
from lm.tokens import Bytes, SentencePiece, train
from toybench.arguments import Parser
from toybench.config import ConfigError

ROOT = Path(__file__).parent.parent
FILES = [f"{side}.{kind}" for side in ("train", "held_out") for kind in ("bin", "ends.bin", "domains.bin")]
WORDS = ["the", "of", "and", "to", "a", "in", "is", "it", "you", "that", "he", "was", "for", "on", "are", "with"]


def texts(n, seed=0):
    """Different texts of a few words, some with letters beyond ASCII."""
    rng = np.random.default_rng(seed)
    return [f"{seed}-{i} " + " ".join(rng.choice(WORDS, rng.integers(3, 40))) + " é€𝄞"[: i % 5] for i in range(n)]


def lines(documents, hosts=7):
    rows = ({"text": text, "url": f"https://host{i % hosts}.org/{i}"} for i, text in enumerate(documents))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def shelf(tmp_path):
    """Three C4-like files of 200 documents each, gzipped and not."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "a.json.gz").write_bytes(gzip.compress(lines(texts(200, 0))))
    (folder / "b.jsonl").write_bytes(lines(texts(200, 1)))
    (folder / "c.json.gz").write_bytes(gzip.compress(lines(texts(200, 2))))
    return folder


@pytest.fixture
def small(monkeypatch):
    """Batches and commits so small that there are many."""
    monkeypatch.setattr(lm.prepare, "BATCH", 500)
    monkeypatch.setattr(lm.prepare, "COMMIT", 3000)


@pytest.fixture
def corpus(shelf, tmp_path):
    prepare(find_sources([shelf]), Bytes(), tmp_path / "corpus", 0.1)
    return Corpus.open(tmp_path / "corpus")


def content(folder):
    """All that must be the same however a folder came about."""
    meta = json.loads((folder / "meta.json").read_text())
    return [(folder / name).read_bytes() for name in FILES], {key: meta[key] for key in meta if key != "date"}


def documents(folder, side):
    tokens, ends = np.fromfile(folder / f"{side}.bin", "<u2"), np.fromfile(folder / f"{side}.ends.bin", "<i8")
    return [Bytes().decode(part) for part in np.split(tokens, ends[:-1])]


def refused(call, *said):
    with pytest.raises(ConfigError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for words in said:
        assert words in str(caught.value)


# Sources


def test_documents_and_their_domains(shelf):
    sources = find_sources([shelf])
    assert [Path(source.name).name for source in sources] == ["a.json.gz", "b.jsonl", "c.json.gz"]
    found = list(sources[0].documents())
    assert [document.text for document in found] == texts(200, 0)
    assert found[3].domain == "host3.org"
    assert found[-1].at == sources[0].size


def test_a_file_is_taken_once_and_in_the_order_of_the_words(shelf):
    found = find_sources([shelf / "c.json.gz", shelf, f"{shelf}/*.gz"])
    assert [Path(source.name).name for source in found] == ["c.json.gz", "a.json.gz", "b.jsonl"]


def test_plain_text(tmp_path):
    (tmp_path / "poem.txt").write_text("Zwölf\nBoxkämpfer", encoding="utf-8")
    (document,) = find_sources([tmp_path])[0].documents()
    assert document[:2] == ("Zwölf\nBoxkämpfer", tmp_path.name)


def test_parquet(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = {"text": texts(9), "url": [f"http://host{i}.de/x" for i in range(9)], "other": list(range(9))}
    parquet.write_table(arrow.table(table), tmp_path / "x.parquet")
    found = list(find_sources([tmp_path])[0].documents())
    assert [document.text for document in found] == texts(9)
    assert found[2].domain == "host2.de"
    (tmp_path / "x.parquet").write_bytes(b"PAR1 or not")
    refused(lambda: list(find_sources([tmp_path])[0].documents()), "x.parquet", "not Parquet")
    parquet.write_table(arrow.table({"words": ["a"]}), tmp_path / "x.parquet")
    refused(lambda: list(find_sources([tmp_path])[0].documents()), "no column 'text'")


def test_the_standard_library_is_the_same_each_time_and_without_tests():
    first, second = (list(find_sources(["python"])[0].documents()) for _ in range(2))
    assert first == second and len(first) > 300
    domains = {document.domain for document in first}
    assert {"asyncio", "json", "argparse"} <= domains and not domains & {"test", "site-packages"}


GOOD = lines(texts(3))
BAD = [
    ("x.json.gz", gzip.compress(lines(texts(500)))[:-3000], "truncated"),
    ("x.json.gz", GOOD, "line 1: not gzip"),
    ("x.json", GOOD + b'{"text": "an unfinished li', "line 4: not JSON"),
    ("x.json", GOOD + b'{"words": "none"}\n', "line 4: no field 'text'"),
    ("x.json", GOOD + b'{"text": 5}\n', "line 4: 'text' is no text"),
    ("x.json", GOOD + b'{"text": " \\n"}\n', "line 4: an empty document"),
    ("x.json", GOOD + b'["text"]\n', "line 4: expected a JSON object"),
    ("x.json", GOOD + b'{"text": "\\ud800"}\n', "line 4: a document with half a character"),
    ("x.json", GOOD + b'{"text": "\xff"}\n', "line 4: not JSON"),
    ("x.json", b"[" * 100_000, "line 1: not JSON"),
    ("x.json", b"", "holds no documents"),
    ("x.txt", b"", "an empty document"),
    ("x.txt", b"caf\xe9", "not UTF-8"),
]


@pytest.mark.parametrize("name, data, said", BAD)
def test_what_is_no_document_is_refused_and_nothing_is_taken_for_whole(tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    out = tmp_path / "out"
    refused(lambda: prepare(find_sources([tmp_path / name]), Bytes(), out, 0.1), str(tmp_path / name), said)
    refused(lambda: Corpus.open(out), "task.data", "not finished")


def test_a_document_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("lm.files.LONGEST", 1000)
    monkeypatch.setattr("lm.documents.LONGEST", 1000)
    for name, data in (("x.json", b'{"text": "' + b"a" * 9000), ("y.txt", b"a" * 2000), ("z.txt", b"a" * 5000)):
        (tmp_path / name).write_bytes(data)
        refused(lambda name=name: list(find_sources([tmp_path / name])[0].documents()), name, "1,000 characters")


@pytest.mark.parametrize(
    "word, said", [("nowhere.json", "no file"), ("x.pdf", "is none of"), ("c4:2000", "c4:FILES"), ("empty", "no file")]
)
def test_sources_that_are_not_there(tmp_path, word, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.pdf").touch()
    Path("empty").mkdir()
    refused(lambda: find_sources([word]), "source", said)


def test_c4_is_streamed_file_by_file(monkeypatch):
    asked = []

    def load_dataset(name, data_files, **rest):
        asked.append((name, data_files))
        return iter([{"text": "some text", "url": "https://a.com/b", "timestamp": "2019"}])

    fake = SimpleNamespace(load_dataset=load_dataset, Features=dict, Value=str)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    sources = find_sources(["c4:2"])
    assert [document[:2] for source in sources for document in source.documents()] == [("some text", "a.com")] * 2
    assert asked[1] == ("allenai/c4", "en/c4-train.00001-of-01024.json.gz")
    fake.load_dataset = lambda *_, **__: (_ for _ in ()).throw(ConnectionError("no route\nto host"))
    refused(lambda: list(sources[0].documents()), "allenai/c4", "cannot be reached", "no route")
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused(lambda: list(sources[0].documents()), "pip install")


# Tokenizers


def test_bytes_there_and_back():
    for text, ids in zip(texts(20), Bytes().encode(texts(20))):
        assert Bytes().decode(ids) == text and ids.max() < 256
    assert Bytes().decode([104, 105, 256]) == "hi"


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A vocabulary of 330 trained on a few texts."""
    pytest.importorskip("sentencepiece")
    path = tmp_path_factory.mktemp("pieces") / "x.json"
    path.write_bytes(lines(texts(300)))
    return train(find_sources([path]), 330, lambda text: False)


def test_a_trained_vocabulary_is_lossless_and_the_same_each_time(pieces, tmp_path):
    assert (pieces.vocabulary, pieces.end) == (330, 1)
    hard = [*texts(20, 9), "two  spaces \n and\ttabs ", " before", "Ω≈ç 中文"]
    assert [pieces.decode(ids) for ids in pieces.encode(hard)] == hard
    (tmp_path / "x.json").write_bytes(lines(texts(300)))
    again = train(find_sources([tmp_path / "x.json"]), 330, lambda text: False)
    assert again.identity == pieces.identity
    refused(lambda: train(find_sources([tmp_path / "x.json"]), 50_000, lambda text: False), "tokenizer", "50000")
    (tmp_path / "x.json").write_bytes(GOOD + b"bad")
    refused(lambda: train(find_sources([tmp_path / "x.json"]), 330, lambda text: False), "x.json, line 4: not JSON")


def test_a_model_in_a_file(pieces, tmp_path):
    (tmp_path / "a.model").write_bytes(pieces.model)
    loaded = SentencePiece.load(tmp_path / "a.model", end=0)
    assert (loaded.identity, loaded.end) == (pieces.identity, 0)
    refused(lambda: SentencePiece.load(tmp_path / "a.model", end=330), "no token 330")
    refused(lambda: SentencePiece.load(tmp_path / "b.model"), "tokenizer", "cannot be read")
    (tmp_path / "b.model").write_bytes(b"no model")
    refused(lambda: SentencePiece.load(tmp_path / "b.model"), "no SentencePiece model")


def test_prepared_with_pieces(pieces, shelf, tmp_path):
    meta = prepare(find_sources([shelf]), pieces, tmp_path / "out", 0.1)
    corpus = Corpus.open(tmp_path / "out", vocabulary=330)
    assert corpus.tokenizer().identity == pieces.identity
    assert meta["train"]["tokens"] < meta["train"]["text_bytes"]
    refused(lambda: Corpus.open(tmp_path / "out", vocabulary=BYTES), "task.vocabulary", ">= 330", "257")


def test_a_large_vocabulary_has_tokens_of_32_bits(shelf, tmp_path):
    class Wide(Bytes):
        vocabulary, end, identity = 70_000, 69_999, "wide"

    meta = prepare(find_sources([shelf]), Wide(), tmp_path / "out", 0.1)
    found = Corpus.open(tmp_path / "out").split(2, "iid", 0).packed(500)
    assert meta["dtype"] == "<u4" and found.dtype == np.uint32 and found.max() == 69_999


# Prepare


def test_every_document_is_on_one_side_and_twins_are_together(tmp_path):
    (tmp_path / "a.json").write_bytes(lines(texts(300)))
    (tmp_path / "b.json").write_bytes(lines(texts(300)[::-1]))
    meta = prepare(find_sources([tmp_path]), Bytes(), tmp_path / "out", 0.2)
    training, held_out = documents(tmp_path / "out", "train"), documents(tmp_path / "out", "held_out")
    assert sorted(training + held_out) == sorted(2 * texts(300))
    assert not set(training) & set(held_out)
    assert 60 < len(held_out) < 180 and all(is_held_out(text, 0.2) for text in held_out)
    assert meta["held_out"]["text_bytes"] == sum(len(text.encode()) for text in held_out)
    assert meta["held_out"]["tokens"] == meta["held_out"]["text_bytes"] + len(held_out)


class Kill(BaseException):
    """What a kill is to the process: nothing catches it."""


@pytest.mark.parametrize(
    "where, at",
    [("write_json", 1), ("write_json", 2), ("write_json", 9), ("_write", 1), ("_write", 17), ("_write", 60)],
)
def test_a_killed_preparation_goes_on_to_the_same_bytes(shelf, tmp_path, small, monkeypatch, where, at):
    prepare(find_sources([shelf]), Bytes(), tmp_path / "whole", 0.1)
    left = [at]

    def dying(function):
        def call(*arguments):
            left[0] -= 1
            if left[0] == 0:
                raise Kill
            return function(*arguments)

        return call

    owner = lm.prepare if where == "write_json" else lm.prepare._Packing
    with monkeypatch.context() as patch:
        patch.setattr(owner, where, dying(getattr(owner, where)))
        with pytest.raises(Kill):
            prepare(find_sources([shelf]), Bytes(), tmp_path / "out", 0.1)
    refused(lambda: Corpus.open(tmp_path / "out"), "not finished")
    prepare(find_sources([shelf]), Bytes(), tmp_path / "out", 0.1)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def run_python(code, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stderr=subprocess.PIPE,
    )


SLOWLY = """
import sys, time, lm.prepare
from lm.sources import find_sources
from lm.tokens import Bytes
lm.prepare.BATCH, lm.prepare.COMMIT = 500, 3000
lm.prepare.prepare(find_sources([sys.argv[1]]), Bytes(), sys.argv[2], 0.1, lambda said, amount: time.sleep(0.02))
"""


def test_a_process_killed_for_good(shelf, tmp_path):
    process, progress = run_python(SLOWLY, shelf, tmp_path / "out"), tmp_path / "out" / "progress.json"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if progress.exists() and json.loads(progress.read_text())["now"]["source"] >= 1:
            break
        time.sleep(0.005)
    refused(lambda: prepare(find_sources([shelf]), Bytes(), tmp_path / "out", 0.1), "another process")
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    prepare(find_sources([shelf]), Bytes(), tmp_path / "out", 0.1)
    prepare(find_sources([shelf]), Bytes(), tmp_path / "whole", 0.1)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_mended_file_is_read_anew_and_the_rest_is_kept(shelf, tmp_path, small):
    whole = (shelf / "b.jsonl").read_bytes()
    (shelf / "b.jsonl").write_bytes(whole[: len(whole) // 2])
    refused(lambda: prepare(find_sources([shelf]), Bytes(), tmp_path / "out", 0.1), "b.jsonl, line", "not JSON")
    (shelf / "b.jsonl").write_bytes(whole)
    prepare(find_sources([shelf]), Bytes(), tmp_path / "out", 0.1)
    prepare(find_sources([shelf]), Bytes(), tmp_path / "whole", 0.1)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_folder_is_not_mixed_with_another(shelf, tmp_path, small, monkeypatch):
    out = tmp_path / "out"
    (shelf / "c.json.gz").rename(tmp_path / "c")
    (shelf / "c.json").write_bytes(b"bad")
    refused(lambda: prepare(find_sources([shelf]), Bytes(), out, 0.1), "c.json")
    refused(lambda: prepare(find_sources([shelf]), Bytes(), out, 0.2), "out", "other settings")
    refused(lambda: prepare(find_sources([shelf / "b.jsonl"]), Bytes(), out, 0.1), "out", "a.json.gz")
    (shelf / "c.json").unlink()
    first = prepare(find_sources([shelf]), Bytes(), out, 0.1)
    assert prepare(find_sources([shelf]), Bytes(), out, 0.1) == first  # nothing to be done
    refused(lambda: prepare(find_sources([shelf / "b.jsonl"]), Bytes(), out, 0.1), "out", "other sources")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.bin").touch()
    refused(lambda: prepare(find_sources([shelf]), Bytes(), tmp_path / "mine", 0.1), "of no preparation")


def test_a_full_disk(shelf, tmp_path, small, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lm.prepare.os, "fsync", full)
        refused(lambda: prepare(find_sources([shelf]), Bytes(), tmp_path / "out", 0.1), "out", "No space left")
    refused(lambda: Corpus.open(tmp_path / "out"), "not finished")
    prepare(find_sources([shelf]), Bytes(), tmp_path / "out", 0.1)


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan")])
def test_a_share_that_holds_nothing_out(shelf, tmp_path, share):
    refused(lambda: prepare(find_sources([shelf]), Bytes(), tmp_path / "out", share), "held_out_share")


def test_too_few_documents_to_hold_one_out(tmp_path):
    (tmp_path / "x.json").write_bytes(lines(texts(3)))
    refused(lambda: prepare(find_sources([tmp_path]), Bytes(), tmp_path / "out", 1e-6), "held_out_share", "few")


def test_a_damaged_folder(corpus):
    refused(lambda: Corpus.open(corpus.folder / "not"), "task.data", "not there")
    (corpus.folder / "train.bin").write_bytes(b"short")
    refused(lambda: Corpus.open(corpus.folder), "task.data", "train.bin", "damaged")
    (corpus.folder / "meta.json").write_text('{"schema": 99}')
    refused(lambda: Corpus.open(corpus.folder), "task.data", "prepare it again")


def test_threads_that_end_in_any_order_write_what_one_would(shelf, tmp_path, small, monkeypatch):
    """And hold only so many batches, whatever the corpus's size."""
    prepare(find_sources([shelf]), Bytes(), tmp_path / "whole", 0.1)
    held, draw, batches, packing = [0], random.Random(0), lm.prepare.batches, lm.prepare._Packing

    class Slow(Bytes):
        def encode(self, texts):
            time.sleep(draw.uniform(0, 0.004))
            return Bytes().encode(texts)

    def watched(documents):
        for batch in batches(documents):
            held.append(held[-1] + 1)
            yield batch

    class Noted(packing):
        def _write(self, batch, ids, before):
            held.append(held[-1] - 1)
            return super()._write(batch, ids, before)

    monkeypatch.setattr(lm.prepare, "cores", lambda: 3)
    monkeypatch.setattr(lm.prepare, "batches", watched)
    monkeypatch.setattr(lm.prepare, "_Packing", Noted)
    prepare(find_sources([shelf]), Slow(), tmp_path / "out", 0.1)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert held[-1] == 0 and max(held) == 2 * 3


# Shards and batches


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
    assert all(np.array_equal(row, held_out[i : i + 65]) for row, i in zip(found[:1], [0]))
    assert len({tuple(row) for row in found}) == 20
    refused(lambda: corpus.held_out(10**6, 64), "task.held_out", "10")


def test_too_little_data(corpus):
    refused(lambda: corpus.split(4, "iid", 0).batch(0, 0, 1, 10**6), "task.data", "cluster.shards = 4", "sequence")
    refused(lambda: corpus.split(8, "domain", 0), "task.partition", "cluster.shards = 8", "has 7")
    refused(lambda: corpus.split(2000, "iid", 0), "task.data", "cluster.shards = 2000")
    refused(lambda: corpus.split(2, "odd", 0), "task.partition")


# The standard library's corpus, and the command

BUILD = "from lm.data import Corpus; Corpus.open('python', 257)"


def test_two_processes_make_the_standard_library_at_once(tmp_path, monkeypatch):
    both = [run_python(BUILD, TOYBENCH_CACHE=str(tmp_path)) for _ in range(2)]
    for process in both:
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 0, said
    monkeypatch.setenv("TOYBENCH_CACHE", str(tmp_path))
    folder = python_corpus()
    assert [path.name for path in (tmp_path / "corpora").iterdir()] == [folder.name]
    corpus = Corpus.open()
    assert corpus.split(4, "domain", 0).packed(128).shape[0] == 4
    assert corpus.held_out(64, 128).max() < 257
    assert "import" in corpus.tokenizer().decode(corpus.held_out(64, 128).ravel())


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TOYBENCH_CACHE", str(tmp_path / "file"))
    refused(Corpus.open, "task.data", "TOYBENCH_CACHE")


def call(*words):
    parser = Parser(prog="data")
    command.add(parser, None)
    return command.run(parser.parse_known([str(word) for word in words]))


def test_the_command(shelf, tmp_path, capsys):
    assert call("prepare", shelf, "--out", tmp_path / "out", "--held-out-share", "0.1") == 0
    assert "documents" in capsys.readouterr().out
    assert call("prepare", shelf, "--out", tmp_path / "out", "--held-out-share", "0.1", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["train"] == Corpus.open(tmp_path / "out").meta["train"]
    refused(lambda: call("prepare", shelf, "--out", tmp_path / "x", "--tokenizer", "train:12"), "tokenizer", "300")
    refused(lambda: call("prepare", shelf, "--out", tmp_path / "x", "--tokenizer", "nowhere"), "tokenizer")
    refused(lambda: call("prepare", shelf, "--out", tmp_path / "x", "--end", "3"), "end")


def test_the_command_trains_once(shelf, tmp_path, monkeypatch):
    pytest.importorskip("sentencepiece")
    words = ("prepare", shelf, "--tokenizer", "train:330", "--out", tmp_path / "out")
    assert call(*words) == 0
    monkeypatch.setattr("lm.tokens.train", None)
    assert call(*words) == 0
    assert Corpus.open(tmp_path / "out").vocabulary == 330


def test_an_interrupted_command_keeps_what_it_has(shelf, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(lm.prepare._Packing, "_write", interrupted)
    assert call("prepare", shelf, "--out", tmp_path / "out") == 130
    assert "goes on" in capsys.readouterr().err
