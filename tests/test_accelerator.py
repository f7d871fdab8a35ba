"""The accelerator study's own machinery: units kept and taken up, tables, packing, starts, plans. Trains nothing."""

import json
import math
import re
import shlex
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax")
from experiments.accelerator import collecting, packing
from experiments.accelerator.__main__ import OTHERS, PARTS, main
from experiments.accelerator.bench import OutOfTime, aligned, open_bench, read_document
from experiments.accelerator.campaign import BATCHES, CAMPAIGNS, EVERY, FEWEST, ROUNDS, model_of, planned, who_of
from experiments.accelerator.campaign import base_run as base_run_of
from experiments.accelerator.ceilings import ceilings
from experiments.accelerator.starts import PIECE, read_start, rounded, save_start
from experiments.accelerator.toy import BATCHES as LANES
from experiments.accelerator.toy import base_run, many, parameters
from lm.model import init
from tests.corpora import fill_shelf, made_of_words, refused
from toybench.leaderboard import REFERENCE
from toybench.records import write_json
from toybench.timeline import simulate

ROOT = Path(__file__).parent.parent
LACKING = ("tyro", "streamlit", "altair", "ray", "grain", "datasets", "platformdirs", "tomli_w", "optuna", "pyarrow")


def bench(folder, seconds=60.0, **settings):
    return open_bench("part", folder, seconds, **settings)


# Units


def test_a_unit_is_done_once_and_kept_whole(tmp_path):
    asked = []
    job = lambda: asked.append(1) or {"value": np.float32(0.5)}  # noqa: E731
    assert bench(tmp_path).unit("one", job)["value"] == 0.5
    assert bench(tmp_path).unit("one", job)["value"] == 0.5 and asked == [1]
    document = read_document(tmp_path / "part.json")
    made = document["made_by"][document["units"]["one"]["made"]]
    assert made["jax"] == jax.__version__ and made["device"] and re.match(r"\d{4}-\d\d-\d\d", made["date"])
    assert [path.name for path in tmp_path.iterdir()] == ["part.json"]


def test_no_unit_is_begun_that_would_not_end(tmp_path):
    with pytest.raises(OutOfTime, match="long"):
        bench(tmp_path, seconds=10).unit("long", dict, needs=11)
    assert bench(tmp_path, seconds=10).unit("short", dict, needs=5)["unit_seconds"] >= 0
    bench(tmp_path, seconds=1e-9).unit("short", dict, needs=5)  # there already: costs nothing


def test_what_fails_says_why_and_is_not_tried_again(tmp_path):
    def fails():
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nand more")

    assert bench(tmp_path).tried("one", fails)["failed"] == "RESOURCE_EXHAUSTED: out of memory"
    assert "failed" in bench(tmp_path).tried("one", lambda: {"value": 1})


def test_other_settings_or_another_device_are_refused(tmp_path):
    bench(tmp_path, tokens="a").unit("one", dict)
    refused(lambda: bench(tmp_path, tokens="b"), "tokens", "another folder")
    document = json.loads((tmp_path / "part.json").read_text())
    document["made_by"][0]["device"] = "another"
    write_json(tmp_path / "part.json", document)
    refused(lambda: bench(tmp_path, tokens="a"), "device another", "another folder")
    (tmp_path / "part.json").write_text("{}")
    refused(lambda: bench(tmp_path), "no document")


def test_a_table_is_aligned_markdown():
    text = aligned([{"a": "x", "b": "1"}, {"a": "long", "b": "22"}]).splitlines()
    assert text[0] == "| a    |  b |" and len({len(line) for line in text}) == 1
    assert aligned([]) == "nothing yet"


def test_ceilings_are_the_best_of_each_kind():
    units = {"product float32 1": {"rate": 1.0}, "product float32 2": {"rate": 3.0}, "copy 4": {"rate": 2.0}}
    assert ceilings(units | {"copy 8": {"failed": "no"}, "other": {"rate": 9.0}}) == {"float32": 3.0, "copy": 2.0}


# The entry


