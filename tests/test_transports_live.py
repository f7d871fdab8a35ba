"""The server of real workers: what it answers is on the disk, and every visit is applied once."""

import errno
import random
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.wall import small
from toybench.config import ConfigError
from toybench.outer import METHODS, make_outer
from toybench.transports import ledger as ledgers
from toybench.transports.again import again
from toybench.transports.codec import CODECS, wire_shapes
from toybench.transports.house import evaluate, first_look, give_up_the_late, status
from toybench.transports.live import PATIENCE, Live
from toybench.transports.messages import Push, Rules
from toybench.transports.work import reads_pulled
from toybench.transports.worker import Hand


class Clock:
    """Seconds, set by hand."""

    def __init__(self):
        self.seconds = 1e9

    def __call__(self) -> float:
        self.seconds += 0.01
        return self.seconds


WORK = small()


def server(folder, work=WORK, clock=None, **rules) -> Live:
    return Live(work, folder, Rules(**rules), {"version": "1"}, clock or Clock())


class Crew:
    """Workers that are asked one by one; what they hold survives the server."""

    def __init__(self, live: Live, work=WORK, codec: str = "none"):
        self.live, self.work, self.codec = live, work, codec
        self.structure = jax.tree.structure(jax.eval_shape(work.init))
        self.hands = {w: Hand(work, codec) for w in range(work.run.cluster.workers)}
        self.tasks = {}
        for w in self.hands:
            self.take(live.hello(w))
        for w in self.hands:
            self.ask(w)

    def take(self, reply):
        if reply.given is not None:
            self.tasks[reply.worker] = reply
        return reply

    def ask(self, w):
        return self.take(self.live.next(w, 0.0)) if w not in self.tasks else None

    def made(self, w) -> Push:
        """The push of what the worker has been given; made once."""
        task = self.tasks.pop(w)
        start = jax.tree.unflatten(self.structure, [jnp.asarray(leaf) for leaf in task.params])
        arrays, loss = self.hands[w].visit(start, task.given.visit, task.given.reset)
        return Push(w, task.given.id, 1.0, float(loss), [np.asarray(a) for a in arrays])

    def step(self, w):
        push = self.made(w)
        return self.take(self.live.push(push))

    def finish(self, order=None):
        while not self.live.over:
            for w in order or sorted(self.tasks):
                if w in self.tasks and not self.live.over:
                    self.step(w)
            for w in self.hands:
                if not self.live.over:
                    self.ask(w)


def params_of(live):
    return jax.tree.leaves(live.server.params)


def same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


# A run


