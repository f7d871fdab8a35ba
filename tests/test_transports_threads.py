"""Real workers as threads of one process: `toybench run --engine threads`, from the command line to the replay."""

import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import jax
import numpy as np
import pytest

from tests.wall import small
from toybench.cli import main
from toybench.timeline import simulate
from toybench.transports.again import again
from toybench.transports.drive import Engine, carry_out
from toybench.transports.live import Live
from toybench.transports.messages import Rules
from toybench.transports.results import departures, predicted, read_real
from toybench.transports.threads import run_threads
from toybench.transports.work import Recipe, ToyWork, toy_recipe

SHORT = ["--preset", "fast", "--cluster.grace", "0", "--budget.rounds", "4", "--budget.evaluations", "2"]


def trained(tmp_path, rules=None, **changes):
    work = small(**changes)
    live = Live(work, tmp_path / "server", rules or Rules())
    assert run_threads(live, work)
    return work, live


def differ(work, live, codec="none") -> float:
    pairs = zip(jax.tree.leaves(again(work, live.coordinator.timeline(), codec)), jax.tree.leaves(live.server.params))
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


@pytest.mark.parametrize("rules", ({}, {"dynamic_steps": True}, {"barrier": True}, {"grace": 5.0, "coalesce": True}))
def test_a_real_run_replayed_has_its_parameters(tmp_path, rules):
    work, live = trained(tmp_path, Rules(pace=0.003), **{f"cluster.{k}": v for k, v in rules.items()})
    assert differ(work, live) < 1e-6
    assert live.coordinator.steps_done >= live.coordinator.goal and live.settled
    if "barrier" in rules:
        assert not live.coordinator.timeline().staleness.any()


class Hanging(ToyWork):
    """One of its visits takes for ever, as a stopped process does."""

    def visit(self, start, inner_state, visit):
        if visit.worker == 1 and visit.pulled_at > 4 and not HUNG.is_set():
            HUNG.set()
            time.sleep(1.5)
        return super().visit(start, inner_state, visit)


HUNG = threading.Event()


def test_a_worker_that_hangs_is_given_up_and_comes_back(tmp_path):
    HUNG.clear()
    base = small(**{"budget.rounds": 40})
    work = Hanging(base.run, base.seed)
    live = Live(work, tmp_path / "server", Rules(pace=0.02, least=0.5, factor=2.0))
    assert run_threads(live, work)
    assert HUNG.is_set() and live.counts["late"] >= 1 and live.coordinator.lost >= 1
    timeline = live.coordinator.timeline()
    assert (timeline.worker == 1)[timeline.pulled_at > 4].any() and differ(base, live) < 1e-6


def test_a_worker_that_fails_ends_the_run_by_its_name(tmp_path):
    class Broken(ToyWork):
        def visit(self, start, inner_state, visit):
            if visit.worker == 2:
                raise MemoryError("no room")
            return super().visit(start, inner_state, visit)

    base = small()
    live = Live(Broken(base.run, 0), tmp_path / "server", Rules())
    assert not run_threads(live, Broken(base.run, 0))
    assert "worker 2" in live.failed and "no room" in live.failed


def test_a_run_that_is_stopped_goes_on(tmp_path):
    run = small(**{"budget.rounds": 12}).run
    recipe, engine = toy_recipe(run, 3), Engine("threads", Rules(pace=0.01))
    seen = []

    def enough():
        return bool(seen) and seen[-1]["arrivals"] >= 10

    assert carry_out(recipe, engine, tmp_path, report=seen.append, stop=enough) is None
    before = seen[-1]["arrivals"]
    document = carry_out(recipe, engine, tmp_path, resume=True)
    assert document is not None and len(document["arrivals"]["time"]) > before >= 10
    assert document["points"][0]["local_steps"] == 0
    assert recipe == Recipe(**json.loads((tmp_path / "real.json").read_text())["recipe"])