def test_every_part_says_what_it_is(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0 and all(part in said for part in (*PARTS, *OTHERS))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ceilngs"], "ceilngs"),
        (["ceilings", "--seconds", "0"], "seconds: must be > 0"),
        (["ceilings", "--secnds", "1"], "did you mean --seconds"),
        (["confirm-20m"], "tokens: must name a file"),
        (["confirm-20m", "--tokens", "nowhere.xz", "--campaign-seconds", "-1"], "campaign-seconds: must be > 0"),
        (["confirm-20m", "--small", "--local-steps", "0"], "local-steps: must be from 1"),
        (["confirm-20m", "--tokens", "nowhere.xz"], "'nowhere.xz' cannot be read"),
        (["transfer", "--toy", "nowhere.json"], "nowhere.json: cannot be read"),
        (["transfer", "--called", "one", "two"], "called: must name each of 1"),
        (["collect", "nowhere"], "holds no part's document"),
        (["prepare", "nowhere", "--out", "x"], "'nowhere'"),
    ],
)
def test_bad_input_is_one_line(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(words)
    error = capsys.readouterr().err
    assert end.value.code == 2 and said in error and error.count("\n") == 1


def test_the_parts_need_nothing_that_an_accelerator_host_lacks():
    blocked = f"import sys; sys.modules.update(dict.fromkeys({LACKING!r}))"
    code = f"""{blocked}
from experiments.accelerator.__main__ import PARTS, OTHERS, _room, build_parser
build_parser()
from toybench.runtime import configure
configure()
import lm.assemble, lm.benchmark, lm.checkpoint, lm.contest, lm.loop, lm.task, lm.commands.leaderboard
import toybench.leaderboard, toybench.plots.leaderboard, toybench.store, toybench.sweep, toybench.training
import experiments.accelerator.transfer_report
print("fine")"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=200)
    assert done.stdout.strip() == "fine", done.stderr


# Packed tokens and starts


def test_packed_tokens_come_back_to_the_byte(tmp_path):
    fill_shelf(tmp_path / "shelf")
    folder = made_of_words(_folder(tmp_path / "words"))
    packing.pack(folder, tmp_path / "a.xz")
    packing.pack(folder, tmp_path / "b.xz")
    assert (tmp_path / "a.xz").read_bytes() == (tmp_path / "b.xz").read_bytes()
    back = packing.unpacked(tmp_path / "a.xz", tmp_path / "scratch")
    assert back == packing.unpacked(tmp_path / "a.xz", tmp_path / "scratch")
    for path in back.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()
    assert (back / "meta.json").exists() and [*back.parent.iterdir()] == [back]


def test_too_many_tokens_and_damaged_files_are_refused(tmp_path):
    folder = made_of_words(_folder(tmp_path / "words"))
    refused(lambda: packing.pack(folder, tmp_path / "a.xz", most=100), "at most 0.0001 travel")
    refused(lambda: packing.pack(tmp_path, tmp_path / "a.xz"), "no folder that")
    assert not (tmp_path / "a.xz").exists() and not [*tmp_path.glob(".a.xz*")]
    (tmp_path / "broken").write_bytes(b"no archive")
    refused(lambda: packing.unpack(tmp_path / "broken", tmp_path / "back"), "no packed tokens")
    with tarfile.open(tmp_path / "empty.xz", "w:xz"):
        pass
    refused(lambda: packing.unpack(tmp_path / "empty.xz", tmp_path / "back"), "holds no prepared tokens")
    assert not (tmp_path / "back").exists() and not [*tmp_path.glob(".unpacking*")]


def _folder(path):
    path.mkdir()
    return path


def test_a_start_comes_back_bit_for_bit_in_small_files(tmp_path):
    from lm.config import TWIN

    params = rounded(init(TWIN, jax.random.key(3)))
    like = jax.eval_shape(lambda: params)
    assert read_start(tmp_path, "one", like) is None
    save_start(tmp_path, "one", params, {"loss": [1.0]})
    found, note = read_start(tmp_path, "one", like)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert note["loss"] == [1.0] and all(path.stat().st_size <= PIECE for path in tmp_path.iterdir())
    assert PIECE < 16 * 2**20
    refused(lambda: read_start(tmp_path, "one", {"other": jnp.zeros(3)}), "damaged, or of another model")
    (tmp_path / "one.start.0.bin").write_bytes(b"")
    refused(lambda: read_start(tmp_path, "one", like), "damaged")


# Plans


def test_the_methods_are_those_of_the_comparison_on_c4():
    text = (ROOT / "experiments" / "c4_visits.toml").read_text()
    command = re.search(r"python -m lm leaderboard(.*?)--seeds", text, re.S)[1].replace("\\\n#", " ")
    assert set(shlex.split(command)[1:]) == set(EVERY) and len(EVERY) == len(set(EVERY)) >= 12
    assert [*who_of(EVERY)] == [REFERENCE, *EVERY]


@pytest.mark.parametrize("part", CAMPAIGNS)
def test_runs_are_as_long_as_the_time_given_allows(part):
    campaign, lengths = CAMPAIGNS[part], []
    for speed in (1e4, 1e6, 1e8):
        plan = planned(campaign, dict.fromkeys(BATCHES, speed), 1000.0, 256)
        whole = plan["runs"] * plan["run_seconds"] + plan["pretraining_rounds"] * 50 * 4 * plan["batch"] * 256 / speed
        assert FEWEST <= plan["rounds"] <= ROUNDS
        assert whole <= 1000 or plan["rounds"] == FEWEST or plan["pretraining_rounds"] == 1
        lengths.append(plan["tokens"])
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]


def test_without_dylu_the_arrivals_are_those_of_the_toys_board():
    from toybench.loading import overlay
    from toybench.presets import load_preset

    campaign = CAMPAIGNS["confirm-20m"]
    toy = overlay(load_preset("default"), {"cluster.grace": 0.5})
    for steps, dylu in ((50, False), (60, False), (60, True)):
        own = base_run_of(campaign, model_of(campaign, None, False), 4, ROUNDS, steps)
        one, other = (
            simulate(replace(run.cluster, dynamic_steps=dylu, barrier=False), run.budget, 200) for run in (toy, own)
        )
        assert toy.budget.rounds == ROUNDS
        for column in ("worker", "shard", "pulled_at", "step"):
            np.testing.assert_array_equal(getattr(one, column), getattr(other, column))


def test_a_batch_of_runs_is_as_many_as_it_says():
    base = base_run(True)
    for count in LANES:
        runs, seeds = many(base, count)
        assert len(runs) * len(seeds) == count and len(set(runs)) == len(runs)
    from toybench.gaussians import GaussianMixture

    shapes = jax.eval_shape(GaussianMixture(base.task).init, jax.random.key(0))
    assert parameters(base) == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


# Records


@pytest.fixture
def records(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "README.md").write_text(f"before\n{collecting.BEGIN}\n{collecting.END}\nafter\n")
    return tmp_path / "records"


def ceiling(folder, rate, size=1, **settings):
    folder.mkdir(exist_ok=True)
    open_bench("ceilings", folder, 60, **settings).unit(f"copy {size}", lambda: {"rate": rate})
    return folder


def test_what_was_not_run_is_pending(records):
    collecting.list_in(records / "README.md", records)
    text = (records / "README.md").read_text()
    assert text.count("pending") == len(PARTS) and text.startswith("before") and text.endswith("after\n")


def test_results_are_merged_into_the_records(records, tmp_path):
    assert main(["collect", str(ceiling(tmp_path / "one", 1e9)), "--records", str(records)]) == 0
    assert main(["collect", str(ceiling(tmp_path / "two", 2e9, 2)), "--records", str(records)]) == 0
    found = read_document(records / "accelerator" / "ceilings.json")
    assert {name: unit["rate"] for name, unit in found["units"].items()} == {"copy 1": 1e9, "copy 2": 2e9}
    assert "2.0 GB/s" in (records / "accelerator" / "ceilings.md").read_text()
    text = (records / "README.md").read_text()
    assert text.count("pending") == len(PARTS) - 1 and jax.__version__ in text


def test_a_tests_sizes_are_no_record(records, tmp_path):
    refused(lambda: collecting.collect(ceiling(tmp_path / "one", 1.0, small=True), records), "--small")
    assert not (records / "accelerator").exists()


def test_the_list_of_records_is_as_they_are():
    text = (ROOT / "experiments" / "records" / "README.md").read_text()
    between = text.split(collecting.BEGIN)[1].split(collecting.END)[0].strip()
    assert between == collecting.listed(ROOT / "experiments" / "records")
