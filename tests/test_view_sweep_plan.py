"""The Sweep page's plan: what the command makes of it; the form, its address, and what it refuses."""

import shlex
import time

import pytest

from tests.pages import query_of, told, widget
from tests.sweep_page import FAST, TINY, TINY_SCENE, asked, flat, open_page, page, stored
from toybench.commands import sweep as command
from toybench.config import ConfigError
from toybench.loading import overlay
from toybench.presets import load_preset
from toybench.records import maker
from toybench.store import Store
from toybench.views import plans
from toybench.views.jobs import Job
from toybench.views.plans import Wanted
from toybench.views.scene import Scene, encode

# What is planned is what the command makes

DN = {"outer.method": "delayed_nesterov", "outer.period": 3}
WANTED = {
    "a range": Wanted("fast", TINY, ("outer.lr=log:0.01:1:5",), (0, 1)),
    "another method": Wanted("default", overlay(load_preset("default"), DN), ("outer.lr=linear:0:1:3",), (3,)),
    "two axes": Wanted("fast", TINY, ("outer.lr=0.1,0.25", "cluster.grace=linear:0:2:3"), (5, 1, 9)),
    "methods": Wanted(
        "fast", overlay(FAST, {"outer.momentum": 0.5}), ("outer.lr=log:0.1:1:3", "outer.method=sgd,nesterov,mla"), (0,)
    ),
    "methods alike": Wanted(
        "fast", overlay(FAST, {"outer.momentum": 0.5}), ("outer.method=nesterov,poly", "outer.lr=0.1,0.2"), (0,)
    ),
    "inner": Wanted("fast", overlay(FAST, {"inner.b1": 0.5}), ("inner.optimizer=adamw,sgd",), (0,)),
    "whole numbers": Wanted("fast", TINY, (plans.whole("cluster.local_steps=log:2:20:6"),), (0, 1, 2)),
    "lists": Wanted("fast", TINY, ("cluster.sec_per_step=1 1 1,1 2 4 8",), (0, 1)),
    "switches": Wanted("fast", TINY, ("cluster.barrier=true,false", "outer.scale=1,1/sqrt(k)"), (0, 1)),
    "nothing": Wanted("fast", TINY, ("cluster.shards=none,4,8",), (0, 1)),
    "a default": Wanted(
        "fast", overlay(FAST, {"inner.decay_steps": 70, "cluster.shards": 8}), ("inner.decay_steps=none,50",), (0, 1)
    ),
}


@pytest.mark.parametrize("name", WANTED)
def test_the_command_and_the_file_make_the_runs_that_are_planned(name, tmp_path, monkeypatch):
    wanted = WANTED[name]
    monkeypatch.chdir(tmp_path)
    runs, seeds = asked(wanted.command("mine", tmp_path / "my runs"))
    assert runs == wanted.runs() and tuple(seeds) == wanted.seeds and len(runs) > 1
    document = wanted.file("mine", tmp_path / "my runs")
    (tmp_path / "mine.toml").write_text(document)
    first = document.splitlines()[0]
    runs, seeds = asked(shlex.split(first.removeprefix("# ")))
    assert sorted(map(repr, runs)) == sorted(map(repr, wanted.runs()))  # a file says its lists before its ranges
    assert tuple(seeds) == wanted.seeds


def test_the_configuration_is_among_the_runs_where_its_own_values_are():
    for name in ("a range", "two axes", "lists"):
        key = WANTED[name].keys[0]
        plain = {key: getattr(getattr(TINY, key.split(".")[0]), key.split(".")[1])}
        assert {overlay(run, plain | {"cluster.grace": 0.5}) for run in WANTED[name].runs()} == {TINY}


def test_what_a_swept_method_lacks_is_told():
    assert WANTED["methods"].left_out == ["outer.momentum"] and WANTED["inner"].left_out == ["inner.b1"]
    assert WANTED["methods alike"].left_out == [] == WANTED["a range"].left_out
    assert {run.outer.momentum for run in WANTED["methods alike"].runs()} == {0.5}


def test_the_limit_is_the_command_lines():
    assert plans.MOST_RUNS == command.MOST_RUNS
    Wanted("fast", TINY, ("outer.lr=linear:0:1:50000",), (0, 1)).product()
    with pytest.raises(ConfigError, match="100,002 runs"):
        Wanted("fast", TINY, ("outer.lr=linear:0:1:50001",), (0, 1)).product()


@pytest.mark.parametrize("method", ["sgd", "nesterov", "delayed_nesterov", "adam", "heloco"])
def test_every_key_has_values_to_begin_with_and_they_can_be(method):
    run = overlay(TINY, {"outer.method": method})
    for key in plans.keys_of(run):
        text = plans.whole(plans.read_axis(f"{key}={plans.suggested(run, key)}"))
        try:
            assert len(Wanted("fast", run, (text,), (0,)).runs()) > 1, key
        except ConfigError as error:  # of a setting that is bound to another one
            assert "must be" in str(error), key


