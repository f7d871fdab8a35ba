"""The Sweep page's stores and processes: one survives, is cancelled, killed, resumed, and how it ended is told."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from tests.pages import has, newer, of_another_program, query_of, told, until, widget
from tests.sweep_page import TINY, done, open_page, page, product, stored
from toybench.config import ConfigError
from toybench.loading import overlay
from toybench.views import state, sweep_shown, sweeps
from toybench.views.plans import Wanted
from toybench.views.runner import Ended, Runner, Runners

CALLS = "budget.evaluations=" + ",".join(map(str, range(1, 25)))  # each a program, and so a call, of its own


# Stores


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
    return sweeps.runners().get(state.store_path(), name).begun().process


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
    sweeps.runners.clear()  # the app is started again
    again = open_page()
    assert told(again) == [f"Its process is gone; {kept} of 48 runs are kept; Resume makes the rest."]
    widget(again, "button", "w.resume").click().run()
    until(lambda: done(path) > kept)
    sweeps.runners().get(path, "sweep").cancel()
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

    monkeypatch.setattr(sweep_shown.st, "fragment", fragment)
    stored(path, [TINY, overlay(TINY, {"outer.lr": 0.3})])
    at = open_page()
    assert looked == []
    monkeypatch.setattr(Runner, "running", property(lambda self: True))
    at.run()
    assert looked == [sweep_shown.EVERY]


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
    assert sweep_shown.ending(found, 0, 0, begun=False).startswith(said) and (
        said or sweep_shown.ending(found, 4, 4, begun=True) == ""
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


def test_an_unfinished_sweep_of_a_terminal_may_be_resumed(path):
    stored(path, product("outer.lr", [0.1, 0.2]), lacking=[1])
    at = open_page()
    assert told(at) == ["Unfinished; 2 of 4 runs are kept; Resume makes the rest."]
    widget(at, "button", "w.resume").click().run()
    until(lambda: not has(at, "button", "w.cancel"), at)
    assert (done(path, "stored"), told(at)) == (4, [])


def test_the_processes_modules_need_no_streamlit():
    code = "import sys; from toybench.views import outcomes, plans, runner; print('streamlit' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.stdout.strip() == "False", ended.stderr
