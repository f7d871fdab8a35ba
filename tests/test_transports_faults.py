"""What a real server does when things go wrong beside it: a checkpoint while pushes come, two at one folder, clocks."""

import errno
import threading
import time
from dataclasses import replace

import jax
import numpy as np
import pytest

from tests.test_transports_live import WORK, Clock, Crew, params_of, same, server
from tests.wall import small
from toybench.config import ConfigError, ConfigWarning
from toybench.transports import ledger as ledgers
from toybench.transports.about import about_of
from toybench.transports.again import again
from toybench.transports.coordinator import Coordinator
from toybench.transports.drive import tell_of_other_sources
from toybench.transports.house import give_up_the_late, limit_of
from toybench.transports.ledger import Ledger
from toybench.transports.live import Live
from toybench.transports.messages import Rules
from toybench.transports.ray.seat import Seat, Terms
from toybench.transports.threads import Direct
from toybench.transports.work import toy_recipe
from toybench.transports.worker import serve


def of_the_disk(folder) -> Live:
    """A server as it would be begun again now."""
    return server(folder)


# Checkpoints and pushes at once


def test_a_push_that_comes_while_a_checkpoint_is_written_is_not_half_in_it(tmp_path, monkeypatch):
    crew = Crew(server(tmp_path / "s"))
    crew.step(0)
    keep = crew.live.ledger.keep

    def slowly(number, told, arrays):
        crew.step(1)
        crew.step(2)
        keep(number, told, arrays)

    monkeypatch.setattr(crew.live.ledger, "keep", slowly)
    assert crew.live.checkpoint()
    found, told = Ledger(tmp_path / "s").last().told["coordinator"], crew.live.coordinator
    assert len(found["stepped"]) == len(found["arrivals"]) == 1 and len(told.arrivals) == 3
    crew.live.ledger.close()
    live = of_the_disk(tmp_path / "s")
    assert [a.id for a in live.coordinator.arrivals] == [a.id for a in told.arrivals]
    same(params_of(live), params_of(crew.live))


