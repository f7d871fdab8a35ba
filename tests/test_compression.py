"""What compressed pseudo-gradients cost: the experiment in tiny size, and what it says of intervals."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

pytest.importorskip("flax")
from experiments import compression
from experiments.compression import CONTROL, NUDGE, RECORD, Found, Nudged, main, page, pushed, told, verdict
from lm.config import TWIN, default_arms
from tests.test_readme import README
from tests.wall import small
from toybench.presets import load_preset
from toybench.statistics import Interval
from toybench.transports.codec import CODECS

LIKE = [jax.ShapeDtypeStruct((1024, 3), np.float32), jax.ShapeDtypeStruct((), np.float32)]


@pytest.mark.parametrize(("codec", "count"), [("none", 4 * 3073), ("bfloat16", 2 * 3073), ("int8", 3073 + 4 * 4)])
def test_bytes_of_a_push_are_those_of_its_numbers_and_scales(codec, count):
    assert pushed(codec, LIKE) == count


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.25, 1.5, "costs 0.25 to 1.5 %"),
        (-1.5, -0.25, "ends lower, by 0.25 to 1.5 %"),
        (-0.5, 1.0, "no cost seen; up to 1 % is not ruled out"),
    ],
)
def test_an_interval_is_told_with_what_it_does_not_rule_out(low, high, said):
    assert verdict(Interval((low + high) / 2, low, high)) == said


def test_a_case_is_paired_by_seed():
    case = compression.Case("toy", "any", small().run, lambda seed: None, [0, 1])
    sizes = {codec: 1 for codec in CODECS}
    ends = [{"none": 1.0, "bfloat16": 1.01, "int8": 1.02, CONTROL: 1.0}, {"none": 2.0, "bfloat16": 2.02, "int8": 2.04}]
    document = told(case, [Found(ends[0], 8, sizes), Found(ends[1] | {CONTROL: 2.0}, 9, sizes)])
    means = {name: gap["mean"] for name, gap in document["gaps"].items()}
    assert means == pytest.approx({"bfloat16": 1, "int8": 2, CONTROL: 0}) and document["arrivals"] == [8, 9]
    assert document["gaps"]["int8"]["high"] == pytest.approx(2)


def test_the_control_starts_a_millionth_off_and_is_else_the_run():
    work = small()
    one, other = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(w.init())]) for w in (work, Nudged(work)))
    np.testing.assert_allclose(other, one * (1 + NUDGE), rtol=1e-7)
    assert (one != other).any() and Nudged(work).run is work.run


def test_it_runs_from_end_to_end(tmp_path, monkeypatch, capsys):
    arms = {name: replace(run, task=TWIN) for name, run in default_arms().items() if name == "sync"}
    monkeypatch.setattr(compression, "default_arms", lambda: arms)
    monkeypatch.setattr(compression, "load_preset", lambda name: load_preset("fast"))
    monkeypatch.setattr(compression, "TOY", ("async_nesterov",))
    words = ["--seeds", "200:202", "--rounds", "2", "--text-seeds", "200:202", "--text-rounds", "1"]
    main([*words, "--processes", "1", "--out", str(tmp_path)])
    document = json.loads((tmp_path / "compression.json").read_text())
    assert [case["task"] for case in document["cases"]] == ["toy", "language model"]
    for case in document["cases"]:
        losses = {name: np.array(own) for name, own in case["losses"].items()}
        assert {*losses} == {*CODECS, CONTROL} and all(own.shape == (2,) for own in losses.values())
        assert (losses["none"] != losses["int8"]).any()
        assert all(np.abs(own / losses["none"] - 1).max() < 0.05 for own in losses.values())
    assert (tmp_path / "readme.md").read_text() == page(document)


def test_the_readme_has_the_numbers_on_record():
    document = json.loads((RECORD / "compression.json").read_text())
    assert (RECORD / "readme.md").read_text() == page(document)
    for task in ("toy", "language model"):
        gaps = [
            case["gaps"][codec]
            for case in document["cases"]
            if case["task"] == task
            for codec in CODECS
            if codec != "none"
        ]
        low, high, digits = min(gap["low"] for gap in gaps), max(gap["high"] for gap in gaps), 2 if task == "toy" else 4
        assert f"{low:+.{digits}f} to {high:+.{digits}f} %" in " ".join(README.split())
    for case in document["cases"]:
        for codec, gap in case["gaps"].items():
            assert gap.get("says") == (
                None if codec == CONTROL else verdict(Interval(gap["mean"], gap["low"], gap["high"]))
            )


def test_one_seed_is_a_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--seeds", "200:201", "--out", str(tmp_path)])
    assert ended.value.code == 2 and capsys.readouterr().err == "seeds: must be two or more, for an interval\n"
