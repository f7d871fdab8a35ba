"""A disk that is full, a checkpoint cut short: what is told, and that the last whole checkpoint is gone on from."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from test_lm_progress import small

from lm.checkpoint import Checkpoints
from lm.loop import Stopped, carry_out
from tests.corpora import made_of_words
from toybench.config import ConfigError

SMALL = [
    *("--task.width", "16", "--task.heads", "2", "--task.head-size", "8", "--task.sequence", "16"),
    *("--task.batch", "2", "--task.held-out", "4", "--cluster.local-steps", "2"),
    *("--budget.rounds", "30", "--budget.evaluations", "60"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return made_of_words(tmp_path_factory.mktemp("text"))


@pytest.fixture
def command(corpus, tmp_path):
    """A training that writes a checkpoint at almost every arrival, without its `--out`."""
    words = [*SMALL, "--task.data", str(corpus), "--every", "0", "--store", str(tmp_path / "runs.sqlite")]
    return [sys.executable, "-m", "lm", "train", *words]


def curves(out):
    return json.loads((out / "run" / "run.json").read_text())["curves"]


# A full disk


def room_for(size):
    """A prefix of command lines that gives them a disk of their own in the folder $OUT, of so many bytes."""
    mount = f'mount -t tmpfs -o size={size} tmpfs "$OUT"'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]


def can_mount(folder):
    with suppress(OSError):
        return (
            subprocess.run(room_for(10**6), env=os.environ | {"OUT": str(folder)}, capture_output=True).returncode == 0
        )
    return False


def test_a_disk_that_fills_is_one_line_and_gone_on_from_when_there_is_room(command, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    out.mkdir()
    if not can_mount(out):
        pytest.skip("no disk of one's own to fill, without user namespaces")
    short = [*command, "--budget.rounds", "3", "--keep", "1"]
    subprocess.run([*short, "--out", str(whole)], check=True, capture_output=True, timeout=240)
    [last] = (p for p in (whole / "run/checkpoints").iterdir() if p.name.isdecimal())
    size = sum(-(-p.stat().st_size // 4096) * 4096 for p in last.rglob("*") if p.is_file())
    script = [
        '"$@" 2>"$SAID"; status=$?',
        'mount -o remount,size=100m "$OUT"',
        '"$@" --resume 2>/dev/null && cp -r "$OUT" "$KEPT" && exit $status',
    ]
    words = room_for(int(1.7 * size))
    words[-1] = "; ".join([words[-1], *script])
    places = {"OUT": str(out), "SAID": str(tmp_path / "said"), "KEPT": str(tmp_path / "kept")}
    done = subprocess.run(
        [*words, "sh", *short, "--out", str(out)], env=os.environ | places, capture_output=True, text=True, timeout=280
    )
    told = (tmp_path / "said").read_text().splitlines()
    assert done.returncode == 2, (done, told)
    assert [line for line in told if not line.startswith("run: ")] == told[-1:]
    assert told[-1].startswith("toybench: error: out: cannot write a checkpoint to ")
    assert ": No space left on device; the last good one is " in told[-1]
    assert curves(tmp_path / "kept") == curves(whole)


SAVES = """
import gc, sys
from pathlib import Path
from test_lm_progress import small
from lm.checkpoint import Checkpoints
from toybench.config import ConfigError
one, failed = small(), 0
for folder in map(Path, sys.argv[1:]):
    checkpoints = Checkpoints(folder / "run", one)
    try:
        for arrivals in range(1, 5):
            checkpoints.save(arrivals, one.begin(), [])
            checkpoints.wait()
    except ConfigError as error:
        failed += "No space left on device" in str(error)
    checkpoints.close()
    del checkpoints
    gc.collect()
