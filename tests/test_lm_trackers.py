"""Metrics mirrored for TensorBoard and wandb, read back from their files."""

import errno
import os
import struct
import sys
import time
from contextlib import closing

import numpy as np
import pytest
from test_lm_progress import PEAK, small

from lm import pace, trackers
from lm.checkpoint import Checkpoints
from lm.cli import main
from lm.config import flops_per_token
from lm.loop import Stopped, carry_out
from lm.trackers import Wanted, tracking
from toybench.config import ConfigError, ConfigWarning


@pytest.fixture(autouse=True)
def speed_of_any_time(monkeypatch):
    """These trainings may end before the tenth of a second that a speed is told of."""
    monkeypatch.setattr(pace, "LEAST", 1e-9)


def tracked(wanted, tmp_path, one, **more):
    (tmp_path / "out" / "run").mkdir(parents=True)
    with tracking(wanted, "run", {"a": 1}, tmp_path / "out" / "run", PEAK) as report:
        return carry_out(one, report=report, **more)


def events(folder):
    """(tag, step, wall time, value) of all event files, in order, as TensorBoard shows them after its purges."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found = []
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += length + 16  # with two checksums
            if event.session_log.status == SessionLog.START:
                found = [row for row in found if row[1] < event.step]
            found += [(value.tag, event.step, event.wall_time, value.simple_value) for value in event.summary.value]
    return found


def check_rows(rows, one, done):
    """Rows of (name, local steps, simulated time, value) against what was trained."""
    curves, timeline = done.curves, one.timeline

    def of(name):
        return np.array([row[1:] for row in rows if row[0] == name]).T

    steps, times, values = of("train/staleness")
    np.testing.assert_array_equal(steps, timeline.local_steps)
    np.testing.assert_allclose(times, timeline.time)
    np.testing.assert_array_equal(values, timeline.staleness)
    steps, times, values = of("held_out/loss")
    np.testing.assert_array_equal(steps, curves.local_steps[0])
    np.testing.assert_allclose(times, curves.time[0])
    np.testing.assert_allclose(values, curves.metrics["loss"][0], rtol=1e-6)
    assert len(of("train/loss")[0]) == len(timeline.time)
    for name in ("speed/tokens_per_second", "speed/utilisation"):
        assert len(of(name)[0]) > 0 and (of(name)[2] > 0).all()
    share = flops_per_token(one.run.task) / PEAK.rate
    np.testing.assert_allclose(of("speed/utilisation")[2], share * of("speed/tokens_per_second")[2], rtol=1e-5)


def test_tensorboard_holds_every_visit_and_evaluation(tmp_path):
    pytest.importorskip("tensorboardX")
    one = small()
    done = tracked(Wanted(tensorboard=str(tmp_path)), tmp_path, one)
    check_rows(events(tmp_path / "out" / "run"), one, done)


def test_runs_of_different_folders_are_apart_in_one_folder_of_events(tmp_path):
    """Each is called `run`; of several that a command trains each has a name."""
    pytest.importorskip("tensorboardX")
    wanted, one = Wanted(tensorboard=str(tmp_path / "events")), small()
    for name, folder in (("run", "a/run"), ("run", "b/run"), ("sync", "c/sync")):
        with tracking(wanted, name, {}, tmp_path / folder, PEAK) as report:
            done = carry_out(one, report=report)
        check_rows(events(tmp_path / "events" / (folder if name == "run" else name)), one, done)


@pytest.mark.parametrize("kept_at, killed_at", [(3, 4), (6, 12)])
def test_tensorboard_holds_each_but_once_after_a_kill(tmp_path, kept_at, killed_at):
    """A process that ends beyond its last checkpoint leaves events that the next one writes anew."""
    pytest.importorskip("tensorboardX")
    wanted = Wanted(tensorboard=str(tmp_path / "events"))

    def go_on(stop=lambda: False, killed=lambda: False):
        one = small()
        checkpoints = Checkpoints(tmp_path / "checkpoints", one)
        with closing(checkpoints), tracking(wanted, "run", {}, tmp_path / "out" / "run", PEAK) as track:

            def report(progress):
                track(progress)
                if killed():
                    raise KeyboardInterrupt

            return one, carry_out(one, checkpoints, resume=True, every=1e9, report=report, stop=stop)

    def after(n):
        calls = iter(range(n))
        return lambda: next(calls, None) is None

    with pytest.raises(Stopped):
        go_on(stop=after(kept_at))
    with pytest.raises(KeyboardInterrupt):
        go_on(killed=after(killed_at - kept_at))
    one, done = go_on()
    check_rows(events(tmp_path / "events" / "out" / "run"), one, done)


def wandb_rows(path):
    """(name, local steps, simulated time, value) of a file of offline runs: LevelDB's log of protocol buffers."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, record, found = path.read_bytes(), 7, b"", []
    while at < len(data):
        if 32768 - at % 32768 < 7:  # a block's end is too short for a header
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            items = {i.key or ".".join(i.nested_key): i.value_json for i in Record.FromString(record).history.item}
            place = [float(items.pop(name, "nan")) for name in ("local_steps", "simulated_time")]
            found += [(name, *place, float(value)) for name, value in items.items() if not name.startswith("_")]
            record = b""
    return found


def test_wandb_holds_every_visit_and_evaluation_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    one = small()
    done = tracked(Wanted(wandb="project"), tmp_path, one)
    [path] = tmp_path.glob("out/run/wandb/offline-run-*/*.wandb")
    end = time.monotonic() + 60  # another process writes it
    while not wandb_rows(path) and time.monotonic() < end:
        time.sleep(0.1)
    check_rows(wandb_rows(path), one, done)


def test_a_mirror_that_breaks_is_dropped_and_the_run_goes_on():
    seen = []

    def full(local_steps, seconds, values):
        if local_steps > 10:
            raise OSError(errno.ENOSPC, "No space left on device")

    one = small()
    mirror = trackers._Mirror([full, lambda *row: seen.append(row)], PEAK)
    with pytest.warns(ConfigWarning, match="No space left on device") as warned:
        done = carry_out(one, report=mirror.report)
    assert len(warned) == 1
    check_rows([(name, at, t, x) for at, t, values in seen for name, x in values.items()], one, done)


@pytest.mark.parametrize("flag, package", [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_package_that_is_not_there_is_said_before_training(flag, package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["train", f"--{flag}", "there"])
    assert ended.value.code == 2 and os.listdir(tmp_path) == []
    said = f"toybench: error: {flag}: its package is not installed: pip install 'toybench[{flag}]'\n"
    assert capsys.readouterr().err == said


def test_a_folder_that_cannot_be_is_said_before_training(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboardX")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        main(["train", "--tensorboard", "file/inside"])
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "tensorboard: cannot write to 'file/inside'" in err
    with pytest.raises(ConfigError):
        trackers.Wanted(tensorboard="").check()
