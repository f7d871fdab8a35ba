"""`python -m lm eval`, `sample` and `export` on runs that `train` left: the same loss, the same text, one line each."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flax")
pytest.importorskip("safetensors")
pytest.importorskip("sentencepiece")

from lm.cli import main
from lm.data import Corpus
from lm.prepare import prepare
from lm.runs import open_trained
from lm.sources import find_sources
from lm.task import LanguageTask
from lm.tokens import Bytes, train

SMALL = [
    *("--task.width", "16", "--task.heads", "2", "--task.head-size", "8", "--task.sequence", "16"),
    *("--task.batch", "2", "--task.held-out", "10", "--task.vocabulary", "320", "--cluster.local-steps", "4"),
    *("--budget.rounds", "6", "--budget.evaluations", "3", "--cluster.sec-per-step", "1", "1.7"),
]
WORDS = ["the", "of", "and", "to", "a", "in", "is", "it", "you", "that", "he", "was", "für", "on", "are", "with"]


def texts(n):
    rng = np.random.default_rng(0)
    return [f"{i} " + " ".join(rng.choice(WORDS, rng.integers(3, 40))) for i in range(n)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with text prepared as bytes and as pieces, and a run on each."""
    place = tmp_path_factory.mktemp("place")
    (place / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(300)))
    sources = find_sources([str(place / "text.jsonl")])
    for name, tokenizer in {"bytes": Bytes(), "pieces": train(sources, 300, lambda text: False)}.items():
        prepare(sources, tokenizer, place / name, 0.1)
        words = ["--task.data", str(place / name), "--out", str(place / f"on-{name}"), "--store", str(place / "runs")]
        assert main(["train", *SMALL, *words]) == 0
    return place


@pytest.fixture(scope="module")
def run_of(place):
    return {name: place / f"on-{name}" / "run" for name in ("bytes", "pieces")}


