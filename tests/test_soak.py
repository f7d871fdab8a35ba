"""The soak over Ray: what it makes of failures, without a Ray."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import soak, soak_faults
from toybench.config import ConfigError
from toybench.presets import load_preset
from toybench.timeline import simulate


def test_a_run_that_does_not_begin_is_a_failure_and_is_begun_again(tmp_path, monkeypatch):
    tries = []

    def run_ray(recipe, ledger, rules, report, **more):
        tries.append(ledger)
        if len(tries) == 1:
            raise ConfigError("ray", f"does not start in {tmp_path}")
        report({"arrivals": 0, "deaths": 1, "server_deaths": 2, "notes": ["n"]})
        return len(tries) == 3

    monkeypatch.setattr(soak, "run_ray", run_ray)
    told = soak.soaked(None, tmp_path, 60.0, 0)
    assert told["failed"] == ["ray: does not start in FOLDER", "stopped"]
    assert told["deaths"] == {"workers": 2, "servers": 4} and told["notes"] == ["n", "n"]


@pytest.mark.parametrize("killed, failed, found", [(3, 0, 0), (1, 1, 1), (0, 0, 3), (2, 1, 0)])
def test_a_server_that_dies_by_itself_is_noticed(killed, failed, found):
    faults = {"servers killed: apply": killed, "servers stopped": 9, "workers killed": 9}
    told = {"faults": faults, "deaths": {"servers": 3}, "failed": ["disk"] * failed}
    assert soak.unkilled(told) == found


def test_who_is_killed_before_it_is_answered_is_asked_again(tmp_path, monkeypatch):
    """And who was answered is not."""
    asked, ends = [], ["import os; os.kill(os.getpid(), 9)", "import sys; sys.exit(3)", "print('is 0.0.0')", "1/0"]
    begin = subprocess.Popen

    def process(command, **pipes):
        asked.append(begin([sys.executable, "-c", ends[len(asked)]], **pipes))
        return asked[-1]

    def run_ray(recipe, ledger, rules, report, **more):
        for _ in range(5):
            report({"arrivals": 21, "deaths": 0, "server_deaths": 0, "notes": []})
            asked[-1].wait()
        return True

    monkeypatch.setattr(soak, "run_ray", run_ray)
    monkeypatch.setattr(soak.subprocess, "Popen", process)
    assert soak.soaked(None, tmp_path, 60.0, 0)["other version"] == "is 0.0.0"
    assert len(asked) == 3


def test_the_server_is_stopped_for_a_while_and_goes_on(tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(soak_faults, "send", lambda pid, what: pid is not None and not sent.append((pid, what.name)))
    chaos = soak_faults.Chaos(tmp_path, 0, 1e9, ended=SimpleNamespace(wait=lambda seconds: sent.append(seconds)))
    chaos.stop_server(soak_faults.random.Random(0))
    assert not sent and not chaos.counts["servers stopped"]  # there is none
    chaos.told["server_pid"] = 7
    chaos.stop_server(soak_faults.random.Random(0))
    assert [sent[0], sent[2]] == [(7, "SIGSTOP"), (7, "SIGCONT")] and 1.0 <= sent[1] <= 4.0
    assert chaos.counts["servers stopped"] == 1


def test_inner_states_are_kept_but_for_those_who_begin():
    run = load_preset("fast")
    timeline = simulate(run.cluster, run.budget, 0)
    found = soak.kept(timeline._replace(reset=np.ones_like(timeline.reset)))
    assert found.reset.sum() == run.cluster.workers
    assert [*found.worker[found.reset]] == [*dict.fromkeys(timeline.worker)]


@pytest.mark.parametrize("module", ["soak", "real_run", "scale"])
def test_a_folder_that_cannot_be_is_one_line_before_the_work(module, tmp_path):
    (tmp_path / "file").write_text("")
    words = ["-m", f"experiments.{module}", "--out", str(tmp_path / "file" / "out")]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and done.stdout == ""
    [told] = done.stderr.splitlines()
    assert "out: cannot write to" in told
