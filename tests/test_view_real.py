"""The Workers page: real runs as they go, done, stopped, and damaged."""

import json
import os
import time

import pytest

pytest.importorskip("streamlit")

from streamlit.testing.v1 import AppTest

from tests.pages import sound
from tests.wall import small
from toybench.transports.drive import Engine, carry_out
from toybench.transports.work import toy_recipe


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TOYBENCH_STORE", str(tmp_path / "runs.sqlite"))
    return tmp_path


def open_page():
    def script():
        from toybench.views import real, state

        state.page(real.body)

    return AppTest.from_function(script, default_timeout=60).run()


def trained(home):
    folder = home / "real" / "run"
    folder.mkdir(parents=True)
    carry_out(toy_recipe(small().run, 0), Engine("threads"), folder)
    return folder


def test_without_a_run_it_says_how_to_start_one(home):
    at = sound(open_page())
    assert "No real run" in at.info[0].value and "--engine threads" in at.code[0].value


def test_a_run_that_is_done_stands_beside_its_simulation(home):
    folder = trained(home)
    at = sound(open_page())
    status = json.loads((folder / "status.json").read_text())
    metrics = {metric.label: metric.value for metric in at.metric}
    assert metrics["workers"] == "4 of 4" and metrics["arrivals"] == f"{status['arrivals']:,}"
    assert metrics["held-out loss"] == f"{status['points'][-1][3]['loss']:.4f}"
    assert len(at.dataframe) == 2 and len(at.get("vega_lite_chart")) == 1
    assert at.code[0].value.startswith("toybench replay")


@pytest.mark.parametrize("age, said", ((0.0, "going on"), (100.0, "stopped")))
def test_a_run_that_is_not_done_goes_on_or_has_stopped(home, age, said):
    path = trained(home) / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"done": False, "local_steps": 3}))
    then = time.time() - age
    os.utime(path, (then, then))
    at = sound(open_page())
    assert said in at.get("progress")[0].proto.text


def test_why_a_run_failed_is_shown(home):
    path = trained(home) / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"failed": "no room *here*"}))
    assert any("no room" in error.value for error in open_page().error)


@pytest.mark.parametrize("content", ("", "[]", "{}", '{"done": true}'))
def test_a_status_that_is_damaged_is_told_of(home, content):
    folder = home / "real"
    folder.mkdir()
    (folder / "status.json").write_text(content)
    at = open_page()
    assert not at.exception and len(at.error) == 1