def answered(capsys, *words):
    """What a command prints as JSON."""
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *words):
    """The line on standard error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, words)])
    out, err = capsys.readouterr()
    assert stopped.value.code == 2 and out == "" and err.count("\n") == 1
    return err.removeprefix("toybench: error: ").rstrip("\n")


both = pytest.mark.parametrize("name", ["bytes", "pieces"])


# Evaluation


@both
def test_the_loss_is_the_trainings_last_bit_for_bit(run_of, name, capsys):
    found = answered(capsys, "eval", run_of[name])
    curves = json.loads((run_of[name] / "run.json").read_text())["curves"]
    assert found["loss"] == found["in_training"] == curves["loss"][-1]
    np.testing.assert_allclose(found["perplexity"], curves["perplexity"][-1], rtol=1e-6)
    assert (found["sequences"], found["sequence"]) == (10, 16)
    assert found["source"]["local_steps"] == curves["local_steps"][-1]


@both
def test_any_number_of_sequences_is_their_mean(place, run_of, name, capsys):
    corpus, trained = Corpus(place / name), open_trained(str(run_of[name]))
    there = (corpus.meta["held_out"]["tokens"] - 1) // 16
    for asked, n in (("all", there), ("1", 1), ("23", 23)):
        found = answered(capsys, "eval", run_of[name], "--sequences", asked)
        held_out = corpus.held_out(n, 16)
        expected = LanguageTask(trained.settings, corpus).loss(trained.params, held_out)
        np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)
        assert (found["sequences"], found["of"], found["in_training"]) == (n, there, None)


@both
def test_bits_are_of_the_texts_own_bytes(place, run_of, name, capsys):
    """All nats of the held-out text over all its bytes, whatever the tokens: the text is the same for both."""
    corpus = Corpus(place / name)
    tokens = np.fromfile(place / name / "held_out.bin", corpus.meta["dtype"])
    text = corpus.tokenizer().decode(tokens)
    documents = corpus.meta["held_out"]["documents"]
    found = answered(capsys, "eval", run_of[name])
    spaces = documents - 1 if name == "pieces" else 0  # SentencePiece begins each document with one
    bits = found["loss"] * len(tokens) / np.log(2) / (len(text.encode()) - spaces)
    np.testing.assert_allclose(found["bits_per_byte"], bits, rtol=1e-12)


def test_other_data_of_the_same_tokenizer(place, run_of, tmp_path, capsys):
    shutil.copytree(place / "bytes", tmp_path / "same")
    assert answered(capsys, "eval", run_of["bytes"], "--data", tmp_path / "same")["in_training"] is not None
    prepare(find_sources([str(place / "text.jsonl")]), Bytes(), tmp_path / "more", 0.5)
    assert main(["eval", str(run_of["bytes"]), "--data", str(tmp_path / "more")]) == 0
    out, err = capsys.readouterr()
    assert f"held out of {tmp_path / 'more'}" in out and "in training" not in out
    assert "more' holds out more than the run's data" in err and err.count("\n") == 1


def test_wrong_data_are_refused(place, run_of, tmp_path, capsys):
    said = refused(capsys, "eval", run_of["bytes"], "--data", place / "pieces")
    assert said.startswith("data: ") and "was prepared with another tokenizer than" in said
    said = refused(capsys, "eval", run_of["bytes"], "--data", tmp_path / "none")
    assert said.startswith("data: ") and "is not there; expected a folder that" in said
    for word, expected in {"0": "must be 1 to", "100000": "must be 1 to", "-1": "expected", "many": "expected"}.items():
        assert refused(capsys, "eval", run_of["bytes"], f"--sequences={word}").startswith(f"sequences: {expected}")


def test_data_that_are_no_longer_those_of_the_run_are_refused(place, run_of, tmp_path, capsys):
    moved = tmp_path / "run"
    shutil.copytree(run_of["bytes"], moved)
    note = json.loads((moved / "data.json").read_text())
    note["train"]["sha256"] = "0"
    (moved / "data.json").write_text(json.dumps(note))
    said = refused(capsys, "eval", moved)
    assert "holds other text than" in said and f"--data {place / 'bytes'} evaluates on it all the same" in said
    assert answered(capsys, "eval", moved, "--data", place / "bytes")["loss"] > 0
    words = [*SMALL, "--task.data", place / "bytes", "--out", tmp_path, "--resume", "--store", tmp_path / "runs"]
    assert "was begun on other data than are in" in refused(capsys, "train", *words)


# A run's folder


def test_a_run_that_was_stopped_is_taken_as_it_is(run_of, tmp_path, capsys):
    shutil.copytree(run_of["bytes"], tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    assert answered(capsys, "eval", tmp_path / "run")["in_training"] is not None


def test_a_run_that_does_not_say_its_data_needs_them(place, run_of, tmp_path, capsys, monkeypatch):
    shutil.copytree(run_of["pieces"], tmp_path / "run")
    for name in ("data.json", "tokenizer.model"):
        (tmp_path / "run" / name).unlink()
    assert answered(capsys, "eval", tmp_path / "run")["in_training"] is not None
    assert answered(capsys, "sample", tmp_path / "run", "--tokens", 5)["samples"][0]["tokens"]
    monkeypatch.setattr(Corpus, "open", classmethod(lambda cls, *words: cls(tmp_path / "gone")))
    said = refused(capsys, "sample", tmp_path / "run")
    assert "does not say what it was trained on, and" in said and "gone' is not there" in said


def test_what_is_no_model_is_refused(place, run_of, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun" / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir(parents=True)
    (tmp_path / "text.safetensors").write_text("no tensors")
    expected = {
        tmp_path / "none": "is not there; expected the folder that",
        tmp_path / "empty": "holds no model; expected the folder that",
        run_of["bytes"].parent: "holds runs, run; expected the folder that",
        tmp_path / "begun": "holds no finished checkpoint",
        tmp_path / "text.safetensors": "is no whole safetensors file",
        place / "text.jsonl": "is no whole safetensors file",
    }
    for path, words in expected.items():
        for command in (["eval"], ["sample"], ["export", "-o", tmp_path / "x.safetensors"]):
            said = refused(capsys, *command, path)
            assert said.startswith("model: ") and words in said


def test_a_damaged_checkpoint_is_one_line(run_of, tmp_path):
    """Also on the standard error of the whole process, where what reads in the background might complain."""
    shutil.copytree(run_of["bytes"], tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").rglob("ocdbt.process_0/d/*"):
        path.write_bytes(bytes(byte ^ 90 for byte in path.read_bytes()))
    done = lm("eval", tmp_path / "run")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "model: the last checkpoint in" in done.stderr and "cannot be read" in done.stderr


def lm(*words, program=("-m", "lm")):
    return subprocess.run(
        [sys.executable, *program, *map(str, words)], capture_output=True, text=True, timeout=240, env=os.environ
    )


# Samples


@both
def test_a_seed_gives_the_same_text(run_of, name, capsys):
    words = ["sample", run_of[name], "--prompt", "12 the für", "--tokens", 20, "--count", 2, "--top-k", 20]
    a, again, b = (answered(capsys, *words, "--seed", seed)["samples"] for seed in (5, 5, 6))
    assert a == again and [one["text"] for one in a] != [one["text"] for one in b]
    assert all(one["text"].startswith("12 the für") for one in a)


def test_what_is_printed_moves_no_terminal(run_of, capsys):
    assert main(["sample", str(run_of["bytes"]), "--temperature", "100", "--count", "2", "--tokens", "200"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("--- 1 of 2\n") and "\n--- 2 of 2\n" in out
    assert not [c for c in out if c not in "\n\t" and (ord(c) < 32 or 127 <= ord(c) < 160)] and "\ufffd" in out
    assert "toybench: warning: tokens: 201 with the prompt are more than the 16" in err


def test_samples_that_cannot_be_are_refused(run_of, capsys):
    for words, said in {
        ("--temperature", "-1"): "temperature: must be >= 0",
        ("--tokens", "0"): "tokens: must be >= 1 and < 2147483648",
        ("--prompt", "\udcff"): "prompt: is no Unicode text",
        ("--top-k", "1000"): "top_k: must be <= 257",
    }.items():
        assert refused(capsys, "sample", run_of["bytes"], *words).startswith(said)


# Exports


@both
def test_an_export_is_the_model_bit_for_bit(run_of, name, tmp_path, capsys):
    file = tmp_path / "own" / "model.safetensors"
    files = answered(capsys, "export", run_of[name], "-o", file)["files"]
    assert {Path(path).name for path in files} == {path.name for path in file.parent.iterdir()}
    assert (file.parent / "tokenizer.model").exists() == (name == "pieces")
    loss = answered(capsys, "eval", run_of[name])
    text = answered(capsys, "sample", run_of[name], "--tokens", 12)["samples"]
    for export in (file, file.parent):
        found = answered(capsys, "eval", export)
        assert {k: v for k, v in found.items() if k not in ("model", "source")} == {
            k: v for k, v in loss.items() if k not in ("model", "source")
        }
        assert found["source"] == loss["source"] | {"name": str(run_of[name])}
        assert answered(capsys, "sample", export, "--tokens", 12)["samples"] == text


def test_an_export_is_all_that_is_needed(run_of, tmp_path, capsys, monkeypatch):
    """Elsewhere, without run and data: text, and a loss on other data; but not without its tokenizer."""
    file = tmp_path / "own" / "model.safetensors"
    answered(capsys, "export", run_of["pieces"], "-o", file)
    monkeypatch.setattr(Corpus, "open", classmethod(lambda cls, *words: pytest.fail("needs no data")))
    assert answered(capsys, "sample", file.parent, "--tokens", 5)["samples"]
    model = file.parent / "tokenizer.model"
    for spoil in (lambda: model.write_bytes(model.read_bytes()[:-1]), model.unlink):
        spoil()
        said = refused(capsys, "sample", file.parent)
        assert said.startswith("tokenizer: that of ") and "is not in" in said


DIES = """
import os, signal, sys
left, replace = int(sys.argv.pop(1)), os.replace
def dying(*words):
    global left
    left -= 1
    os.kill(os.getpid(), signal.SIGKILL) if not left else replace(*words)
