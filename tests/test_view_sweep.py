"""The page Sweep: its plan is the command's, its process survives, is cancelled, killed, resumed; its figures."""

import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from toybench.cli import build_parser
from toybench.commands import sweep as command
from toybench.config import ConfigError
from toybench.curves import Curves
from toybench.loading import overlay
from toybench.presets import load_preset
from toybench.records import maker
from toybench.store import Plan, Store
from toybench.sweep import plan_calls
from toybench.views import outcomes, plans, state, sweep
from toybench.views.charts_sweep import chart_of, legend_of
from toybench.views.jobs import Desk, Job
from toybench.views.plans import Wanted
from toybench.views.runner import Ended, Runner, Runners
from toybench.views.scene import Scene, encode

FAST = load_preset("fast")
TINY = overlay(
    FAST,
    {"budget.rounds": 2, "budget.evaluations": 2, "task.points": 400, "task.held_out": 50, "cluster.local_steps": 3},
)
TINY_SCENE = encode(Scene("fast", runs=(TINY,)))
CALLS = "budget.evaluations=" + ",".join(map(str, range(1, 25)))  # each a program, and so a call, of its own


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The file of the page's runs, and pages that know of no process."""
    path = tmp_path / "my runs.sqlite"
    monkeypatch.setenv("TOYBENCH_STORE", str(path))
    sweep.runners.clear()
    return path


def open_page(query=None):
    def script():
        from functools import partial

        import streamlit as st

        from toybench.views import state, sweep

        pages = {
            "sweep": st.Page(partial(state.page, sweep.body), title="sweep", url_path="sweep", default=True),
            "explore": st.Page(lambda: st.write("explored"), title="explore", url_path="explore"),
        }
        state.know_pages(pages)
        st.navigation([*pages.values()]).run()

    at = AppTest.from_function(script, default_timeout=60)
    for name, value in (TINY_SCENE if query is None else query).items():
        at.query_params[name] = value
    return at.run()


def page(**query):
    return open_page(TINY_SCENE | {f"sweep.{name}": value for name, value in query.items()})


def told(at):
    assert not at.exception
    return [element.value for kind in ("warning", "error") for element in getattr(at, kind)]


def widget(at, kind, key):
    return next(w for w in getattr(at, kind) if w.key == key)


def has(at, kind, key):
    return any(w.key == key for w in getattr(at, kind))


def query_of(at):
    return {name: value[0] if isinstance(value, list) else value for name, value in at.query_params.items()}


def planned(at):
    """The page's line about how much it is."""
    [said] = [element.value for element in at.markdown if " seed" in element.value and " × " in element.value]
    return said


def asked(words):
    """The runs and seeds that the command line would make."""
    assert words[0] == "toybench"
    return command.wanted(build_parser(words[1:]).parse_known(words[1:]))[:2]


