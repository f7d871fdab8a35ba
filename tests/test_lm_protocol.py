"""The paper's protocol: pretraining, local-SGD from there, and the baseline with k times the batch."""

import json
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from test_lm_train import Lookup, Walks, tokens

from lm.cli import main
from lm.config import TWIN, default_arms
from lm.loop import carry_out
from lm.maker import maker_of
from lm.protocol import finetuning, pretraining
from lm.train import Training
from tests.corpora import made_of_words
from toybench.config import Budget, Cluster, ConfigError, ConfigWarning, InnerAdamW, Run
from toybench.inner import make_inner
from toybench.outer import METHODS
from toybench.store import Store
from toybench.training import inner_numbers

CLUSTER = Cluster(sec_per_step=(1.0, 2.0, 4.0), local_steps=6, dynamic_steps=True, grace=1.0)
RUN = Run(
    replace(TWIN, vocabulary=11),
    CLUSTER,
    InnerAdamW(lr=0.05, warmup=2, reset=True, first_step_peak=True, decay_steps=1000),
    METHODS["delayed_nesterov"].settings(lr=0.1),
    Budget(rounds=5, evaluations=3),
)


def training(run, **more):
    return Training(run, 3, Lookup(), Walks(), np.asarray(tokens(0, 99)), **more)


# Plain training


@pytest.mark.parametrize("steps", [1, 5, 6, 7, 8, 30, 97])
def test_pretraining_is_of_so_many_steps_with_its_own_cosine(steps):
    run = pretraining(RUN, steps)
    assert run.budget.total_steps(run.cluster) == steps
    assert run.cluster.local_steps <= RUN.cluster.local_steps
    assert inner_numbers(run)["decay_steps"] == max(steps, RUN.inner.warmup + 1)
    assert (run.cluster.workers, run.cluster.num_shards) == (1, 1)
    kept = replace(RUN.inner, decay_steps=None, reset=False, first_step_peak=False)
    assert (run.task, run.inner, run.budget.evaluations) == (RUN.task, kept, RUN.budget.evaluations)


@pytest.mark.parametrize("steps", [10_007, 24_001, 599_999])
def test_many_steps_that_nothing_divides_are_rounded_down_to_whole_visits_and_said(steps):
    with pytest.warns(ConfigWarning, match=f"^steps: {steps} are no whole visits of cluster.local_steps 6: ") as said:
        run = pretraining(RUN, steps)
    total = run.budget.total_steps(run.cluster)
    assert run.cluster.local_steps == 6 and steps - 6 < total < steps
    assert str(said[0].message).endswith(f": {total} are trained")


def test_steps_of_whole_visits_are_not_rounded(recwarn):
    for steps in (24_000, 60_000, 60_002, 9_973):
        run = pretraining(RUN, steps)
        assert run.budget.total_steps(run.cluster) == (steps if steps != 60_002 else 60_000)
    assert len(recwarn) == 1


@pytest.mark.parametrize(
    "steps, said",
    [
        (600_001, "must be <= 600000, 100000 visits of cluster.local_steps 6, got 600001"),
        (2**31 - 2, "must be <= 600000, 100000 visits of cluster.local_steps 6, got 2147483646"),
        (10**20 - 1, "must be >= 1 and < 2147483648, got 99999999999999999999"),
    ],
)
def test_more_steps_than_can_be_are_refused_by_their_name(steps, said):
    with pytest.raises(ConfigError, match=f"^steps: {said}$"):
        pretraining(RUN, steps)


def plainly(run):
    """The run's inner optimizer, step by step on its one shard, and nothing else."""
    inner, task = make_inner("adamw", inner_numbers(run)), Lookup()
    params = training(run).begin().server.params
    state = inner.transformation.init(params)
    for step in range(run.budget.total_steps(run.cluster)):
        gradient = jax.grad(task.loss)(params, tokens(0, step))
        updates, state = inner.transformation.update(gradient, state, params)
        rate = inner.rate(step, step)
        params = jax.tree.map(lambda p, u, rate=rate: p + rate * u, params, updates)
    return params