def test_a_prediction_is_told_the_measured_speeds_in_seconds_of_the_wall(tmp_path):
    _, live = trained(tmp_path, Rules(pace=0.003))
    run, real = live.work.run, read_real(tmp_path)._replace(speeds={0: 9.0}, pace=2.0)
    speeds = (9.0, *run.cluster.sec_per_step[1:])
    model = simulate(replace(run.cluster, sec_per_step=speeds), run.budget, 0)
    found = predicted(run, real, 0)
    np.testing.assert_allclose(found.time, 2.0 * model.time)
    np.testing.assert_array_equal(found.worker, model.worker)
    rows = {row.name: row for row in departures(real, found)}
    assert rows["arrivals"].real == len(real.timeline.time) and rows["seconds"].predicted == found.time[-1]


# The command line


def test_a_run_by_threads_and_its_replay(tmp_path, capsys):
    assert main(["run", *SHORT, "--engine", "threads", "--compress", "int8", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "pushes applied" in said.out and "mean staleness" in said.out and "local steps" in said.err
    assert main(["replay", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["agree"] and found["relative"] < 1e-4 and found["same_code"]
    assert json.loads((tmp_path / "run" / "status.json").read_text())["done"]


def test_a_replay_that_is_not_the_run_says_so(tmp_path, capsys):
    assert main(["run", *SHORT, "--engine", "threads", "--out", str(tmp_path)]) == 0
    path = tmp_path / "run" / "real.json"
    document = json.loads(path.read_text())
    order = document["arrivals"]["shard"]
    document["arrivals"]["shard"] = order[1:] + order[:1]
    path.write_text(json.dumps(document))
    assert main(["replay", str(path)]) == 1
    assert "NOT the same" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, said",
    (
        (["--engine", "threads", "--compress", "zip"], "compress"),
        (["--engine", "threads", "--pace", "-1"], "pace"),
        (["--engine", "threads", "--pace", "nan"], "pace"),
        (["--engine", "threads", "--deadline", "0"], "deadline"),
        (["--engine", "threads", "--address", "here:1"], "engine"),
        (["--engine", "threads", "--seeds", "3"], "seeds"),
        (["--engine", "threads", "--probe"], "probe"),
        (["--pace", "1"], "pace"),
        (["--resume"], "resume"),
    ),
    ids=lambda one: " ".join(one) if isinstance(one, list) else one,
)
def test_what_makes_no_sense_is_told_in_a_line(words, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", *SHORT, *words, "--out", str(tmp_path / "out")])
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(lines) == 1 and said in lines[0], lines
    assert not (tmp_path / "out").exists()


def test_a_folder_with_a_run_is_not_written_over(tmp_path, capsys):
    words = ["run", *SHORT, "--engine", "threads", "--out", str(tmp_path)]
    assert main(words) == 0
    with pytest.raises(SystemExit):
        main(words)
    assert "--resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0  # it is over already
    with pytest.raises(SystemExit):
        main([*words, "--resume", "--outer.lr", "0.123"])
    assert "holds a run of" in capsys.readouterr().err


@pytest.mark.parametrize("path", ("nowhere", "."))
def test_a_replay_of_nothing_is_told_in_a_line(path, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(tmp_path / path)])
    assert ended.value.code == 2 and len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("how", (signal.SIGTERM, signal.SIGINT, signal.SIGKILL))
def test_a_process_that_is_ended_goes_on_where_it_was(how, tmp_path):
    """A real process, ended by a real signal in the middle; the journal alone is enough."""
    words = [sys.executable, "-m", "toybench", "run", "--preset", "fast", "--engine", "threads", "--pace", "0.05"]
    words += ["--cluster.grace", "0", "--budget.rounds", "12", "--budget.evaluations", "2", "--out", str(tmp_path)]
    status, begun = tmp_path / "run" / "status.json", time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while time.monotonic() - begun < 120:
            if status.exists() and json.loads(status.read_text())["arrivals"] >= 8:
                break
            time.sleep(0.05)
        arrivals = json.loads(status.read_text())["arrivals"]
        process.send_signal(how)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[how], errors
    assert "Traceback" not in errors
    assert subprocess.run([*words, "--resume"], timeout=200).returncode == 0
    document = json.loads((tmp_path / "run" / "real.json").read_text())
    assert len(document["arrivals"]["time"]) >= arrivals >= 8
    assert main(["replay", str(tmp_path / "run")]) == 0