def until(condition, at=None, seconds=60.0):
    """Look again and again, at a page by running it anew."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        if at is None:
            time.sleep(0.02)
        else:
            time.sleep(0.1)
            at.run()


def done(path, name="sweep"):
    try:
        with Store(path, writable=False) as store:
            return next((entry["done"] for entry in store.sweeps() if entry["sweep"] == name), 0)
    except ConfigError:  # it is just being made
        return 0


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


# Stores


def newer(path):
    Store(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def of_another_program(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")


@pytest.mark.parametrize(
    "make, said",
    [
        (newer, "has version 99"),
        (of_another_program, "database of another program"),
        (lambda path: path.write_text("hello " * 100), "not a database"),
        (lambda path: path.mkdir(), "unable to open"),
    ],
)
def test_a_store_that_cannot_be_used_is_told(path, make, said):
    make(path)
    at = open_page()
    assert any(said in line for line in told(at)), told(at)
    assert widget(at, "button", "w.start").disabled


def test_an_empty_file_is_a_store_to_be(path):
    path.touch()
    at = open_page()
    assert told(at) == [] and not widget(at, "button", "w.start").disabled


def test_a_place_that_cannot_be_written_to_is_told(tmp_path, monkeypatch, path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TOYBENCH_STORE", str(tmp_path / "file" / "runs"))
    at = open_page()
    widget(at, "button", "w.start").click().run()
    assert any("cannot be started" in line for line in told(at))


def test_a_store_that_another_process_writes_is_shown_meanwhile(path):
    stored(path, [TINY, overlay(TINY, {"outer.lr": 0.3})])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        at = open_page()
        assert told(at) == [] and len(at.get("vega_lite_chart")) == 1


# Processes


def test_a_sweep_runs_to_its_end_and_its_best_is_explored(path):
    at = page(x="outer.lr=0.05,0.1,0.2,1e30", seeds="2")
    widget(at, "button", "w.start").click().run()
    assert told(at) == [] and query_of(at)["sweep.show"] == "sweep" and has(at, "button", "w.cancel")
    until(lambda: not has(at, "button", "w.cancel"), at)
    assert told(at) == [] and done(path) == 8 and not has(at, "button", "w.resume")
    assert any("all 8 runs are done" in element.value for element in at.caption)
    [chart] = at.get("vega_lite_chart")
    assert '"outer.lr"' in chart.proto.spec
    frame = at.dataframe[0].value
    assert list(frame["outer.lr"])[-1] == 1e30 and list(frame["diverged"]) == [0, 0, 0, 2]
    assert list(frame["final loss"]) == sorted(frame["final loss"])
    assert not Runner(path, "sweep").log.exists()
    widget(at, "button", "w.explore").click().run()
    assert at.session_state["scene"].runs == (overlay(TINY, {"outer.lr": frame["outer.lr"][0]}),)
    assert any(element.value == "explored" for element in at.markdown)


def process(name="sweep"):
    return sweep.runners().get(state.store_path(), name).begun().process


def test_cancelled_a_sweep_keeps_what_is_finished_and_resumed_makes_the_rest(path):
    at = page(x=CALLS, seeds="2")
    widget(at, "button", "w.start").click().run()
    until(lambda: done(path) >= 4)
    os.kill(process(), signal.SIGSTOP)  # so that it cannot finish before the click
    widget(at.run(), "button", "w.cancel").click().run()
    os.kill(process(), signal.SIGCONT)
    until(lambda: not has(at, "button", "w.cancel"), at)
    kept = done(path)
    assert 4 <= kept < 48
    assert told(at) == [f"Cancelled; {kept} of 48 runs are kept; Resume makes the rest."]
    other = open_page()  # another page sees the same, and may resume
    assert told(other) == told(at)
    widget(other, "button", "w.resume").click().run()
    at.run()
    until(lambda: not has(at, "button", "w.cancel"), at)
    assert done(path) == 48 and told(at) == []


def test_killed_a_sweep_is_told_and_resumed(path):
    at = page(x=CALLS, seeds="2")
    widget(at, "button", "w.start").click().run()
    until(lambda: done(path) >= 4)
    os.kill(process(), signal.SIGKILL)
    until(lambda: not has(at, "button", "w.cancel"), at)
    kept = done(path)
    assert told(at) == [f"Killed by signal 9; {kept} of 48 runs are kept; Resume makes the rest."]
    sweep.runners.clear()  # the app is started again
    again = open_page()
    assert told(again) == [f"Its process is gone; {kept} of 48 runs are kept; Resume makes the rest."]
    widget(again, "button", "w.resume").click().run()
    until(lambda: done(path) > kept)
    sweep.runners().get(path, "sweep").cancel()
    until(lambda: not has(again, "button", "w.cancel"), again)


def test_an_app_that_is_started_again_finds_what_runs(path):
    wanted = Wanted("fast", TINY, (CALLS,), (0, 1))
    first = Runners().get(path, "s")
    first.start(wanted.command("s", path), before=0, total=48)
    second = Runners().get(path, "s")
    assert second.running and second.begun() == first.begun() and second.begun().total == 48
    with pytest.raises(ConfigError, match="'s' is running"):
        second.start(wanted.command("s", path), before=0, total=48)
    until(lambda: done(path, "s") >= 2)
    assert second.ended() is None
    second.cancel()
    until(lambda: not first.running)
    assert not second.running and second.ended().said.startswith("interrupted; ") and second.ended().status is None
    assert first.ended().status == 130


def test_two_sweeps_run_beside_each_other_and_one_is_cancelled_alone(path):
    both, axes = Runners(), {"a": "budget.evaluations=" + ",".join(map(str, range(1, 90))), "b": "outer.lr=0.1,0.2"}
    for name, axis in axes.items():
        command = Wanted("fast", TINY, (axis,), (0,)).command(name, path)
        both.get(path, name).start(command, before=0, total=1)
    assert sorted(both.names(path)) == ["a", "b"]
    until(lambda: done(path, "a") >= 1)
    both.get(path, "a").cancel()
    until(lambda: not both.get(path, "a").running and not both.get(path, "b").running)
    assert both.get(path, "b").ended() == Ended(0, "") and done(path, "b") == 2
    assert both.get(path, "a").ended().status == 130 and 0 < done(path, "a") < 89


def test_a_page_looks_again_while_a_sweep_runs_and_no_longer(path, monkeypatch):
    looked = []

    def fragment(body, run_every=None):
        looked.append(run_every)
        return body

    monkeypatch.setattr(sweep.st, "fragment", fragment)
    stored(path, [TINY, overlay(TINY, {"outer.lr": 0.3})])
    at = open_page()
    assert looked == []
    monkeypatch.setattr(Runner, "running", property(lambda self: True))
    at.run()
    assert looked == [sweep.EVERY]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A runner whose command does what it is told in Python."""
    (tmp_path / "fake.py").write_text("import sys; exec(sys.argv[1])")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made = Runner(tmp_path / "runs", "s")

    def start(code):
        made.start(["fake", code], before=0, total=1)
        until(lambda: not made.running)
        return made

    return start


