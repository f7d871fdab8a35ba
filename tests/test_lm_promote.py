"""A configuration of the toy becomes a language-model run: what it keeps, what changes, what it takes."""

import json

import numpy as np
import pytest

from lm.cli import main
from lm.config import CHOICES, SIZES, LanguageModel, default_arms, flops_per_token, parameters, parts, tokens
from lm.promote import KEPT, changes, estimate, promote, read_run, write_toml
from toybench.config import ConfigError, Foreign
from toybench.curves import Curves
from toybench.loading import dump_run, load_run, overlay
from toybench.outer import METHODS
from toybench.presets import load_preset, preset_names
from toybench.store import Store


def toy(method="delayed_nesterov", preset="default"):
    return overlay(load_preset(preset), {"outer.method": method, "cluster.grace": 1.25, "cluster.dynamic_steps": True})


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("method", METHODS)
def test_cluster_and_outer_settings_are_untouched_and_the_rest_is_the_sizes(size, preset, method):
    before = toy(method, preset)
    after = promote(before, size)
    assert (after.cluster, after.outer) == (before.cluster, before.outer)
    assert after.task == SIZES[size].model and after.inner == SIZES[size].inner
    assert after.budget.evaluations == SIZES[size].evaluations
    steps = after.budget.rounds * after.cluster.local_steps
    assert SIZES[size].steps <= steps < SIZES[size].steps + after.cluster.local_steps
    assert {change.key.partition(".")[0] for change in changes(before, after)} <= {"task", "inner", "budget"}
    assert not {change.key.partition(".")[0] for change in changes(before, after)} & set(KEPT)


def test_changes_are_exactly_what_differs():
    before = toy()
    after = promote(before, "20m")
    flat = lambda tables: {f"{s}.{k}": v for s, table in tables.items() for k, v in table.items()}  # noqa: E731
    old, new = flat(dump_run(before)), flat(dump_run(after, CHOICES))
    said = {change.key: (change.before, change.after) for change in changes(before, after)}
    assert said == {k: (old.get(k), new.get(k)) for k in {*old, *new} if old.get(k) != new.get(k)}
    assert changes(before, before) == []


@pytest.mark.parametrize("size", SIZES)
def test_a_promoted_run_is_a_file_that_says_where_it_comes_from(size, tmp_path):
    after = promote(toy(), size, data="elsewhere")
    path = tmp_path / "run.toml"
    path.write_text(write_toml(after, "run 7 of x.sqlite", size))
    assert read_run(str(path)) == (after, {"source": "run 7 of x.sqlite", "size": size})
    assert after.task.data == "elsewhere"


@pytest.mark.parametrize(
    "size, wanted, nominal", [("20m", 21_105_920, 20e6), ("60m", 58_955_904, 60e6), ("150m", 149_804_928, 150e6)]
)
def test_parameters_of_table_6(size, wanted, nominal):
    """20M with an output layer of its own, the others tied to their embedding: so the counts meet the names."""
    model = SIZES[size].model
    assert parameters(model) == wanted == sum(each * times for each, times in parts(model).values())
    assert abs(wanted / nominal - 1) < 0.06
    assert (model.head_size, model.sequence, model.vocabulary) == (64, 256, 32_000)


def test_operations_and_tokens():
    run = promote(toy(), "20m")
    assert tokens(run) == run.budget.rounds * 60 * 4 * 128 * 256
    weights = parameters(run.task) - 13 * 256 - 32_000 * 256  # norms and the embedding's look-up multiply nothing
    assert flops_per_token(run.task) == 6 * weights + 6 * 6 * 256 * 256
    found = estimate(run, "h100", 0.5)
    assert found.operations == flops_per_token(run.task) * tokens(run)
    assert found.hours == pytest.approx(found.operations / (989e12 * 0.5) / 3600)
    assert estimate(run, "h100", 0.25).hours == pytest.approx(2 * found.hours)


def test_the_default_needs_no_file_and_compares_like_with_like():
    sync, delayed = default_arms().values()
    assert sync.cluster.barrier and not delayed.cluster.barrier and delayed.cluster.dynamic_steps
    assert (sync.task, sync.inner, sync.budget) == (delayed.task, delayed.inner, delayed.budget)
    assert sync.task.data == "python"