def test_the_time_is_that_of_runs_of_its_kind(tmp_path):
    size = plans.Size(10, 1, 10 * plans.operations(TINY, 4))
    seconds, how = plans.estimate(size, TINY, plans.Pace(0.5, 7))
    assert seconds == pytest.approx(plans.START + 0.5 * 40) and "7 runs" in how
    rough, how = plans.estimate(size, TINY, None)
    assert plans.START < rough < plans.START + 1 and "operations" in how
    others = [overlay(TINY, change) for change in ({"outer.lr": 0.1}, {"cluster.local_steps": 4})]
    with Store(tmp_path / "s") as store:
        store.add(list(map(flat, [TINY, others[0]])), maker(), seconds=2.0, commit=None)
        store.add([flat(others[1])], maker(), seconds=9.0, commit=None)
    assert plans.measure_pace(tmp_path / "s", TINY)(Job("", print)) == plans.Pace(2.0, 4)
    assert plans.measure_pace(tmp_path / "s", overlay(TINY, {"task.hidden": 3}))(Job("", print)) is None


# The form


def planned(at):
    """The page's line about how much it is."""
    [said] = [element.value for element in at.markdown if " seed" in element.value and " × " in element.value]
    return said


def test_the_page_as_it_opens(path):
    at = open_page()
    assert told(at) == [] and "9 settings × 4 seeds = **36 runs** in 1 call" in planned(at)
    words = shlex.split(at.code[0].value)
    runs, seeds = asked(words)
    assert [run.outer.lr for run in runs][::8] == [0.025, 1.6] and seeds == [0, 1, 2, 3]
    assert {overlay(run, {"outer.lr": 0.2}) for run in runs} == {TINY}
    assert words[-5:] == ["--name", "sweep", "--store", str(path), "--yes"]
    assert "No sweep yet" in " ".join(element.value for element in at.markdown)
    assert query_of(at) == TINY_SCENE and not path.exists()


@pytest.mark.parametrize(
    "kind, key, value, axis",
    [
        ("text_input", "w.sweep.x.low", "0.1", "outer.lr=log:0.1:1.6:9"),
        ("text_input", "w.sweep.x.high", "1", "outer.lr=log:0.025:1:9"),
        ("number_input", "w.sweep.x.points", 5, "outer.lr=log:0.025:1.6:5"),
        ("button_group", "w.sweep.x.kind", "linear", "outer.lr=linear:0.025:1.6:9"),
        ("selectbox", "w.sweep.x.key", "cluster.barrier", "cluster.barrier=false,true"),
        ("selectbox", "w.sweep.x.key", "cluster.local_steps", "cluster.local_steps=1,3,6"),
        ("selectbox", "w.sweep.x.key", "outer.momentum", "outer.momentum=linear:0:0.9:7"),
    ],
)
def test_every_widget_of_an_axis_changes_the_command_and_the_address(path, kind, key, value, axis):
    at = open_page()
    widget(at, kind, key).set_value(value).run()
    assert told(at) == [] and query_of(at)["sweep.x"] == axis
    assert asked(shlex.split(at.code[0].value))[0] == Wanted("fast", TINY, (axis,), (0,)).runs()
    again = open_page(query_of(at))
    assert again.code[0].value == at.code[0].value and query_of(again) == query_of(at)


def test_a_list_a_choice_and_words_are_typed(path):
    at = page(x="outer.lr=log:0.1:0.4:3")
    widget(at, "button_group", "w.sweep.x.kind").set_value("list").run()
    assert query_of(at)["sweep.x"] == "outer.lr=0.1,0.2,0.4"
    widget(at, "text_input", "w.sweep.x.list").set_value("0.1, 0.3").run()
    assert {run.outer.lr for run in asked(shlex.split(at.code[0].value))[0]} == {0.1, 0.3}
    widget(at, "selectbox", "w.sweep.y.key").set_value("outer.method").run()
    widget(at, "multiselect", "w.sweep.y.choice").set_value(["sgd", "mla"]).run()
    assert "4 settings" in planned(at) and query_of(at)["sweep.y"] == "outer.method=sgd,mla"
    widget(at, "selectbox", "w.sweep.y.key").set_value("cluster.sec_per_step").run()
    widget(at, "text_input", "w.sweep.y.list").set_value("1 1,1 2 3").run()
    assert {run.cluster.sec_per_step for run in asked(shlex.split(at.code[0].value))[0]} == {(1, 1), (1, 2, 3)}
    widget(at, "selectbox", "w.sweep.y.key").set_value("none").run()
    assert "2 settings" in planned(at) and "sweep.y" not in query_of(at)