@pytest.mark.parametrize(
    "code, ended, said",
    [
        ("pass", Ended(0, ""), ""),
        (
            "sys.exit('toybench: error: store: database or disk is full\\nlater')",
            Ended(1, "store: database or disk is full"),
            "Stopped: store: database or disk is full; nothing was stored.",
        ),
        ("1 / 0", Ended(1, "ZeroDivisionError: division by zero"), "Stopped: ZeroDivisionError: division by zero; "),
        ("sys.stderr.write('interrupted\\n'); sys.exit(130)", Ended(130, "interrupted"), "Cancelled; nothing was"),
        ("import os; os.kill(os.getpid(), 9)", Ended(-9, ""), "Killed by signal 9; nothing was stored."),
        ("sys.stderr.buffer.write(b'\\xff' * 9999); sys.exit(3)", Ended(3, "�" * 500), "Stopped: ��"),
    ],
)
def test_how_a_process_ends_is_told_in_a_line(fake, code, ended, said):
    found = fake(code).ended()
    assert found == ended
    assert sweep.ending(found, 0, 0, begun=False).startswith(said) and (
        said or sweep.ending(found, 4, 4, begun=True) == ""
    )


def test_a_log_of_another_process_by_now_is_no_running_sweep(tmp_path):
    made = Runner(tmp_path / "runs", "s")
    for text in (
        "",
        "{",
        '{"process": "x"}',
        json.dumps({"process": os.getpid(), "since": 0, "before": 0, "total": 1}),
    ):
        made.log.write_text(text)
        assert not made.running
    assert made.ended() == Ended(None, "")


def test_nothing_is_left_in_the_way_of_a_process(fake):
    """It reads nothing, prints nowhere, and gets no Ctrl-C of the app's terminal."""
    code = "import os; assert not sys.stdin.read() and os.getsid(0) == os.getpid(); print('x' * 10**6)"
    assert fake(code).ended() == Ended(0, "")


# What is shown


def flat(run, loss=1.0, seeds=(0, 1)):
    shape = (len(seeds), 3)
    curve = np.full(shape, loss, np.float32) + np.array(seeds, np.float32)[:, None] * 0.01
    curve[:, 0] = 2.0
    return Curves(run, tuple(seeds), np.tile(np.arange(3), (len(seeds), 1)), np.ones(shape), {"loss": curve})


def stored(path, runs, losses=None, *, lacking=(), name="stored"):
    """A sweep in a store, as it would be if it came out so."""
    losses = losses or [1 + 0.1 * i for i in range(len(runs))]
    with Store(path) as store:
        store.begin(Plan(name, runs, (0, 1), plan_calls(runs, (0, 1))), maker())
        for i, run in enumerate(runs):
            if i not in lacking:
                store.add([flat(run, losses[i])], maker(), seconds=0.1, commit=None)


def read(path, figure="", x="", name="stored"):
    desk = Desk(threads=1)
    job = desk.ask("test", "outcome", outcomes.read_outcome(path, name, figure, x))
    assert job.wait(60) and job.state == "done", job.problem
    desk.close()
    return job.result


def product(first, values, second=None, others=(None,)):
    return [
        overlay(TINY, {first: value, **({second: other} if second else {})}) for other in others for value in values
    ]