def test_the_toys_store_keeps_a_language_model_that_it_does_not_know():
    run = promote(toy(), "20m")
    tables = dump_run(run, CHOICES)
    foreign = load_run(json.loads(json.dumps(tables)), foreign=True)
    assert isinstance(foreign.task, Foreign) and foreign.task.kind == "language_model"
    assert json.loads(json.dumps(dump_run(foreign))) == json.loads(json.dumps(tables))
    hash(foreign)
    with pytest.raises(ConfigError, match=r"task\.kind: unknown 'language_model'"):
        load_run(tables)
    assert load_run(tables, CHOICES) == run


@pytest.mark.parametrize(
    "words, said",
    [
        (["promote", "7", "--size", "20m", "--store", "nowhere.sqlite"], "is not there"),
        (["promote", "{toy}", "--size", "21m"], "size: unknown '21m'"),
        (["promote", "{toy}", "--size", "20m", "--data", ""], "data: must be the path of a folder, got ''"),
        (["promote", "{toy}", "--size", "20m", "--accelerator", "x"], "accelerator: unknown 'x'"),
        (["promote", "{toy}", "--size", "20m", "--utilisation", "2"], "utilisation: must be in (0, 1]"),
        (["promote", "nowhere.toml", "--size", "20m"], "nowhere.toml: cannot be read"),
        (["train", "{toy}"], "task.kind: unknown 'gaussians'"),
        (["train", "--outer.period", "3", "--outer.method", "sgd"], "outer.period: sgd has no such setting"),
        (["train", "--task.head-size", "3"], "head_size: must be even"),
        (["train", "--lanes", "0"], "lanes: must be >= 1 and < 2147483648, got 0"),
        (["train", "--lanes", "1000000"], "lanes: must be from 1 to 4, the run's workers, got 1000000"),
        (["train", "--keep", "0"], "keep: must be >= 1 and < 2147483648, got 0"),
        (["train", "--every", "nan"], "every: must be >= 0, got nan"),
        (["train", "--every", "-1"], "every: must be >= 0, got -1.0"),
        (["train", "--seed", "-1"], "seed: expected a whole number from 0 to 2^31 - 1, got -1"),
    ],
)
def test_bad_input_is_one_line(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "toy.toml"
    path.write_text('[task]\nkind = "gaussians"\n')
    with pytest.raises(SystemExit) as ended:
        main([word.format(toy=path) for word in words])
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.count("\n") == 1 and said in err
    assert [one.name for one in tmp_path.iterdir()] == ["toy.toml"]


def test_promote_prints_a_run_file(tmp_path, capsys):
    path = tmp_path / "toy.toml"
    path.write_text("[cluster]\ngrace = 2.0\n[outer]\nlr = 0.3\n")
    assert main(["promote", str(path), "--size", "tiny", "-o", str(tmp_path / "lm.toml")]) == 0
    run, note = read_run(str(tmp_path / "lm.toml"))
    assert note == {"source": str(path), "size": "tiny"}
    assert run == promote(overlay(load_preset(), {"cluster.grace": 2.0, "outer.lr": 0.3}), "tiny")
    err = capsys.readouterr().err
    assert "parameters: 115,072" in err
    assert "memory of one device, a visit at a time: 0.0" in err and "activations 0.0" in err


def test_a_language_model_run_is_promoted_from_its_file_and_from_the_store(tmp_path, capsys):
    small = promote(toy(), "tiny")
    path, records = tmp_path / "tiny.toml", tmp_path / "runs.sqlite"
    path.write_text(write_toml(small, "toy.toml", "tiny"))  # with its table of where it comes from
    kept = load_run(dump_run(small, CHOICES), foreign=True)  # as the store keeps it
    columns = np.zeros((1, 2), int), np.zeros((1, 2)), {"loss": np.ones((1, 2))}
    with Store(records) as store:
        store.add([Curves(kept, (0,), *columns)], {"code": "x"}, seconds=1.0, commit=None)
        [number] = [row["run"] for row in store.list()]
    for source in (str(path), str(number), f"00{number}"):
        out = tmp_path / "20m.toml"
        assert main(["promote", source, "--size", "20m", "--store", str(records), "-o", str(out)]) == 0
        assert read_run(str(out))[0] == promote(small, "20m")
        said = capsys.readouterr().err
        assert "task.width: 64 → 256" in said and "task.kind" not in said
    with pytest.raises(SystemExit):
        main(["promote", "1000000000000000001999", "--size", "20m", "--store", str(records)])
    assert "run: there is no run 1000000000000000001999 in " in capsys.readouterr().err


def test_a_language_model_is_a_setting_like_others():
    assert LanguageModel().vocabulary == 257
    with pytest.raises(ConfigError, match="head_size: must be even"):
        LanguageModel(head_size=3)
