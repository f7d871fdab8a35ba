"""A promoted run trained from its page: started, watched, cancelled, gone on with, its curve beside the toy's."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from lm import display, launch
from lm.config import SIZES, TWIN, Size, default_arms
from lm.loop import Progress, Speed
from lm.pace import Peak
from lm.promote import promote
from lm.train import Point
from toybench.config import InnerAdamW
from toybench.loading import overlay
from toybench.presets import load_preset
from toybench.store import Store
from toybench.training import train
from toybench.views import trained
from toybench.views.scene import Scene, encode

TOY = overlay(
    load_preset("fast"),
    {"budget.rounds": 2, "budget.evaluations": 2, "task.points": 400, "task.held_out": 50, "cluster.local_steps": 3},
)
QUERY = encode(Scene("fast", seeds=(5, 6), runs=(TOY,))) | {"size": "tiny"}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The file of the page's runs, and a tiny size that is tiny indeed."""
    path = tmp_path / "my runs.sqlite"
    monkeypatch.setenv("TOYBENCH_STORE", str(path))
    monkeypatch.setitem(SIZES, "tiny", Size(TWIN, InnerAdamW(lr=1e-3, warmup=2), steps=12, evaluations=4))
    trained.runners.clear()
    return path


@pytest.fixture
def longer(path, monkeypatch):
    """The same with a run that lasts until it is ended."""
    monkeypatch.setitem(SIZES, "tiny", Size(TWIN, InnerAdamW(lr=1e-3, warmup=2), steps=6000, evaluations=500))
    return path


def open_page(query=QUERY):
    def script():
        from lm import launch
        from lm import promote as bridge
        from toybench.views import promote, state

        state.page(lambda: promote.body(bridge, launch))

    at = AppTest.from_function(script, default_timeout=120)
    for name, value in query.items():
        at.query_params[name] = value
    return at.run()


def told(at):
    assert not at.exception
    return [element.value for kind in ("warning", "error") for element in getattr(at, kind)]


def button(at, key):
    return next((b for b in at.button if b.key == key), None)


def charts(at):
    return [json.loads(element.proto.spec) for element in at.get("vega_lite_chart")]


def until(condition, at=None, seconds=120.0):
    """Look again and again, at a page by running it anew."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, at and (told(at), [info.value for info in at.info])
        time.sleep(0.1)
        if at is not None:
            at.run()


def runner(path):
    run = promote(TOY, "tiny")
    return trained.runners().get(path, launch.name_of(run, "tiny"))


def begun(at, path):
    """Press the button; the page watches the process."""
    assert told(at) == [] and button(at, "w.train.start").label == "Train"
    button(at, "w.train.start").click().run()
    until(lambda: button(at, "w.train.cancel") is not None, at)
    return runner(path)


def test_a_run_is_trained_beside_the_page_and_drawn_beside_the_toy(path):
    at = open_page()
    assert not charts(at)
    process = begun(at, path)
    until(lambda: button(at, "w.train.cancel") is None, at)
    until(lambda: len(charts(at)) == 2, at)  # the toy's is made at the desk
    assert told(at) == [] and button(at, "w.train.start") is None and not process.log.exists()
    with Store(path, writable=False) as store:
        [row] = store.list()
        assert store.describe(row["run"])["configuration"]["task"]["kind"] == "language_model"
        steps = store.columns(row["run"])["local_steps"]
    assert len(steps) == 5
    # Another page, or this one tomorrow, finds it done.
    trained.runners.clear()
    again = open_page()
    assert button(again, "w.train.start") is None
    assert any("done; the run is in the store" in caption.value for caption in again.caption)


def test_a_run_is_cancelled_and_gone_on_with(longer):
    at = open_page()
    process = begun(at, longer)
    until(lambda: launch.read(process.lines()), at)
    button(at, "w.train.cancel").click().run()
    until(lambda: not process.running)
    at.run()
    [said] = told(at)
    assert said.startswith("Cancelled: stopped after ") and button(at, "w.train.start").label == "Resume"
    before = launch.read(process.lines())[-1].local_steps
    button(at, "w.train.start").click().run()
    until(lambda: launch.read(process.lines()), at)
    assert launch.read(process.lines())[0].local_steps >= before - 12  # not from the start
    os.kill(process.begun().process, signal.SIGKILL)
    until(lambda: not process.running)
    at.run()
    assert told(at)[0].startswith("Stopped: ") and button(at, "w.train.start").label == "Resume"


def test_an_app_that_was_closed_finds_the_run_again(longer):
    at = open_page()
    first = begun(at, longer)
    try:
        trained.runners.clear()
        again = open_page()
        assert button(again, "w.train.cancel") is not None and runner(longer) is not first
        runner(longer).cancel()
        until(lambda: not first.running)
        until(lambda: not runner(longer).running)
    finally:
        if first.running:
            os.kill(first.begun().process, signal.SIGKILL)


@pytest.mark.parametrize("size", ["20m", "150m"])
def test_what_takes_hours_is_not_started_from_a_page(path, size):
    at = open_page(QUERY | {"size": size})
    assert button(at, "w.train.start") is None and not charts(at)
    assert any("too many to be started from here" in caption.value for caption in at.caption)


def test_the_toys_curve_is_the_stores_where_it_has_one(path):
    runs = train([TOY, overlay(TOY, {"cluster.shards": 4})], [5, 6, 7])
    with Store(path) as store:
        store.add(runs, {"code": "this"}, seconds=1.0, commit=None)
    line = trained.kept(path, None, TOY)
    assert line.run == TOY and line.seeds == (5, 6, 7)
    np.testing.assert_array_equal(line.metrics["loss"], runs[0].metrics["loss"])
    assert trained.kept(path.with_name("nowhere"), None, TOY) is None


def test_a_run_has_its_own_name():
    runs = [promote(overlay(TOY, {"outer.lr": lr}), "tiny") for lr in (0.1, 0.2, 0.1)]
    first, second, third = (launch.name_of(run, "tiny") for run in runs)
    assert first == third != second
    assert launch.problem(default_arms()["sync"]) == ""


def test_the_app_needs_none_of_the_packages_that_train():
    heavy = "{'jax', 'flax', 'orbax', 'optax'}"
    code = f"import sys; from lm import launch, promote; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_what_a_run_says_is_read_back(capsys):
    points = [(0, 5.5055), (1200, float("nan")), (2400, 2.25)]
    with display.display("run", Peak(1e12, "x")) as report:
        for steps, loss in points:
            speed = Speed(12345.6, 1e9) if steps else None
            report(Progress(steps, 2400, Point(steps, steps, 0.0, {"loss": loss}), None, speed, 90.0))
    lines = capsys.readouterr().err.splitlines()
    found = launch.read(["noise", *lines, "toybench: error: x: 1 of 2 local steps"])
    np.testing.assert_array_equal([(line.local_steps, line.loss) for line in found], points)
    assert {line.total_steps for line in found} == {2400} and found[1].said.endswith("0:01:30 left")