def specification(outcome):
    """The figure as a browser gets it, which Altair checks, and its text."""
    chart = chart_of(outcome).to_dict()
    return chart, json.dumps(chart)


def test_a_range_of_rates_is_a_line_with_its_best_marked(path):
    stored(path, product("outer.lr", [0.1, 0.2, 0.4, 0.8]), [1.2, 1.0, 1.1, 3.0])
    outcome = read(path)
    assert (outcome.figure, outcome.x, outcome.done, outcome.swept.log) == ("lines", "outer.lr", 8, ["outer.lr"])
    [line] = outcome.drawn["lines"]
    assert line["best"] == {"rate": 0.2, "loss": pytest.approx(1.005), "edge": None} and line["diverged"] == [
        0,
        0,
        0,
        2,
    ]
    chart, text = specification(outcome)
    assert '"type": "log"' in text and '"best"' in text
    assert chart["layer"][3]["mark"]["shape"] == "cross"
    assert "star: the best" in legend_of(outcome) and "diverged" in legend_of(outcome)
    assert outcome.best[0].settings == {"outer.lr": 0.2}


def test_the_best_at_an_edge_is_told(path):
    stored(path, product("outer.momentum", [0.0, 0.3, 0.6, 0.9]), [1.2, 1.1, 1.05, 1.0])
    outcome = read(path)
    assert outcome.swept.log == [] and outcome.drawn["lines"][0]["best"]["edge"] == "high"
    assert outcome.drawn["lines"][0]["rates"][0] == 0.0  # it has a place on a linear axis
    assert '"type": "linear"' in specification(outcome)[1] and "edge" in legend_of(outcome)


def test_two_numbers_are_a_heat_map_or_lines(path):
    stored(path, product("outer.lr", [0.1, 0.2, 0.4], "outer.momentum", [0.1, 0.5]), [3, 2.5, 1.5, 1, 2, 1.2])
    outcome = read(path)
    assert (outcome.figure, outcome.x) == ("heat map", "outer.lr")
    assert outcome.drawn["best"] == {"x": 0.1, "y": 0.5, "loss": pytest.approx(1.005)}
    assert outcome.swept.figures() == ["heat map", "lines"]
    assert "#D55E00" in specification(outcome)[1]
    turned = read(path, x="outer.momentum")
    assert turned.x == "outer.momentum" and turned.drawn["mean"].shape == (3, 2)
    lines = read(path, figure="lines")
    assert len(lines.drawn["lines"]) == 2 and lines.drawn["keys"] == ["outer.momentum"]
    specification(turned), specification(lines)


def test_methods_are_lines_and_keep_their_colours_while_others_come(path):
    runs = product("outer.lr", [0.1, 0.2], "outer.method", ["sgd", "nesterov", "mla"])
    stored(path, runs, [3, 2.5, 1.5, 1, 2, 1.2], lacking=(0, 1))
    outcome = read(path)
    assert outcome.figure == "lines" and outcome.swept.keys == ["outer.method", "outer.lr"]
    assert {row.settings["outer.method"] for row in outcome.best} == {"nesterov", "mla"}
    scale = chart_of(outcome).to_dict()["layer"][0]["encoding"]["color"]["scale"]
    assert scale["domain"] == ["nesterov", "mla"] and len(set(scale["range"])) == 2
    with Store(path) as store:
        store.add([flat(runs[0]), flat(runs[1])], maker(), seconds=0.1, commit=None)
    later = chart_of(read(path)).to_dict()["layer"][0]["encoding"]["color"]["scale"]
    assert dict(zip(later["domain"], later["range"])).items() >= dict(zip(scale["domain"], scale["range"])).items()


def test_a_sweep_that_has_just_begun_shows_what_there_is(path):
    runs = product("outer.lr", [0.1, 0.2, 0.4], "outer.momentum", [0.1, 0.5])
    stored(path, runs, lacking=range(1, 6))
    outcome = read(path)
    assert outcome.figure == "heat map" and outcome.done == 2
    domain = specification(outcome)[0]["layer"][0]["encoding"]["x"]["scale"]["domain"]
    assert domain == ["0.1", "0.2", "0.4"]  # the axes are those of the whole
    dots = read(path, figure="lines")
    assert dots.figure == "dots" and len(dots.drawn["rows"]) == 1 and "two rates" in dots.said
    specification(dots)
    stored(path, product("outer.lr", [0.7, 0.8]), lacking=range(2), name="empty")
    assert read(path, name="empty") is None


