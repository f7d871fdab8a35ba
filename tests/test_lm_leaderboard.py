"""A contest between outer methods on a language model: every run once, stopped and gone on with, lost ones counted."""

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("flax")
from lm import contest as room
from lm.checkpoint import Checkpoints
from lm.cli import main
from lm.commands.leaderboard import cluster_name
from lm.config import CHOICES, TWIN
from lm.contest import Contest
from lm.data import Corpus
from lm.loop import Stopped, as_record, carry_out
from lm.maker import digest
from lm.prepare import prepare
from lm.sources import find_sources
from lm.tokens import Bytes
from tests.corpora import SMALL, refused
from toybench.clusters import sec_per_step
from toybench.config import Budget, Cluster, InnerAdamW, Run
from toybench.loading import overlay
from toybench.outer import METHODS
from toybench.store import Store

RUN = Run(
    TWIN,
    Cluster(local_steps=3),
    InnerAdamW(lr=1e-2),
    METHODS["sgd"].settings(lr=0.5),
    Budget(rounds=3, evaluations=2),
)


@pytest.fixture
def contest(tmp_path):
    with Store(tmp_path / "runs.sqlite") as store:
        yield Contest(store, tmp_path / "unfinished", every=0.0)


def forbidden(*_, **__):
    raise AssertionError("it was trained again")


def test_a_run_is_trained_once_and_leaves_no_checkpoints(contest, monkeypatch, tmp_path):
    [first] = contest.measure([as_record(RUN)], [0, 1])
    monkeypatch.setattr(room, "carry_out", forbidden)
    [again] = contest.measure([as_record(RUN)], [1, 0])
    np.testing.assert_array_equal(again.final_loss, first.final_loss[::-1])
    assert first.final_loss[0] < first.metrics["loss"][0, 0] and not first.diverged.any()
    assert not [*(tmp_path / "unfinished").glob("*")]
    with pytest.raises(AssertionError, match="again"):
        contest.measure([overlay(as_record(RUN), {"outer.lr": 0.25})], [0])


def test_a_contest_that_was_stopped_goes_on_to_the_same_numbers(contest, tmp_path):
    [whole] = contest.measure([as_record(RUN)], [0])
    asked = iter([False] * 5 + [True])
    with Store(tmp_path / "other.sqlite") as store:
        other = replace(contest, store=store, folder=tmp_path / "others")
        with pytest.raises(Stopped):
            other.measure([as_record(RUN)], [0], stop=lambda: next(asked))
        assert [*(tmp_path / "others").glob("*")]
        [after] = other.measure([as_record(RUN)], [0])
    np.testing.assert_array_equal(after.metrics["loss"], whole.metrics["loss"])


def test_runs_from_other_parameters_are_other_runs(contest):
    [fresh] = contest.measure([as_record(RUN)], [0])
    start = contest.training(as_record(RUN), 7).begin().server.params
    [started] = replace(contest, start=start).measure([as_record(RUN)], [0])
    assert started.metrics["loss"][0, 0] != fresh.metrics["loss"][0, 0]
    [again] = contest.measure([as_record(RUN)], [0])
    np.testing.assert_array_equal(again.metrics["loss"], fresh.metrics["loss"])
    assert digest(start) != digest(contest.training(as_record(RUN), 8).begin().server.params)


def prepared(folder, spoken):
    """Text prepared at one place, again and again: forty small documents of which each begins with what is spoken."""
    (folder / "text").mkdir(exist_ok=True)
    for i in range(40):
        (folder / "text" / f"{i:02}.txt").write_text(f"{spoken} {i} " * (10 + i))
    shutil.rmtree(folder / "tokens", ignore_errors=True)
    prepare(find_sources([str(folder / "text")]), Bytes(), str(folder / "tokens"), 0.2)
    return overlay(as_record(RUN), {"task.data": str(folder / "tokens")})


def test_other_data_at_the_same_place_are_another_run(contest, tmp_path):
    """In the store, to a contest, and to a checkpoint; one that does not say its data is gone on with."""
    run = prepared(tmp_path, "document")
    [first] = contest.measure([run], [0])
    old = contest.training(run, 0)
    run = prepared(tmp_path, "other")
    again = replace(contest)
    assert again.lacking(run, [0]) == [0]
    [second] = again.measure([run], [0])
    assert second.metrics["loss"][0, 0] != first.metrics["loss"][0, 0]
    checkpoints = Checkpoints(tmp_path / "kept", old)
    carry_out(old, checkpoints)
    checkpoints.close()
    new = again.training(run, 0)
    checkpoints = Checkpoints(tmp_path / "kept", new)
    refused(checkpoints.latest, f"the checkpoint is of data {old.data}, not {new.data}")
    checkpoints.close()
    [meta] = (tmp_path / "kept").glob("*/meta/metadata")
    meta.write_text(json.dumps({k: v for k, v in json.loads(meta.read_text()).items() if k != "data"}))
    checkpoints = Checkpoints(tmp_path / "kept", new)
    assert checkpoints.latest() is not None
    checkpoints.close()


