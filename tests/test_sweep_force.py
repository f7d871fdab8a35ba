"""Sweeps that others train: results in any order, actors of Ray, one store."""

import importlib.util

import numpy as np
import pytest

from toybench.cli import main
from toybench.config import ConfigError
from toybench.loading import overlay
from toybench.presets import load_preset
from toybench.store import Store
from toybench.sweep import Force, Job, here, measure, plan_calls, resumed
from toybench.training import train

BASE = overlay(load_preset("fast"), {"budget.rounds": 2, "budget.evaluations": 1, "task.points": 400})
RUNS = [overlay(BASE, {"outer.method": method, "outer.lr": lr}) for method in ("sgd", "nesterov") for lr in (0.1, 0.3)]
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")


def backwards(jobs, report):
    """Jobs trained from the last to the first."""
    for number in reversed(range(len(jobs))):
        yield number, train(jobs[number].lanes, jobs[number].seeds, progress=report), 1.0


def test_results_may_come_in_any_order(tmp_path):
    others = Force(here().made_by | {"device": "another"}, backwards)
    told = []
    with Store(tmp_path / "a") as one, Store(tmp_path / "b") as two:
        expected = measure(RUNS, [3, 4], one)
        found = measure(RUNS, [3, 4], two, force=others, progress=lambda runs, best: told.append(runs))
        for a, b in zip(expected, found, strict=True):
            assert a.run == b.run
            np.testing.assert_array_equal(a.metrics["loss"], b.metrics["loss"])
        assert sum(told) == pytest.approx(len(RUNS) * 2)
        assert not two.present(RUNS[0], here().made_by) and two.present(RUNS[0], others.made_by)


def test_what_is_there_is_not_trained_again_and_what_is_not_is(tmp_path):
    asked: list[Job] = []

    def counting(jobs, report):
        asked.extend(jobs)
        yield from backwards(jobs, report)

    with Store(tmp_path / "a") as store:
        measure(RUNS[:2], [3], store)
        measure(RUNS, [3], store, force=Force(here().made_by, counting))
    assert [run for job in asked for run in job.lanes] == RUNS[2:]


def test_a_sweep_is_finished_by_those_who_began_it(tmp_path):
    from toybench.store import Plan

    others = Force(here().made_by | {"device": "another"}, backwards)
    with Store(tmp_path / "a") as store:
        store.begin(Plan("s", RUNS, (3,), plan_calls(RUNS, [3]), None), others.made_by)
        assert resumed(store, "s", others).runs == RUNS
        with pytest.raises(ConfigError, match="device another"):
            resumed(store, "s")


@pytest.mark.parametrize("words", (["--address", "here:1"], ["--cpus-per-worker", "0.5"], ["--gpus-per-worker", "1"]))
def test_what_is_of_ray_goes_with_ray(words, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "--grid", "outer.lr=0.1,0.2", *words, "--store", str(tmp_path / "s")])
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(lines) == 1 and "--engine ray" in lines[0]


@needs_ray
@pytest.mark.slow
def test_a_sweep_over_ray_is_the_sweep(tmp_path, capsys):
    words = [
        "sweep",
        "--preset",
        "fast",
        "--grid",
        "outer.lr=0.1,0.3",
        "--grid",
        "outer.momentum=0,0.9",
        "--seeds",
        "2",
    ]
    words += ["--budget.rounds", "2", "--store", str(tmp_path / "s"), "--engine", "ray", "--cpus-per-worker", "0.5"]
    assert main([*words, "--name", "far"]) == 0
    with Store(tmp_path / "s") as store:
        [made] = store.sweeps()
        assert made["done"] == 8
        plan, made_by = store.plan("far")
        near = measure(plan.runs, plan.seeds, store)
        for one, run in zip(near, plan.runs, strict=True):
            far = store.curves(run, plan.seeds, made_by)
            np.testing.assert_allclose(one.metrics["loss"], far.metrics["loss"], rtol=1e-4)