def test_seeds_and_name_are_typed(path):
    at = open_page()
    widget(at, "text_input", "w.sweep.seeds").set_value("7 3").run()
    widget(at, "text_input", "w.sweep.name").set_value("mine").run()
    words = shlex.split(at.code[0].value)
    assert words[words.index("--seeds") :][:5] == ["--seeds", "7", "3", "--name", "mine"]
    assert query_of(at)["sweep.seeds"] == "7 3" and query_of(at)["sweep.name"] == "mine"


def test_another_configuration_of_the_scene_is_swept_around_its_own_rate(path):
    other = overlay(FAST, {"outer.method": "sgd", "outer.lr": 0.8})
    at = open_page(encode(Scene("fast", runs=(TINY, other))))
    widget(at, "button_group", "w.sweep.from").set_value("b").run()
    runs, _ = asked(shlex.split(at.code[0].value))
    assert {overlay(run, {"outer.lr": 0.8}) for run in runs} == {other} and runs[4].outer.lr == pytest.approx(0.8, 0.01)
    assert query_of(at)["sweep.from"] == "b"


@pytest.mark.parametrize(
    "query, said",
    [
        ({"x": "outer.lrr=1,2"}, "outer.lrr: unknown key"),
        ({"x": "nothing"}, "expected KEY=VALUES"),
        ({"x": "<script>=1"}, "unknown key"),
        ({"x": "outer.lr=log:1:1:3"}, "0 < LOW < HIGH"),
        ({"x": "outer.lr=log:0:1:3"}, "0 < LOW < HIGH"),
        ({"x": "outer.lr=log:nan:inf:3"}, "LOW < HIGH"),
        ({"x": "outer.lr=log:0.1:1:1000000000"}, "points"),
        ({"x": "outer.lr=log:0.1:1:" + "9" * 400}, "points"),
        ({"x": "outer.lr=log:0.1:1:1"}, "points"),
        ({"x": "outer.lr=log:0.1:1"}, "expected log:LOW:HIGH:N"),
        ({"x": "outer.lr="}, "values with commas between"),
        ({"x": "outer.lr=-1,2"}, "outer.lr: must be >= 0"),
        ({"x": "outer.lr=a,b"}, "outer.lr: expected a number"),
        ({"x": "outer.lr=" + "1," * 5000 + "1"}, "axis: is too long"),
        ({"x": "outer.method=sgd,nothing"}, "unknown 'nothing'"),
        ({"x": "outer.strength=1,2"}, "nesterov has no such setting"),
        ({"x": "cluster.local_steps=log:1e-9:1:5"}, "cluster.local_steps: must be >= 1"),
        ({"x": "cluster.local_steps=linear:1:1e300:5"}, "cluster.local_steps: must be < "),
        ({"y": "outer.lr=1,2"}, "outer.lr: is on two axes"),
        ({"x": "outer.lr=linear:0:1:90000", "y": "inner.lr=linear:0:1:90000"}, "runs: 8,100,000,000 settings"),
        ({"x": "outer.lr=linear:0:1:90000", "seeds": "2"}, "180,000 runs"),
        ({"seeds": "0:1000000000"}, "seeds: expected at most"),
        ({"seeds": "3 3"}, "seeds: expected different"),
        ({"seeds": "99999999999999999999 1"}, "seeds: expected different whole numbers"),
        ({"seeds": ""}, "seeds: expected"),
        ({"name": "../x"}, "name: expected"),
        ({"from": "z"}, "sweep.from: cannot be 'z'"),
        ({"from": "d", "x": "outer.lr=log:0.1:1:0x10"}, "points"),
    ],
)
def test_a_hostile_address_is_a_message_and_no_work(path, query, said):
    began = time.monotonic()
    at = page(**query)
    assert any(said in line for line in told(at)), told(at)
    assert not any("failed" in line for line in told(at)) and time.monotonic() - began < 20
    assert not path.exists()


def test_a_sweep_that_is_not_there_is_told_and_another_shown(path):
    stored(path, [TINY, overlay(TINY, {"outer.lr": 0.3})])
    at = page(show="../../etc/passwd", figure="<b>", along="x")
    assert told(at) == ["There is no sweep '../../etc/passwd' in this store."]
    assert query_of(at)["sweep.show"] == "stored" and len(at.get("vega_lite_chart")) == 1


def test_a_name_that_is_taken_is_told_and_the_free_one_offered(path):
    stored(path, [TINY], name="sweep")
    at = page(name="sweep")
    assert told(at) == ["name: 'sweep' is taken; 'sweep-2' is free"] and widget(at, "button", "w.start").disabled
    assert "--name sweep-2" in open_page().code[0].value