def test_data_that_differ_in_what_is_held_out_are_other_data(tmp_path):
    prepared(tmp_path, "document")
    one = Corpus.open(tmp_path / "tokens")
    meta = json.loads((tmp_path / "tokens" / "meta.json").read_text())
    meta["held_out"]["sha256"] = "0" * 64
    (tmp_path / "tokens" / "meta.json").write_text(json.dumps(meta))
    assert one.identity != Corpus.open(tmp_path / "tokens").identity


def test_a_run_that_loses_itself_counts_as_the_untrained_model(contest):
    wild = overlay(as_record(RUN), {"outer.lr": 1e30})
    [lost] = contest.measure([wild], [0])
    assert lost.diverged.all() and lost.final_loss[0] == lost.metrics["loss"][0, 0]
    assert lost.metrics["loss"].shape == (1, 3) and np.isfinite(lost.metrics["loss"][0, 0])


def test_the_command_writes_what_compare_reads(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("toybench.tuning.CLIMBS", 0)  # three rates will do
    (tmp_path / "run.toml").write_text(SMALL)
    words = ["--store", str(tmp_path / "runs.sqlite"), "--out", str(tmp_path / "out")]
    assert main(["leaderboard", str(tmp_path / "run.toml"), "sgd", "--json", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = found["clusters"]["very-4"]
    assert {row["name"] for row in rows} == {"sync nesterov", "sgd"}
    assert found["seeds"]["tuning"] == [1000] and all(len(row["losses"]) == 2 for row in rows)
    from toybench.compare import read_contest, sides

    assert set(sides(read_contest(str(tmp_path / "out" / "leaderboard.json")), "lm")) == {"very-4"}


def toy_board(folder, **settings):
    """A leaderboard on "very-4" where FedBuff was best with these settings."""
    row = {"name": "fedbuff", "losses": [1.0, 2.0], "settings": settings}
    path = folder / "board.json"
    path.write_text(json.dumps({"clusters": {"very-4": [row]}}))
    return str(path)


def test_methods_take_what_another_leaderboard_found_best(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("toybench.tuning.CLIMBS", 0)
    (tmp_path / "run.toml").write_text(SMALL)
    path = toy_board(tmp_path, **{"outer.lr": 2.8, "outer.buffer_size": 3})
    words = ["--store", str(tmp_path / "runs.sqlite"), "--out", str(tmp_path / "out"), "--settings", path, "--json"]
    assert main(["leaderboard", str(tmp_path / "run.toml"), "fedbuff", "ringmaster", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    best = {row["name"]: row["settings"] for row in found["clusters"]["very-4"]}
    assert best["fedbuff"].pop("outer.lr") != 2.8  # which is tuned here
    assert best["fedbuff"] == {"outer.buffer_size": 3}
    assert [*best["ringmaster"]] == [*best["sync nesterov"]] == ["outer.lr"]
    said = (tmp_path / "out" / "leaderboard.md").read_text()
    assert f"another leaderboard ({found['settings']['sha256']}) found them best" in said
    assert "but for sync nesterov, ringmaster, which it does not have" in said
    with closing(sqlite3.connect(tmp_path / "runs.sqlite")) as kept:
        outer = [json.loads(text)["outer"] for (text,) in kept.execute("SELECT document FROM configs")]
    assert [one["buffer_size"] for one in outer if one["method"] == "fedbuff"] == [3] * 5


def test_what_is_asked_for_reaches_the_contest_and_the_record(tmp_path, capsys, monkeypatch):
    (tmp_path / "run.toml").write_text(SMALL)
    made, saved, start = [], [], {"table": np.ones(3)}

    def read(folder, task):
        assert folder == str(tmp_path / "before")
        return start, {"parameters": "0123abcd"}

    monkeypatch.setattr("lm.start.read_start", read)
    monkeypatch.setattr("lm.contest.Contest", lambda store, folder, lanes, start: made.append((lanes, start)))
    monkeypatch.setattr("toybench.leaderboard.board", lambda *_: [{"clusters": {}}])
    monkeypatch.setattr("toybench.leaderboard.save", lambda document, out: saved.append((document, out)))
    words = ["leaderboard", str(tmp_path / "run.toml"), "sgd", "--json", "--out", str(tmp_path / "out")]
    words += ["--store", str(tmp_path / "runs.sqlite")]
    assert main([*words, "--lanes", "2", "--init", str(tmp_path / "before")]) == 0
    assert json.loads(capsys.readouterr().out)["init"] == "0123abcd"
    assert main(words) == 0
    assert "init" not in json.loads(capsys.readouterr().out)
    assert made == [(2, start), (1, None)]
    assert [(document.get("init"), out) for document, out in saved] == [
        ("0123abcd", tmp_path / "out"),
        (None, tmp_path / "out"),
    ]


@pytest.mark.parametrize(
    ("cluster", "partition", "name"),
    [
        ({}, "iid", "very-4"),
        ({}, "domain", "very-4-noniid"),
        ({"grace": 2.0, "local_steps": 7}, "iid", "very-4"),  # which the docstring says
        ({"sec_per_step": (1.0, 2.0)}, "iid", "run"),
        ({"sec_per_step": tuple(sec_per_step(4, "none"))}, "iid", "none-4"),
        ({"sec_per_step": tuple(sec_per_step(4, "none"))}, "domain", "run"),
    ],
)
def test_a_cluster_is_named_by_its_speeds_and_its_partition(cluster, partition, name):
    very = replace(RUN.cluster, **({"sec_per_step": tuple(sec_per_step(4, "very"))} | cluster))
    assert cluster_name(replace(RUN, cluster=very, task=replace(TWIN, partition=partition))) == name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sdg"], "did you mean 'sgd'"),
        (["--outer.lr", "0.1"], "outer.lr"),
        (["--cluster.barrier", "true"], "cluster.barrier"),
        (["--seeds", "1000", "1001"], "no tuning seeds"),
        (["--init", "nowhere"], "holds no checkpoints"),
        (["--start", "0"], "start: must be > 0 and <= 3.4e+38, got 0.0"),
        (["--start", "inf"], "start: must be > 0 and <= 3.4e+38, got inf"),
        (["--start", "nan"], "start: must be > 0 and <= 3.4e+38, got nan"),
        (["--settings", "nowhere.json"], "nowhere.json: cannot be read"),
        (["--lanes", "0"], "lanes: must be from 1 to 4, the run's workers, got 0"),
        (["--lanes", "5"], "lanes: must be from 1 to 4, the run's workers, got 5"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, words, said):
    (tmp_path / "run.toml").write_text(SMALL)
    with pytest.raises(SystemExit) as end:
        main(["leaderboard", str(tmp_path / "run.toml"), *words, "--out", str(tmp_path / "out")])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert [one.name for one in tmp_path.iterdir()] == ["run.toml"]


@pytest.mark.parametrize(
    ("settings", "cluster", "said"),
    [
        ({"cluster.grace": 0.0}, "very", "has 'cluster.grace', which is no setting of an outer method"),
        ({"outer.method": "sgd"}, "very", "has 'outer.method', which is no setting of an outer method"),
        ({"outer.buffer": 3}, "very", "outer.buffer: fedbuff has no such setting; did you mean 'buffer_size'?"),
        ({"outer.buffer_size": -3}, "very", "outer.buffer_size: must be"),
        ({"outer.buffer_size": 3}, "none", "has no cluster 'none-4', only very-4"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(tmp_path, capsys, settings, cluster, said):
    (tmp_path / "run.toml").write_text(SMALL)
    words = ["--settings", toy_board(tmp_path, **settings), "--out", str(tmp_path / "out")]
    words += ["--cluster.sec-per-step", *map(str, sec_per_step(4, cluster))]
    with pytest.raises(SystemExit) as end:
        main(["leaderboard", str(tmp_path / "run.toml"), "fedbuff", *words])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_two_processes_do_not_share_a_folder(tmp_path, capsys):
    from lm.lock import alone

    (tmp_path / "run.toml").write_text(SMALL)
    (tmp_path / "out").mkdir()
    with alone(tmp_path / "out"), pytest.raises(SystemExit) as end:
        words = ["--store", str(tmp_path / "runs.sqlite"), "--out", str(tmp_path / "out")]
        main(["leaderboard", str(tmp_path / "run.toml"), "sgd", *words])
    assert end.value.code == 2 and "another process" in capsys.readouterr().err


def test_a_stored_run_gives_its_model_back():
    from toybench.loading import dump_run, load_run

    assert load_run(dump_run(as_record(RUN)), CHOICES) == RUN