print(failed)
"""


def test_whatever_size_a_disk_has_nothing_else_is_told_when_it_is_full(tmp_path):
    """Where in the writing it fills decides who of orbax, asyncio and tensorstore has errors that nobody waits for."""
    if not can_mount(tmp_path):
        pytest.skip("no disk of one's own to fill, without user namespaces")
    sizes = range(100_000, 340_000, 20_000)
    for size in sizes:
        (tmp_path / str(size)).mkdir()
    script = f'for size in {" ".join(map(str, sizes))}; do mount -t tmpfs -o size=$size tmpfs $size; done; exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    command += [sys.executable, "-W", "ignore", "-c", SAVES, *map(str, sizes)]
    paths = os.pathsep.join(sys.path)
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=240
    )
    assert (done.returncode, done.stderr) == (0, "") and int(done.stdout) >= len(sizes) / 2


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOENT, "there is no good one"), (errno.EIO, "cannot be read: Input/output error")]
)
def test_a_folder_that_is_gone_or_cannot_be_read_is_one_line(tmp_path, monkeypatch, number, said):
    checkpoints, one = Checkpoints(tmp_path / "run", small()), small()
    checkpoints.save(1, one.begin(), [])
    checkpoints.wait()

    def fails(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoints._manager, "save", fails)
    monkeypatch.setattr(checkpoints._manager, "reload", fails)  # going on while it looks
    with pytest.raises(ConfigError, match=f"cannot write a checkpoint to .*; .*{said}"):
        checkpoints.save(2, one.begin(), [])
    checkpoints.close()


@pytest.mark.parametrize("raised", [OSError(errno.ENOSPC, "No space left on device"), ValueError("RESOURCE: x\nmore")])
@pytest.mark.parametrize("where", ["save", "wait_until_finished"])
@pytest.mark.parametrize("failing", [0, 3])
def test_what_orbax_raises_sooner_or_later_is_one_line(tmp_path, monkeypatch, raised, where, failing):
    one = small()
    checkpoints = Checkpoints(tmp_path, one)
    method, calls = getattr(checkpoints._manager, where), []

    def fails(*args, **kwargs):
        calls.append(None)
        if len(calls) > failing:
            raise raised
        return method(*args, **kwargs)

    monkeypatch.setattr(checkpoints._manager, where, fails)
    with pytest.raises(ConfigError) as told:
        carry_out(one, checkpoints, every=0.0)
        checkpoints.wait()
    said, last = str(told.value), checkpoints.last()
    assert "\n" not in said and "cannot write a checkpoint" in said
    assert (f"the last good one is {last}" if last is not None else "there is no good one") in said
    assert ("No space left on device" if isinstance(raised, OSError) else "RESOURCE: x;") in said
    checkpoints.close()  # which was told already
    monkeypatch.undo()
    checkpoints._manager.wait_until_finished()  # which did not fail in truth
    again = Checkpoints(tmp_path, one)
    found = carry_out(one, again, resume=True)
    again.close()
    np.testing.assert_array_equal(found.curves.metrics["loss"], carry_out(one).curves.metrics["loss"])


def test_a_failure_nobody_was_told_of_is_told_at_the_end(tmp_path, monkeypatch):
    one = small()
    checkpoints = Checkpoints(tmp_path, one)
    with pytest.raises(Stopped):
        carry_out(one, checkpoints, stop=lambda: True)

    def fails():
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(checkpoints._manager, "close", fails)
    with pytest.raises(ConfigError, match="Disk quota exceeded; the last good one is 1"):
        checkpoints.close()


def test_two_do_not_train_in_one_folder(command, tmp_path):
    out = tmp_path / "out"
    first = subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 240
        while not list((out / "run").glob("checkpoints/*")):
            assert first.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        second = subprocess.run([*command, "--out", str(out), "--resume"], capture_output=True, text=True, timeout=240)
    finally:
        first.kill()
        first.communicate()
    assert second.returncode == 2 and second.stderr == (
        f"toybench: error: out: another process is writing to {str(out / 'run')!r}\n"
    )


# A damaged checkpoint


@pytest.mark.parametrize("reader", ["--resume", "--init"])
def test_damaged_arrays_are_one_line(command, tmp_path, reader):
    """Many reads are begun at once, and one of them fails first."""
    short = [*command, "--budget.rounds", "3", "--every", "3600"]
    subprocess.run([*short, "--out", str(tmp_path / "out")], check=True, capture_output=True, timeout=240)
    arrays = (tmp_path / "out/run/checkpoints").glob("*/state/ocdbt.process_0/d/*")
    for path in arrays:
        damaged = bytearray(path.read_bytes())
        if len(damaged) > 10_000:  # smaller ones tell where arrays are
            damaged[60::29] = bytes(len(damaged[60::29]))
            path.write_bytes(damaged)
    words = ["--resume"] if reader == "--resume" else ["--init", str(tmp_path / "out")]
    again = tmp_path / ("out" if reader == "--resume" else "again")
    done = subprocess.run([*short, *words, "--out", str(again)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    [told] = done.stderr.splitlines()
    assert told.startswith("toybench: error: ") and "checkpoint" in told and "Error reading" in told


LATE = """
import asyncio
import tensorstore
promise, future = tensorstore.Promise.new()
async def wait():
    return await future
