"""`toybench replay` of a record that something has happened to: one line, whatever it is."""

import json
import random
import shutil

import jax
import numpy as np
import pytest

from tests.wall import small
from toybench.cli import main
from toybench.config import ConfigError
from toybench.timeline import simulate
from toybench.transports import replaying
from toybench.transports.again import again
from toybench.transports.drive import Engine, carry_out
from toybench.transports.results import departures_from, timeline_from
from toybench.transports.work import Recipe, toy_recipe

GONE = object()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A real run's folder, which nobody changes."""
    folder = tmp_path_factory.mktemp("made")
    carry_out(toy_recipe(small(**{"budget.rounds": 2}).run, 0), Engine("threads"), folder)
    return folder


@pytest.fixture
def record(made, tmp_path):
    """A copy of it, to be damaged."""
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run" / "real.json"


def damaged(record, path, value):
    """The record with another value, or none, at a path of keys and places."""
    document = json.loads(record.read_text())
    place = document
    for key in path[:-1]:
        place = place[key]
    if value is GONE:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    record.write_text(json.dumps(document))


def refused(record, capsys):
    """The line that a replay is answered with."""
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(record)])
    captured = capsys.readouterr()
    assert ended.value.code == 2 and captured.err.count("\n") == 1, captured.err
    return captured.err


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("recipe.maker", "os:system", "recipe.maker: expected one of"),
        ("recipe.maker", ["toybench.transports.work:toy_work"], "recipe.maker: expected one of"),
        ("recipe.maker", "lm.work:text_work", "recipe.told: expected a table of init, run, seed"),
        ("recipe.more", 1, "recipe: expected a table of maker and told"),
        ("recipe", [], "recipe: expected a table"),
        ("recipe.told", {}, "recipe.told: expected a table of run, seed"),
        ("recipe.told", None, "recipe.told: expected a table"),
        ("recipe.told.more", 1, "recipe.told: expected a table"),
        ("recipe.told.run", None, "recipe.told.run: expected a table, got None"),
        ("recipe.told.run.more", {}, "more: unknown section"),
        ("recipe.told.run.cluster", 3, "cluster: expected a table"),
        ("recipe.told.run.cluster.workers", 3, "cluster.workers: unknown key"),
        ("recipe.told.run.task.hidden", 7, "the parameters of another model"),
        ("recipe.told.run.outer.method", "sdg", "did you mean 'sgd'"),
        ("recipe.told.seed", -1, "seeds: expected different whole numbers from 0"),
        ("recipe.told.seed", "0", "seeds: expected different whole numbers from 0"),
        ("recipe.told.seed", [0], "seeds: expected different whole numbers from 0"),
        ("arrivals", None, "arrivals: expected the columns time, start,"),
        ("arrivals.more", [], "arrivals: expected the columns time, start,"),
        ("arrivals.worker", GONE, "arrivals: expected the columns time, start,"),
        ("arrivals.time", 3, "arrivals.time: expected a list of finite numbers"),
        ("arrivals.time.0", float("nan"), "arrivals.time: expected a list of finite numbers"),
        ("arrivals.start.1", 10**400, "arrivals.start: expected a list of finite numbers"),
        ("arrivals.shard.0", GONE, "arrivals: expected columns of as many rows"),
        ("arrivals.worker.0", -1, "arrivals.worker: must be from 0 to 2147483647 at arrival 0, got -1"),
        ("arrivals.worker.0", 2**31, "arrivals.worker: expected a list of whole numbers of 32 bits"),
        ("arrivals.worker.0", 0.0, "arrivals.worker: expected a list of whole numbers"),
        ("arrivals.shard.2", 4, "arrivals.shard: must be from 0 to 3 at arrival 2, got 4"),
        ("arrivals.num_steps.1", 0, "arrivals.num_steps: must be from 1 to 6 at arrival 1, got 0"),
        ("arrivals.num_steps.1", 7, "arrivals.num_steps: must be from 1 to 6 at arrival 1, got 7"),
        ("arrivals.first_step.0", -1, "arrivals.first_step: must be from 0"),
        ("arrivals.pulled_at.3", 4, "arrivals.pulled_at: must be from 0 to 3 at arrival 3, got 4"),
        ("arrivals.step.0", 1, "arrivals.step: expected a list of true or false"),
        ("arrivals.reset.0", None, "arrivals.reset: expected a list of true or false"),
        ("predicted", {}, "predicted: expected a list of tables of name, real, predicted"),
        ("predicted.0.name", 3, "predicted: expected a list of tables of name, real, predicted"),
        ("predicted.0.more", 3, "predicted: expected a list of tables of name, real, predicted"),
        ("predicted.0.real", None, "predicted: expected finite numbers of 'seconds'"),
        ("first_departure", "2", "first_departure: expected the number of an arrival or null, got '2'"),
        ("first_departure", GONE, "is no record of a real run"),
        ("about", GONE, "is no record of a real run"),
    ],
)
def test_a_damage_is_told_in_a_line(record, capsys, path, value, said):
    damaged(record, [int(key) if key.isdigit() else key for key in path.split(".")], value)
    assert said in refused(record, capsys)


