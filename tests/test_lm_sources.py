"""Text to tokens: sources, the documents that are refused, tokenizers."""

import gzip
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.config import BYTES
from lm.data import Corpus
from lm.documents import host
from lm.prepare import prepare
from lm.sources import find_sources
from lm.tokens import Bytes, SentencePiece, train
from tests.corpora import fill_shelf, lines, refused, texts


@pytest.fixture
def shelf(tmp_path):
    return fill_shelf(tmp_path / "shelf")


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


@given(st.one_of(st.text(), st.from_regex(r"(https?|ftp|HTTP)://[a-z0-9.A-Z:@\[\]é\n\t -]{0,9}[/?#]?.{0,5}")))
def test_a_host_is_what_urlsplit_says(url):
    try:
        wanted = urlsplit(url).hostname or "else"
    except ValueError:
        wanted = "else"
    assert host(url, "else") == wanted


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
