"""A language model trained by real workers: the same numbers as on the simulated cluster, and the command line."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from lm.cli import main
from lm.config import TWIN
from lm.loop import carry_out
from lm.work import text_recipe, text_work
from tests.corpora import made_of_words
from toybench.config import Budget, Cluster, ConfigError, InnerAdamW, Run
from toybench.outer import METHODS
from toybench.scheduler import Visit
from toybench.transports.again import again
from toybench.transports.drive import Engine
from toybench.transports.drive import carry_out as carry_out_real
from toybench.transports.messages import Rules
from toybench.transports.worker import Hand

CLUSTER = Cluster(sec_per_step=(1.0, 1.7, 3.1), local_steps=4, dynamic_steps=True)
SMALL = [
    *("--task.width", "16", "--task.heads", "2", "--task.head-size", "8", "--task.sequence", "16"),
    *("--task.batch", "2", "--task.held-out", "4", "--cluster.local-steps", "4"),
    *("--budget.rounds", "3", "--budget.evaluations", "2"),
]


def run_on(data, method="delayed_nesterov") -> Run:
    model = replace(TWIN, data=str(data), vocabulary=257)
    inner, budget = InnerAdamW(lr=1e-2, warmup=2), Budget(rounds=4, evaluations=2)
    return Run(model, CLUSTER, inner, METHODS[method].settings(), budget)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return made_of_words(tmp_path_factory.mktemp("words"))


@pytest.mark.parametrize("method", ("delayed_nesterov", "delay_compensation"))
def test_the_simulated_arrivals_computed_by_a_worker_give_the_simulated_run(data, method):
    work = text_work(text_recipe(run_on(data, method), 5).told)
    expected = carry_out(work.training).state.server.params
    found = again(work, work.training.timeline)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_a_visit_over_the_devices_of_a_worker_is_that_on_one(data):
    """To single precision: the sums over a batch have another order. These tests have two devices."""
    recipe = text_recipe(run_on(data), 0)
    one, all_of_them = recipe.make(), recipe.spread().make()
    assert (one.training.placement.data, all_of_them.training.placement.data) == (1, len(jax.local_devices())) == (1, 2)

    def visits(work):
        hand = Hand(work, "bfloat16")  # which keeps what it owes
        hand.visit(work.init(), Visit(0, 0, 0, 4, 0), True)
        _, loss = hand.visit(work.init(), Visit(0, 0, 4, 3, 1), False)
        return [loss, hand.inner_state, work.visit(work.init(), hand.inner_state, Visit(0, 1, 0, 4, 2))]

    wanted, found = (jax.tree.leaves(visits(work)) for work in (one, all_of_them))
    assert all_of_them.training.programs.visit._cache_size() == 1
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_devices_that_do_not_divide_the_batch_are_told_of(data, tmp_path, capsys):
    run = run_on(data)
    recipe = text_recipe(replace(run, task=replace(run.task, batch=3)), 0)
    with pytest.raises(ConfigError, match=r"task.batch: must be a multiple of a worker's 2 devices, got 3"):
        recipe.spread().make()
    words = ["--engine", "ray", "--gpus-per-worker", "4", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main(["train", *SMALL, *words])
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(lines) == 1 and "a worker's 4 devices, got 2" in lines[0], lines


def test_visits_of_any_length_are_one_program(data):
    work = text_work(text_recipe(run_on(data), 0).told)
    carry_out_real(text_recipe(run_on(data), 0), Engine("threads", Rules(pace=0.002)), data.parent / "real")
    again(work, replace_steps(work.training.timeline))
    assert work._visit._cache_size() == 1


def replace_steps(timeline):
    return timeline._replace(num_steps=1 + np.arange(len(timeline.time)) % 4)


def test_a_default_run_by_threads_and_its_replay(tmp_path, capsys):
    words = ["train", *SMALL, "--engine", "threads", "--compress", "bfloat16", "--out", str(tmp_path), "--json"]
    assert main(words) == 0
    document = json.loads(capsys.readouterr().out)["run"]
    assert document["counts"]["applied"] == len(document["arrivals"]["time"])
    assert main(["replay", str(tmp_path / "run")]) == 0
    assert "the same parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    (["--lanes", "2"], ["--mesh", "1x1"], ["--snapshots", "host"], ["--finetune"], ["--tensorboard", "t"]),
    ids=lambda words: words[0],
)
def test_what_only_the_simulated_cluster_can_is_refused_with_real_workers(words, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", *SMALL, "--engine", "threads", *words, "--out", str(tmp_path / "out")])
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(lines) == 1 and "simulated cluster" in lines[0], lines
    assert not (tmp_path / "out").exists()


def test_a_model_that_does_not_fit_is_told_of_before_anything(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--engine", "threads", "--task.width", "65536", "--out", str(tmp_path / "out")])
    assert ended.value.code == 2 and len(capsys.readouterr().err.strip().splitlines()) == 1