@pytest.mark.parametrize(
    "runs, figure",
    [
        ([TINY], "dots"),
        (product("outer.method", ["sgd", "mla"]), "dots"),
        (product("cluster.barrier", [True, False]), "dots"),
        (product("cluster.sec_per_step", [[1.0, 1.0], [1.0, 2.0]], "outer.method", ["sgd", "mla"]), "heat map"),
        (product("cluster.shards", [None, 4, 8]), "dots"),
        ([overlay(TINY, {"outer.lr": 0.1 * i, "inner.lr": 0.01 * i}) for i in (1, 2, 3)], "heat map"),
        (
            [
                overlay(TINY, {f"outer.{k}": 0.1 * i, "inner.lr": 1e-3 / i, "cluster.grace": i})
                for i, k in ((1, "lr"), (2, "momentum"), (3, "lr"))
            ],
            "dots",
        ),
    ],
)
def test_every_shape_of_a_sweep_has_a_figure(path, runs, figure):
    stored(path, runs)
    outcome = read(path)
    assert outcome.figure == figure and outcome.settings == len(runs)
    assert len(specification(outcome)[1]) > 100 and legend_of(outcome)
    at = open_page()
    assert told(at) == [] and len(at.get("vega_lite_chart")) == 1


def test_large_sweeps_are_thinned_and_the_best_stays(path, monkeypatch):
    monkeypatch.setattr(outcomes, "MOST_POINTS", 10)
    monkeypatch.setattr(outcomes, "MOST_CELLS", 10)
    losses = [1.5] * 40
    losses[21] = 1.0
    stored(path, product("outer.lr", [0.01 * (i + 1) for i in range(20)], "outer.momentum", [0.1, 0.5]), losses)
    outcome = read(path, figure="heat map")
    assert outcome.figure == "lines" and outcome.swept.figures() == ["lines"]
    assert sum(len(line["rates"]) for line in outcome.drawn["lines"]) <= 14
    assert 0.02 in outcome.drawn["lines"][0]["rates"] and outcome.drawn["lines"][0]["best"]["rate"] == 0.02


def test_the_figure_is_chosen_and_in_the_address(path):
    stored(path, product("outer.lr", [0.1, 0.2, 0.4], "outer.momentum", [0.1, 0.5]))
    at = open_page()
    widget(at, "button_group", "w.sweep.figure").set_value("lines").run()
    widget(at, "button_group", "w.sweep.along").set_value("outer.momentum").run()
    query = query_of(at)
    assert query["sweep.figure"] == "lines" and query["sweep.along"] == "outer.momentum"
    [one], [other] = (page.get("vega_lite_chart") for page in (at, open_page(query)))
    assert one.proto.spec == other.proto.spec and "outer.momentum" in one.proto.spec


def test_what_is_chosen_for_x_outlives_the_figure_of_before(path, monkeypatch):
    stored(path, product("outer.lr", [0.1, 0.2, 0.4], "outer.momentum", [0.1, 0.5]))
    old = read(path, figure="lines")
    assert old.x == "outer.lr"
    monkeypatch.setattr(sweep, "_result", lambda job: old)  # as while a sweep runs and the next is not read yet
    at = open_page()
    widget(at, "button_group", "w.sweep.along").set_value("outer.momentum").run()
    assert query_of(at)["sweep.along"] == "outer.momentum"


def test_a_stored_sweep_is_chosen(path):
    stored(path, product("outer.lr", [0.1, 0.2]), name="one")
    stored(path, product("inner.lr", [0.1, 0.2]), name="two")
    at = open_page()
    widget(at, "selectbox", "w.sweep.show").set_value("one").run()
    assert query_of(at)["sweep.show"] == "one" and at.dataframe[0].value.columns[0] == "outer.lr"


def test_an_unfinished_sweep_of_a_terminal_may_be_resumed(path):
    stored(path, product("outer.lr", [0.1, 0.2]), lacking=[1])
    at = open_page()
    assert told(at) == ["Unfinished; 2 of 4 runs are kept; Resume makes the rest."]
    widget(at, "button", "w.resume").click().run()
    until(lambda: not has(at, "button", "w.cancel"), at)
    assert done(path, "stored") == 4 and told(at) == []


def test_the_processes_modules_need_no_streamlit():
    code = "import sys; from toybench.views import outcomes, plans, runner; print('streamlit' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.stdout.strip() == "False", ended.stderr