def test_checkpoints_beside_pushes_are_whole_and_can_be_gone_on_from(tmp_path):
    """Many of both at once, and every checkpoint that was there is looked at."""
    crew, poisoned, over = Crew(server(tmp_path / "s")), [], threading.Event()
    keep = crew.live.ledger.keep

    def watched(number, told, arrays):
        keep(number, told, arrays)
        state = Ledger(tmp_path / "s").last().told["coordinator"]
        poisoned.append(len(state["stepped"]) != len(state["arrivals"]))

    crew.live.ledger.keep = watched

    def checkpoints():
        while not over.is_set():
            crew.live.checkpoint()

    thread = threading.Thread(target=checkpoints)
    thread.start()
    crew.finish()
    over.set()
    thread.join()
    crew.live.ledger.close()
    assert poisoned and not any(poisoned)
    live = of_the_disk(tmp_path / "s")
    assert live.over
    same(params_of(live), params_of(crew.live))
    for a, b in zip(jax.tree.leaves(again(WORK, live.coordinator.timeline())), params_of(live), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_checkpoint_before_the_last_can_be_gone_on_from(tmp_path):
    crew = Crew(server(tmp_path / "s"))
    for w in (0, 1, 2, 3, 0):
        crew.step(w)
        crew.live.checkpoint()
    crew.step(1)
    crew.live.ledger.close()
    numbers = sorted(int(path.name.split("-")[1]) for path in (tmp_path / "s").glob("checkpoint-*"))
    assert len(numbers) == 2
    (tmp_path / "s" / f"checkpoint-{numbers[1]}").write_bytes(b"nothing of use")
    same(params_of(of_the_disk(tmp_path / "s")), params_of(crew.live))


# What fails in the middle of a push


def full(handle):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_push_that_was_not_written_is_not_said_to_be_repeated(tmp_path, monkeypatch):
    crew = Crew(server(tmp_path / "s"))
    push = crew.made(0)
    with monkeypatch.context() as patch:
        patch.setattr(ledgers, "SYNC", full)
        assert crew.live.push(push).verdict == ""
    assert [crew.live.push(push)[1::4] for _ in range(2)] == [("", True)] * 2
    crew.live.close()
    assert not of_the_disk(tmp_path / "s").coordinator.arrivals


@pytest.mark.parametrize("where", ("arrive", "pull"))
def test_a_device_that_fails_fails_the_run_and_nothing_else(tmp_path, monkeypatch, where):
    crew = Crew(server(tmp_path / "s"))
    crew.step(0)
    push = crew.made(1)

    def broken(*args):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(crew.live.programs, where, broken)
        reply = crew.live.push(push)
    assert reply.done and reply.verdict == "" and "out of memory" in crew.live.failed
    assert crew.live.push(push).verdict == "" and crew.live.hello(3).done and not crew.live.checkpoint()
    crew.live.close()
    live = of_the_disk(tmp_path / "s")
    assert [a.visit.worker for a in live.coordinator.arrivals] == [0]
    assert live.push(push).verdict == "applied"


def test_a_journal_that_cannot_be_opened_again_is_told_in_a_line(tmp_path, monkeypatch):
    crew = Crew(server(tmp_path / "s"))
    crew.step(0)
    with monkeypatch.context() as patch:
        patch.setattr(ledgers, "SYNC", full)
        patch.setattr(crew.live.ledger, "_opened", lambda number: full(number))
        assert crew.step(1).done
    assert "No space left" in crew.live.failed
    crew.live.close()
    assert len(of_the_disk(tmp_path / "s").coordinator.arrivals) == 1


# Two at one folder


def test_a_folder_has_one_server(tmp_path, monkeypatch):
    monkeypatch.setattr(ledgers, "WAIT", 0.05)
    live = server(tmp_path / "s")
    with pytest.raises(ConfigError, match="another process is at work"):
        server(tmp_path / "s")
    live.close()
    server(tmp_path / "s").close()


def test_a_server_that_could_not_open_its_folder_lets_go_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(ledgers, "WAIT", 0.05)
    server(tmp_path / "s").close()
    with pytest.raises(ConfigError, match="codec"):
        server(tmp_path / "s", codec="int8")
    server(tmp_path / "s").close()


def test_an_actor_writes_its_last_checkpoint_before_it_lets_go_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(ledgers, "WAIT", 0.05)
    recipe = toy_recipe(WORK.run, 0)
    seat = Seat(Terms(recipe, str(tmp_path), Rules(), about_of(recipe), "server", 4))
    checkpoint, tried = seat.live.checkpoint, []

    def while_it_is_written():
        with pytest.raises(ConfigError, match="another process"):
            Ledger(tmp_path).hold()
        tried.append(True)
        return checkpoint()

    monkeypatch.setattr(seat.live, "checkpoint", while_it_is_written)
    assert seat.close()["failed"] == "" and tried
    Ledger(tmp_path).hold()


def test_an_actor_that_cannot_write_its_last_checkpoint_says_so(tmp_path, monkeypatch):
    recipe = toy_recipe(WORK.run, 0)
    seat = Seat(Terms(recipe, str(tmp_path), Rules(), about_of(recipe), "server", 4))
    monkeypatch.setattr(ledgers, "SYNC", full)
    assert "No space left" in seat.close()["failed"]


def test_a_server_that_cannot_write_its_last_checkpoint_lets_go_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(ledgers, "WAIT", 0.05)
    crew = Crew(server(tmp_path / "s"))
    crew.step(0)
    with monkeypatch.context() as patch:
        patch.setattr(ledgers, "SYNC", full)
        with pytest.raises(ConfigError, match="No space left"):
            crew.live.close()
    assert not crew.live.checkpoint()  # though there is room again: another may be at work there
    assert len(of_the_disk(tmp_path / "s").coordinator.arrivals) == 1


def test_a_folder_that_cannot_be_read_is_told_in_a_line(tmp_path):
    (tmp_path / "s" / "checkpoint-0").mkdir(parents=True)
    with pytest.raises(ConfigError, match="resume: cannot read"):
        server(tmp_path / "s")
    with pytest.raises(ConfigError, match="cannot read"):
        Ledger(tmp_path / "s").last()


def test_a_run_goes_on_under_mended_sources_and_says_so(tmp_path):
    about = {"toybench": "1", "sources": "old"}
    Live(WORK, tmp_path, Rules(), about).close()
    with pytest.warns(ConfigWarning, match="made so far by sources old"):
        tell_of_other_sources(tmp_path)
    Live(WORK, tmp_path, Rules(), about | {"sources": "new"}).close()
    with pytest.raises(ConfigError, match="toybench 1, this is 2"):
        Live(WORK, tmp_path, Rules(), about | {"toybench": "2"})


# Deadlines


def test_a_visit_that_takes_longer_than_it_may_has_longer_the_next_time(tmp_path):
    clock, slow = Clock(), 100.0
    crew, given_up = Crew(server(tmp_path / "s", clock=clock, first=10.0)), 0
    while not crew.live.coordinator.arrivals:
        push = crew.made(0)
        clock.seconds += slow
        late = give_up_the_late(crew.live)
        given_up += 0 in late
        crew.live.push(push)
        for w in late:
            crew.take(crew.live.hello(w))
        assert given_up < 6
    assert given_up == 4  # of 10, 20, 40 and 80 seconds
    assert crew.live.missed[0] == 0  # and no longer when it had arrived


def test_a_known_worker_that_hangs_again_is_not_waited_for_ever_longer(tmp_path):
    clock = Clock()
    crew = Crew(server(tmp_path / "s", clock=clock, first=10.0, least=1.0))
    crew.step(0)
    for _ in range(3):
        clock.seconds += 1000.0
        assert 0 in give_up_the_late(crew.live)
        crew.take(crew.live.hello(0))
        assert limit_of(crew.live, 0) <= max(10.0, 4 * 2.0 ** crew.live.missed[0])
    for _ in range(3):
        crew.step(0)
    assert crew.live.missed[0] == 0 and limit_of(crew.live, 0) < 10.0


def test_no_worker_is_late_for_a_compilation_of_the_servers(tmp_path, caplog):
    """All is compiled when it opens, whether something was there or not."""
    for _ in range(2):
        with jax.log_compiles():
            live = server(tmp_path / "s", small(**{"outer.method": "heloco"}), codec="int8")
        assert {"jit(finite)", "jit(arrive)"} <= compiled(caplog)
        crew = Crew(live, live.work, "int8")
        pushes = [crew.made(0), crew.made(1)]
        caplog.clear()
        with jax.log_compiles():
            assert [live.push(push).verdict for push in pushes] == ["applied"] * 2
        assert not {"jit(finite)", "jit(arrive)"} & compiled(caplog)
        live.close()


def compiled(caplog) -> set[str]:
    """Names of the programs that were compiled meanwhile."""
    return {record.getMessage().split()[1] for record in caplog.records if record.getMessage().startswith("Compiling ")}


def test_a_worker_that_is_slowed_down_has_the_time_that_it_is_told_to_take(tmp_path):
    crew = Crew(server(tmp_path / "s", pace=1000.0, first=10.0))
    for w, given in crew.live.coordinator.running.items():
        assert limit_of(crew.live, w) == 4 * 1000 * given.visit.num_steps * WORK.run.cluster.sec_per_step[w]


def test_nobody_is_late_whose_push_is_here(tmp_path):
    clock = Clock()
    crew = Crew(server(tmp_path / "s", clock=clock, first=60.0))
    push = crew.made(1)
    with crew.live.changed:  # the server is at something else for long
        thread = threading.Thread(target=crew.live.push, args=(push,))
        thread.start()
        until = time.monotonic() + 10
        while not crew.live.knocking[1] and time.monotonic() < until:
            time.sleep(0.01)
        clock.seconds += 1000.0
        assert sorted(give_up_the_late(crew.live)) == [0, 2, 3]
    thread.join()
    assert [a.visit.worker for a in crew.live.coordinator.arrivals] == [1] and crew.live.knocking[1] == 0


def test_nobody_is_late_of_a_run_that_has_failed(tmp_path):
    clock = Clock()
    crew = Crew(server(tmp_path / "s", clock=clock, first=60.0))
    crew.live.fail("full")
    clock.seconds += 1000.0
    assert [give_up_the_late(crew.live) for _ in range(3)] == [[]] * 3 and not crew.live.counts["late"]


def test_the_systems_clock_may_be_set_while_a_run_goes_on(tmp_path, monkeypatch):
    live = Live(WORK, tmp_path, Rules())
    before, seconds = live.now, time.time
    monkeypatch.setattr(time, "time", lambda: seconds() + 3600)
    assert 0 <= live.now - before < 60
    live.close()
    after = Live(WORK, tmp_path, Rules())  # it is what tells how long there was no server
    assert 3600 <= after.now < 3700
    after.close()
    monkeypatch.setattr(time, "time", lambda: seconds() - 3600)
    assert Live(WORK, tmp_path, Rules()).now >= 3600  # and time does not go back


def test_who_comes_late_is_taken_to_be_as_fast_as_those_who_are_there():
    cluster = replace(WORK.run.cluster, sec_per_step=(1.0,) * 3, dynamic_steps=True, grace=0.0)
    one = Coordinator(cluster, 10**6, 0)
    for w in range(3):
        one.join(w, 0.0)
    for w, seconds in ((0, 0.1), (1, 2.0), (2, 4.0)):  # of a step
        one.arrive(w, 1.0, seconds * one.running[w].visit.num_steps)
    one.leave(0, 2.0)  # the fast one has gone
    [given] = one.join(3, 3.0).given
    one.arrive(1, 4.0, 2.0 * one.running[1].visit.num_steps)
    assert given.visit.num_steps == one.running[1].visit.num_steps == cluster.local_steps


# Two processes with one number


def test_a_process_that_was_held_for_dead_does_not_come_between(tmp_path):
    crew = Crew(server(tmp_path / "s"))
    push = crew.made(0)._replace(who="old")
    crew.live.hello(0, who="old")
    crew.take(crew.live.hello(0, who="new"))
    for reply in (crew.live.push(push), crew.live.next(0, 0.0, "old"), crew.live.hello(0, who="old")):
        assert reply.done and reply.verdict == "refused" and "another process" in reply.reason
    assert crew.live.push(crew.made(0)._replace(who="new")).verdict == "applied"
    assert crew.live.coordinator.lost == 2


class Heard(Direct):
    """What a worker says of itself."""

    def __init__(self, live):
        super().__init__(live)
        self.who = []

    def hello(self, worker, about, who):
        self.who.append(who)
        return super().hello(worker, about, who)

    def push(self, push):
        self.who.append(push.who)
        return super().push(push)

    def next(self, worker, who):
        self.who.append(who)
        return super().next(worker, who)


def test_a_worker_says_who_it_is_whatever_it_says(tmp_path):
    work = small(**{"cluster.sec_per_step": [1.0], "budget.rounds": 3})
    live = server(tmp_path / "s", work)
    heard = [Heard(live), Heard(live)]
    assert serve(work, heard[0], live.rules, worker=0) == ""
    assert len({*heard[0].who}) == 1 and len(heard[0].who) > 3 and live.holders == {0: heard[0].who[0]} and live.over
    serve(work, heard[1], live.rules, worker=0)
    assert heard[0].who[0] in live.retired and heard[1].who[0] not in ("", *heard[0].who)