async def give_up():
    try:
        await asyncio.wait_for(asyncio.shield(wait()), 1e-3)
    except asyncio.TimeoutError:
        pass
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
async def fail():
    raise ValueError("of others")
async def forget():
    asyncio.ensure_future(fail())
    await asyncio.sleep(1e-3)
loop.run_until_complete(give_up())
loop.run_until_complete(forget())
loop.close()
promise.set_result(0)
class Told:
    def __del__(self):
        raise RuntimeError("Event loop is closed")
Told()
"""


@pytest.mark.parametrize(("first", "times"), [("", 2), ("import lm.checkpoint", 1)])
def test_what_ends_when_nobody_waits_is_not_told_and_other_errors_are(first, times):
    """Without the import, tensorstore's is told too: there is something to leave out."""
    done = subprocess.run([sys.executable, "-c", first + LATE], capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr.count("RuntimeError: Event loop is closed\n") == times and "Told.__del__" in done.stderr
    assert "Task exception was never retrieved" in done.stderr and "ValueError: of others" in done.stderr


# A checkpoint cut short


def being_written(folder):
    """What tells the unfinished checkpoints there from others."""
    found = set()
    for path in folder.glob("*tmp*"):
        with suppress(FileNotFoundError):
            found.add((path.name, path.stat().st_ino, path.stat().st_ctime_ns))
    return found


def cut_short(process, folder, before, draw):
    """Kill a process while it writes a checkpoint, its first or a later one; whether it was at it still."""
    end = time.monotonic() + 240
    for _ in range(draw.randint(1, 4)):
        while not (begun := being_written(folder) - before):
            assert process.poll() is None and time.monotonic() < end, process.communicate()
            time.sleep(0.0005)
        before = before | begun
    time.sleep(draw.uniform(0, 0.03))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return bool(being_written(folder))


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_killed_in_writing_checkpoints_and_resumed_is_uninterrupted(command, tmp_path, kills):
    """Each process goes on from the last whole checkpoint, whatever the one before it left of the next."""
    draw, out, cut, last = random.Random(kills), tmp_path / "out", 0, -1
    folder = out / "run" / "checkpoints"
    for _ in range(kills):
        before = being_written(folder)
        process = subprocess.Popen([*command, "--out", str(out), "--resume"], stderr=subprocess.PIPE, text=True)
        cut += cut_short(process, folder, before, draw)
        whole = [int(p.name) for p in folder.iterdir() if p.name.isdecimal()]
        assert max(whole, default=-1) >= last
        last = max(whole, default=-1)
    assert cut
    for words in (["--out", str(out), "--resume"], ["--out", str(tmp_path / "whole")]):
        subprocess.run([*command, *words, "--every", "3600"], check=True, capture_output=True, timeout=280)
    assert curves(out) == curves(tmp_path / "whole")  # every number, bit for bit
    assert not list(folder.glob("*tmp*"))


def test_what_a_kill_leaves_behind_is_cleared_away(tmp_path):
    one = small()
    left = tmp_path / "7.orbax-checkpoint-tmp"
    left.mkdir()
    (left / "part").write_bytes(bytes(1000))
    checkpoints = Checkpoints(tmp_path, one)
    carry_out(one, checkpoints, resume=True)
    checkpoints.close()
    assert not left.exists()