def test_a_record_without_arrivals_is_told_in_a_line(record, capsys):
    document = json.loads(record.read_text())
    document["arrivals"] = {name: [] for name in document["arrivals"]}
    record.write_text(json.dumps(document))
    assert "arrivals: expected columns of as many rows, one or more" in refused(record, capsys)


@pytest.mark.parametrize("text", ("", "[]", "null", "3", '"real"', "{}", '{"recipe": ', "\ud800", "[" * 100_000))
def test_what_is_no_record_is_told_in_a_line(record, capsys, text):
    record.write_text(text, errors="surrogatepass")
    refused(record, capsys)


def test_a_record_beside_another_versions_parameters_is_told_in_a_line(record, capsys, monkeypatch):
    monkeypatch.setattr("toybench.transports.results.SCHEMA", 1000)
    assert "of another version" in refused(record, capsys)


def test_a_name_is_no_markup(record, capsys):
    damaged(record, ["predicted", 0, "name"], "[/oh]")
    assert main(["replay", str(record)]) == 0
    assert "[/oh]" in capsys.readouterr().out


class Reached(Exception):
    """A damage that the arrivals can be computed with, where that has been tried often enough."""


def places(value, path=()):
    """The paths of everything in a document, of a list's items the first and the last two."""
    if path:
        yield path
    if isinstance(value, dict):
        items = [*value.items()]
    else:
        items = [*enumerate(value)] if isinstance(value, list) else []
        items = items[:1] + items[1:][-2:]
    for key, item in items:
        yield from places(item, (*path, key))


def test_no_damage_of_any_leaf_is_answered_by_a_traceback(record, capsys, monkeypatch):
    left = [1] * 4

    def sometimes(*arguments):
        if not left:
            raise Reached
        left.pop()
        return again(*arguments)

    monkeypatch.setattr(replaying, "again", sometimes)
    whole, draw, answers = record.read_text(), random.Random(0), []
    values = (GONE, None, -1, 0, 1, 2.5, True, "", "x", [], [[]], {}, {"x": 1}, float("inf"), 10**400)
    needed = ("recipe", "arrivals", "predicted", "first_departure", "about")
    there = [path for path in places(json.loads(whole)) if path[0] in needed]
    for _ in range(150):
        record.write_text(whole)
        path, value = draw.choice(there), draw.choice(values)
        damaged(record, path, value)
        try:
            answers.append(main(["replay", str(record), "--json"]))
        except Reached:
            answers.append("reached")
        except SystemExit as ended:
            answers.append(ended.code)
            assert capsys.readouterr().err.count("\n") == 1, (path, value)
        except Exception as error:
            raise AssertionError((path, value)) from error
        capsys.readouterr()
    assert {*answers} <= {0, 1, 2, "reached"} and answers.count(2) > 80 and not left


# What checks


def test_a_recipe_from_anywhere_makes_nothing_but_works():
    with pytest.raises(ConfigError, match=r"recipe\.maker"):
        Recipe("subprocess:run", {"args": "true"}).make()
    with pytest.raises(ConfigError, match=r"recipe\.told\.init"):
        Recipe("lm.work:text_work", {"run": {}, "seed": 0, "init": 3}).make()


def test_what_a_run_leaves_is_read_as_it_was(made):
    document = json.loads((made / "real.json").read_text())
    timeline = timeline_from(document["arrivals"], small().run)
    for name, column in document["arrivals"].items():
        np.testing.assert_array_equal(getattr(timeline, name), column)
    assert [row._asdict() for row in departures_from(document["predicted"])] == document["predicted"]


def test_numbers_of_workers_may_be_far_apart():
    work = small(**{"budget.rounds": 1})
    timeline = simulate(work.run.cluster, work.run.budget, 0)
    far = timeline._replace(worker=np.where(timeline.worker == 3, 2**31 - 1, timeline.worker))
    for one, other in zip(*(jax.tree.leaves(again(work, times)) for times in (timeline, far))):
        np.testing.assert_array_equal(one, other)