@pytest.mark.parametrize("codec", CODECS)
def test_a_run_and_its_replay_are_the_same(tmp_path, codec):
    live = server(tmp_path / "s", codec=codec)
    Crew(live, codec=codec).finish(order=(2, 0, 1, 0, 3))
    assert live.over and live.counts["applied"] == len(live.coordinator.arrivals)
    found = again(WORK, live.coordinator.timeline(), codec)
    for a, b in zip(jax.tree.leaves(found), params_of(live), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_is_replayed(tmp_path, method):
    work = small(**{"outer.method": method, "budget.rounds": 2})
    live = server(tmp_path / "s", work)
    Crew(live, work).finish(order=(3, 0, 0, 1, 2))
    for a, b in zip(jax.tree.leaves(again(work, live.coordinator.timeline())), params_of(live), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_which_methods_look_at_what_was_pulled(method):
    """Told by numbers that are none; here by arrivals whose pulls differ."""
    outer = make_outer(METHODS[method].settings(), 4, False)
    key = jax.random.split(jax.random.key(0), 4)
    params, g, one, other = (jax.random.normal(k, (6,)) for k in key)

    def after(pulled):
        state, at = outer.init(params), params
        for n in range(9):
            told = {"staleness": n % 3, "worker": n % 4, "num_steps": 5, "arrival": n, "dispatch": max(0, n - n % 3)}
            updates, state = outer.update(g, state, at, pulled_params=pulled, **jax.tree.map(jnp.int32, told))
            at = at + updates
        return at

    differs = not np.array_equal(after(one), after(other))
    assert reads_pulled(outer, params) == differs


def test_evaluations_are_those_of_the_budget(tmp_path):
    live = server(tmp_path / "s")
    first_look(live)
    Crew(live).finish()
    while evaluate(live):
        pass
    total, evaluations = live.coordinator.goal, WORK.run.budget.evaluations
    steps = [point.local_steps for point in live.points]
    assert len(steps) == evaluations + 1 and live.settled
    for n, made in enumerate(steps):
        assert made >= n * total / evaluations
    final = WORK.evaluate(live.server.params)
    assert live.points[-1].metrics == final


# Every visit once


def test_a_push_that_is_repeated_is_applied_once(tmp_path):
    crew = Crew(server(tmp_path / "s"))
    push = crew.made(0)
    assert crew.live.push(push).verdict == "applied"
    before = params_of(crew.live)
    assert [crew.live.push(push).verdict for _ in range(3)] == ["repeated"] * 3
    same(before, params_of(crew.live))
    assert crew.live.counts["repeated"] == 3 and len(crew.live.coordinator.arrivals) == 1


def test_a_worker_that_was_given_up_is_refused_and_begins_anew(tmp_path):
    clock = Clock()
    crew = Crew(server(tmp_path / "s", clock=clock, first=60.0))
    push, visit = crew.made(1), crew.live.coordinator.running[1].visit
    clock.seconds += 1000.0
    assert sorted(give_up_the_late(crew.live)) == [0, 1, 2, 3]
    reply = crew.live.push(push)
    assert reply.verdict == "refused" and "given up" in reply.reason and not crew.live.coordinator.arrivals
    again = crew.live.hello(1)
    assert again.given.reset and again.given.id != push.id
    assert again.given.visit.first_step == 0 and again.given.visit.shard in (visit.shard, 0, 1, 2, 3)


@pytest.mark.parametrize("wrong", ("shape", "dtype", "number", "infinite", "loss"))
def test_a_push_that_cannot_be_applied_is_refused_and_the_run_goes_on(tmp_path, wrong):
    crew = Crew(server(tmp_path / "s"))
    push, before = crew.made(0), params_of(crew.live)
    arrays, loss = [a.copy() for a in push.arrays], push.loss
    match wrong:
        case "shape":
            arrays[0] = arrays[0][..., :-1]
        case "dtype":
            arrays[0] = arrays[0].astype(np.float64)
        case "number":
            arrays.pop()
        case "infinite":
            arrays[0].flat[0] = np.inf
        case "loss":
            loss = float("nan")
    reply = crew.live.push(push._replace(arrays=arrays, loss=loss))
    assert reply.verdict == "refused" and reply.reason
    same(before, params_of(crew.live))
    crew.take(crew.live.hello(0))
    crew.finish()
    assert crew.live.over and crew.live.counts["refused"] == 1 and crew.live.coordinator.lost == 1


def test_a_run_that_refuses_everything_is_given_up(tmp_path):
    crew = Crew(server(tmp_path / "s"))
    for _ in range(PATIENCE * 4):
        given = crew.live.coordinator.running[0]
        crew.live.push(Push(0, given.id, 1.0, float("nan"), crew.hands[0].work.init() and []))
        reply = crew.live.hello(0)
    assert reply.done and "refused" in crew.live.failed


def test_workers_of_other_versions_are_refused_by_name(tmp_path):
    reply = server(tmp_path / "s").hello(0, {"version": "2"})
    assert reply.done and reply.verdict == "refused" and "version is 2 on the worker, 1 on the server" in reply.reason


# Nothing is forgotten


def shape_of_everything(live):
    return live.coordinator.timeline(), params_of(live), jax.tree.leaves(live.server.outer_state)


@pytest.mark.parametrize("method", ("delayed_nesterov", "delay_compensation", "heloco"))
@pytest.mark.parametrize("every", (1, 5))
def test_a_server_killed_after_any_event_goes_on_as_if_nothing_had_been(tmp_path, method, every):
    """What is on the disk when an answer has been given is all that there is: the folder is copied, and opened anew."""
    work, dice = small(**{"outer.method": method, "cluster.dynamic_steps": True}), random.Random(0)
    order = [dice.randrange(4) for _ in range(400)]
    straight = Crew(server(tmp_path / "a", work), work)
    broken = Crew(server(tmp_path / "b", work), work)
    for n, w in enumerate(order):
        if straight.live.over:
            break
        straight.step(w)
        broken.step(w)
        if n % 7 == 3:
            broken.live.checkpoint()
        if n % every == 0:
            shutil.copytree(tmp_path / "b", tmp_path / f"b{n}")
            broken.live.ledger.close()
            broken.live = server(tmp_path / f"b{n}", work)
            shutil.rmtree(tmp_path / "b", ignore_errors=True)
            (tmp_path / f"b{n}").rename(tmp_path / "b")
            broken.live.ledger.folder = tmp_path / "b"
    assert straight.live.over and broken.live.over
    (one, *numbers), (other, *others) = shape_of_everything(straight.live), shape_of_everything(broken.live)
    for name in ("worker", "shard", "num_steps", "first_step", "pulled_at", "step", "reset"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for a, b in zip(numbers, others):
        same(a, b)


def test_a_worker_that_never_got_its_answer_asks_again(tmp_path):
    """The server dies between writing a push down and answering it."""
    crew = Crew(server(tmp_path / "s"))
    push = crew.made(2)
    crew.live.push(push)  # whose answer is lost
    crew.live.ledger.close()
    crew.live = server(tmp_path / "s")
    reply = crew.live.push(push)
    assert reply.verdict == "repeated" and reply.given is not None and reply.given.visit.worker == 2
    assert len(crew.live.coordinator.arrivals) == 1


def test_a_worker_whose_parameters_are_gone_begins_anew(tmp_path):
    crew = Crew(server(tmp_path / "s"))
    crew.step(0)  # its answer is fetched, and then lost with the worker's process
    given = crew.live.coordinator.running[0]
    reply = crew.live.next(0, 0.0)
    assert reply.given.reset and reply.given.id != given.id and reply.given.visit[1:4] == given.visit[1:4]


@pytest.mark.parametrize("name, other", (("codec", "int8"), ("pace", 0.5)))
def test_a_folder_of_another_run_is_refused(tmp_path, name, other):
    server(tmp_path / "s").close()
    with pytest.raises(ConfigError, match=f"{name} "):
        server(tmp_path / "s", **{name: other})


def test_a_folder_of_another_version_is_refused(tmp_path):
    server(tmp_path / "s").close()
    with pytest.raises(ConfigError, match="version 1, this is 2"):
        Live(WORK, tmp_path / "s", Rules(), {"version": "2"})


FULL = """
import resource, sys
from pathlib import Path
from tests.test_transports_live import Crew, server
live = server(Path(sys.argv[1]))
crew = Crew(live)
for w in (0, 1, 2): crew.step(w)
size = (Path(sys.argv[1]) / "journal-0").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
reply = crew.step(3)
assert reply.verdict == "" and reply.done, reply
print(live.failed)
"""


def test_a_push_that_cannot_be_written_down_is_not_acknowledged(tmp_path):
    """A real limit of the system's, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "s")], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "cannot write to" in done.stdout and "--resume goes on" in done.stdout
    live = server(tmp_path / "s")
    assert len(live.coordinator.arrivals) == 3 and 3 in live.coordinator.running


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    crew = Crew(server(tmp_path / "s"))
    for w in (0, 1, 2):
        crew.step(w)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ledgers, "SYNC", full)
        with pytest.raises(ConfigError, match="No space left"):
            crew.live.checkpoint()
    assert not list((tmp_path / "s").glob("new-*"))
    crew.step(3)
    crew.live.ledger.close()
    assert len(server(tmp_path / "s").coordinator.arrivals) == 4


def test_what_there_is_to_see(tmp_path):
    crew = Crew(server(tmp_path / "s"))
    crew.step(0)
    seen = status(crew.live)
    assert [worker["state"] for worker in seen["workers"]] == ["computing"] * 4
    assert seen["workers"][0]["staleness"] == 0 and seen["workers"][1]["staleness"] is None
    assert seen["arrivals"] == 1 and seen["local_steps"] == crew.live.coordinator.arrivals[0].visit.num_steps
    own = sum(s.size * s.dtype.itemsize for s in wire_shapes(CODECS["none"], WORK.init()))
    assert seen["counts"]["bytes in"] == own and not seen["done"]


def test_after_a_push_that_could_not_be_written_nothing_more_is_taken_or_kept(tmp_path, monkeypatch):
    crew = Crew(server(tmp_path / "s"))
    crew.step(0)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ledgers, "SYNC", full)
        assert crew.step(1).verdict == ""
    assert crew.step(2).verdict == "" and not crew.live.checkpoint()  # though there is room again
    crew.live.close()
    assert [a.visit.worker for a in server(tmp_path / "s").coordinator.arrivals] == [0]


def test_a_server_that_is_closed_takes_nothing(tmp_path):
    crew = Crew(server(tmp_path / "s"))
    push = crew.made(0)
    crew.live.close()
    assert crew.live.push(push).verdict == "" and not server(tmp_path / "s").coordinator.arrivals


@pytest.mark.parametrize("seconds", (float("nan"), float("inf"), 0.0, -1.0))
def test_a_push_that_took_no_time_is_refused(tmp_path, seconds):
    crew = Crew(server(tmp_path / "s"))
    assert crew.live.push(crew.made(0)._replace(seconds=seconds)).verdict == "refused"
    crew.take(crew.live.hello(0))
    crew.finish()
    assert crew.live.checkpoint()


def test_the_first_evaluation_is_of_the_untrained_model_though_the_server_died(tmp_path):
    crew = Crew(server(tmp_path / "s"))
    for w in (0, 1, 2, 3, 0, 1):
        crew.step(w)
    crew.live.ledger.close()
    live = server(tmp_path / "s")
    first_look(live)
    assert live.points[0].metrics == WORK.evaluate(WORK.init())


def test_nobody_is_late_for_the_time_that_there_was_no_server(tmp_path):
    clock = Clock()
    Crew(server(tmp_path / "s", clock=clock, first=60.0)).live.close()
    clock.seconds += 1000.0
    assert give_up_the_late(server(tmp_path / "s", clock=clock, first=60.0)) == []
