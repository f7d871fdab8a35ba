"""`python -m lm train` as it is typed: killed, stopped, resumed, and run again."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from lm.config import TWIN
from toybench.store import Store

SMALL = [
    *("--task.width", "16", "--task.heads", "2", "--task.head-size", "8", "--task.sequence", "16"),
    *("--task.batch", "2", "--task.held-out", "4", "--cluster.local-steps", "4"),
    *("--budget.rounds", "24", "--budget.evaluations", "8"),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A corpus and compiled programs of these tests' own, made once."""
    return os.environ | {"TOYBENCH_CACHE": str(tmp_path_factory.mktemp("cache"))}


def train(environment, out, *words):
    command = [sys.executable, "-m", "lm", "train", *SMALL, "--every", "0", "--out", str(out)]
    return subprocess.Popen(
        [*command, "--store", str(out.parent / "runs.sqlite"), *words],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ended(process, status):
    out, err = process.communicate(timeout=240)
    assert process.returncode == status, err
    return out, err


def curves(out):
    return json.loads((out / "run" / "run.json").read_text())["curves"]


@pytest.fixture(scope="module")
def whole(environment, tmp_path_factory):
    """A run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    ended(train(environment, out), 0)
    return out


def after_a_checkpoint(process, out):
    """Wait until the run has written one, and is at the next."""
    end = time.monotonic() + 240
    while not [p for p in (out / "run" / "checkpoints").glob("*") if p.name.isdecimal()]:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize("number, status", [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("later", [0.0, 0.15])
def test_ended_at_any_checkpoint_and_resumed_is_uninterrupted(environment, whole, tmp_path, number, status, later):
    out = tmp_path / "out"
    process = train(environment, out)
    after_a_checkpoint(process, out)
    time.sleep(later)
    process.send_signal(number)
    ended(process, status)
    assert not (out / "run" / "run.json").exists()
    ended(train(environment, out, "--resume"), 0)
    assert curves(out) == curves(whole)  # every number, bit for bit
    with Store(tmp_path / "runs.sqlite", writable=False) as store:
        assert store.count() == 1


def test_a_second_run_does_not_take_the_firsts_place(environment, whole):
    before = curves(whole)
    _, err = ended(train(environment, whole, "--seed", "9"), 2)
    assert err.count("\n") == 1 and "holds checkpoints of an earlier run; --resume goes on" in err
    assert curves(whole) == before


def test_a_checkpoint_of_another_seed_is_one_line(environment, whole):
    _, err = ended(train(environment, whole, "--seed", "9", "--resume"), 2)
    assert err == "toybench: error: resume: the checkpoint is of seed 0, not 9\n"


def test_a_run_starts_from_anothers_parameters(environment, whole, tmp_path):
    ended(train(environment, tmp_path / "out", "--init", str(whole / "run")), 0)
    np.testing.assert_allclose(curves(tmp_path / "out")["loss"][0], curves(whole)["loss"][-1], rtol=1e-5)


def test_another_models_parameters_are_refused(environment, whole, tmp_path):
    words = ("--init", str(whole / "run"), "--task.width", str(2 * TWIN.width))
    _, err = ended(train(environment, tmp_path / "out", *words), 2)
    assert err.count("\n") == 1 and "is of another model" in err
