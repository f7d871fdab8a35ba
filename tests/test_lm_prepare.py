"""Tokens in a folder: what a kill leaves, what is never taken for whole, and the command that prepares."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lm.prepare
from lm.commands import data as command
from lm.data import Corpus, python_corpus
from lm.prepare import is_held_out, prepare
from lm.sources import find_sources
from lm.tokens import Bytes
from tests.corpora import content, documents, fill_shelf, lines, refused, texts
from toybench.arguments import Parser

ROOT = Path(__file__).parent.parent


@pytest.fixture
def shelf(tmp_path):
    return fill_shelf(tmp_path / "shelf")


@pytest.fixture
def small(monkeypatch):
    """Batches and commits so small that there are many."""
    monkeypatch.setattr(lm.prepare, "BATCH", 500)
    monkeypatch.setattr(lm.prepare, "COMMIT", 3000)


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