os.replace = dying
from lm.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "number, there", [(1, set()), (2, {"tokenizer.model"}), (3, {"tokenizer.model", "config.json"})]
)
def test_a_kill_leaves_no_half_file(run_of, number, there, tmp_path, capsys):
    """At the last moment before each file appears; over an export that was whole, that one stays."""
    words = ["export", run_of["pieces"], "--dtype", "bfloat16", "-o", tmp_path / "own" / "model.safetensors"]
    done = lm(number, *words, program=("-c", DIES))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert {path.name for path in (tmp_path / "own").iterdir() if path.name[0] != "."} == there
    if number == 3:
        assert "holds no whole export" in refused(capsys, "eval", tmp_path / "own")
        answered(capsys, "export", run_of["pieces"], "-o", words[-1])
        whole = answered(capsys, "eval", tmp_path / "own")
        assert lm(number, *words, program=("-c", DIES)).returncode == -signal.SIGKILL
        assert answered(capsys, "eval", tmp_path / "own") == whole
    assert main([*map(str, words)]) == 0


def test_a_folder_that_cannot_be_written_is_one_line(run_of, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    said = refused(capsys, "export", run_of["bytes"], "-o", tmp_path / "file" / "x.safetensors")
    assert said.startswith("out: cannot write to ")