@pytest.mark.parametrize("run", [pretraining(RUN, 30), finetuning(replace(RUN, task=replace(RUN.task, batch=1)), 2)])
def test_it_is_the_inner_optimizer_and_nothing_else(run):
    found = carry_out(training(run)).state.server.params
    np.testing.assert_allclose(found["table"], plainly(run)["table"], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("times", [1, 3, 8])
def test_the_baseline_sees_as_many_tokens_as_so_many_workers(times):
    run = finetuning(RUN, times)
    assert run.task == replace(RUN.task, batch=RUN.task.batch * times)
    assert run.budget == RUN.budget and run.cluster.local_steps == RUN.cluster.local_steps
    assert run.cluster.sec_per_step == (4.0 * times / 3,)
    seen = run.budget.total_steps(run.cluster) * run.task.batch
    assert 3 * seen == times * RUN.budget.total_steps(RUN.cluster) * RUN.task.batch


@pytest.mark.parametrize("make", [pretraining, finetuning])
def test_nothing_to_train_is_refused(make):
    with pytest.raises(ConfigError, match=r"must be >= 1.*, got 0"):
        make(RUN, 0)


# As it is typed


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return made_of_words(tmp_path_factory.mktemp("text"))


@pytest.fixture
def lm(corpus, tmp_path, monkeypatch):
    """A command of `python -m lm`, on small data, with a small model."""
    small = "--task.width 16 --task.heads 2 --task.head-size 8 --task.sequence 16 --task.batch 2 --task.held-out 4"
    monkeypatch.chdir(tmp_path)

    def call(command, *words):
        short = ("--cluster.local-steps", "4", "--budget.rounds", "2", "--budget.evaluations", "2")
        return main([command, "--task.data", str(corpus), *small.split(), *short, "--store", "runs.sqlite", *words])

    return call


def record(folder):
    return json.loads((folder / "run" / "run.json").read_text())


def test_pretrained_and_then_trained_by_local_sgd(lm, tmp_path):
    assert lm("pretrain", "--steps", "9", "--out", "before") == 0
    before = record(tmp_path / "before")
    assert before["curves"]["local_steps"][-1] == 9 and "init" not in before
    assert lm("train", "--init", "before", "--out", "after") == 0
    after = record(tmp_path / "after")
    assert after["curves"]["loss"][0] == pytest.approx(before["curves"]["loss"][-1], rel=1e-5)
    init = after["init"]
    assert (init["folder"], init["local_steps"], init["seed"]) == ("before/run", 9, 0)
    assert init["run"] == before["run"] and init["init"] is None
    # The third generation tells of the second, by the digest of the first.
    assert lm("train", "--init", "after/run", "--out", "third") == 0
    assert record(tmp_path / "third")["init"]["init"] == init["parameters"]


def test_what_is_printed_is_the_record(lm, tmp_path, capsys):
    assert lm("pretrain", "--steps", "4", "--out", "before") == 0
    capsys.readouterr()
    assert lm("train", "--init", "before", "--out", "after", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"run": record(tmp_path / "after")}
    assert found["run"]["seconds"] > 0 and found["run"]["init"]["folder"] == "before/run"
    assert lm("train", "--init", "before", "--out", "after", "--resume") == 0
    assert record(tmp_path / "after")["seconds"] == found["run"]["seconds"]


def test_other_parameters_to_start_from_are_another_run(lm, tmp_path, capsys):
    for steps in ("4", "8"):
        assert lm("pretrain", "--steps", steps, "--out", f"from-{steps}") == 0
    for out, words in {"fresh": (), "a": ("--init", "from-4"), "b": ("--init", "from-8")}.items():
        assert lm("train", *words, "--out", out) == 0
    with Store(tmp_path / "runs.sqlite", writable=False) as store:
        assert store.count() == 5  # of which three are of one configuration and seed
    capsys.readouterr()
    for words, said in (
        (("--init", "from-8"), "was started from parameters"),
        ((), "was started from parameters"),
    ):
        with pytest.raises(SystemExit):
            lm("train", *words, "--out", "a", "--resume")
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and said in err
    with pytest.raises(SystemExit):
        lm("train", "--init", "from-4", "--out", "fresh", "--resume")
    assert "was started from fresh parameters, not from parameters" in capsys.readouterr().err
    assert lm("train", "--init", "from-4", "--out", "a", "--resume") == 0


def said_of(capsys, call):
    """The one line of what is refused."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        call()
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.count("\n") == 1
    return err


def test_parameters_of_another_function_are_no_start_though_of_the_same_shapes(lm, tmp_path, capsys):
    assert lm("pretrain", "--steps", "4", "--out", "before") == 0
    words = ("train", "--init", "before", "--out", "after")
    said = said_of(capsys, lambda: lm(*words, "--task.heads", "1", "--task.head-size", "16"))
    assert "is of another model: its task.heads is 2, not 1" in said
    path = tmp_path / "before" / "run" / "data.json"
    note = json.loads(path.read_text())
    path.write_text(json.dumps(note | {"tokenizer": note["tokenizer"] | {"sha256": "0"}}))
    assert "'before/run' was trained with another tokenizer than" in said_of(capsys, lambda: lm(*words))
    path.write_text("[]")
    assert "data.json' is damaged" in said_of(capsys, lambda: lm(*words))
    path.unlink()  # as of a run from before it was noted
    assert lm(*words, "--task.compute", "bfloat16") == 0


def test_a_start_is_as_many_steps_as_its_checkpoint_not_as_its_last_evaluation(lm, tmp_path):
    asked = iter([False] * 4 + [True])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lm.commands.train.terminated", lambda: nullcontext(lambda: next(asked)))
        patched.setattr("lm.commands.train.INTERRUPT", SimpleNamespace(asked=True))
        assert lm("train", "--budget.evaluations", "1", "--out", "before") == 130
    assert lm("train", "--init", "before", "--out", "after") == 0
    init = record(tmp_path / "after")["init"]
    assert (init["arrivals"], init["local_steps"]) == (5, 10)  # the last evaluation is that at the start


def test_a_start_is_told_by_its_parameters():
    one, two = ({"table": np.full((11, 11), x, np.float32)} for x in (0.25, 0.5))
    fresh, first, again, second = (maker_of(training(RUN, start=start)) for start in (None, one, dict(one), two))
    assert first == again and len({json.dumps(maker) for maker in (fresh, first, second)}) == 3


@pytest.mark.parametrize("words, times", [(("--finetune",), 4), (("--finetune", "2"), 2)])
def test_the_baseline_is_a_word(lm, tmp_path, words, times):
    assert lm("train", *words, "--out", "out") == 0
    run = record(tmp_path / "out")["run"]
    assert run["task"]["batch"] == 2 * times and len(run["cluster"]["sec_per_step"]) == 1
    assert (run["outer"]["method"], run["outer"]["lr"]) == ("sgd", 1.0)
    assert len(default_arms()["dn_dylu"].cluster.sec_per_step) == 4


@pytest.mark.parametrize(
    "words, said",
    [
        (("train", "--finetune", "0"), "finetune: must be >= 1, got 0"),
        (("train", "--wandb", ""), "wandb: must be the name of a project, got ''"),
        (("pretrain", "--steps", "0"), "steps: must be >= 1 and < 2147483648, got 0"),
        (("train", "--finetune", "-1"), "finetune: must be >= 1, got -1"),
        (("train", "--init", ""), "init: must be the folder of a run, got ''"),
        (("train", "--init", "nowhere"), "init: 'nowhere' holds no checkpoints"),
        (("train", "--init", "arms"), "init: 'arms' holds those of dn_dylu, sync; name the folder of one"),
    ],
)
def test_bad_input_is_one_line(lm, tmp_path, capsys, words, said):
    for name in ("sync", "dn_dylu"):
        (tmp_path / "arms" / name / "checkpoints").mkdir(parents=True)
    with pytest.raises(SystemExit) as ended:
        lm(*words)
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.count("\n") == 1 and said in err


def test_a_damaged_start_is_one_line(lm, tmp_path, capsys):
    assert lm("pretrain", "--steps", "4", "--out", "before") == 0
    [last] = (p for p in (tmp_path / "before/run/checkpoints").iterdir() if p.name.isdecimal() and int(p.name) > 0)
    for path in (last / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        lm("train", "--init", "before", "--out", "after")
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("toybench: error: init: the last checkpoint in ")
