"""What a server must not forget, and what it must notice."""

import pickle

import numpy as np
import pytest

from toybench.config import ConfigError
from toybench.loading import load_run, overlay
from toybench.transports import house
from toybench.transports.frames import HEAD, MARK, pack, read_frames
from toybench.transports.house import evaluate, first_look, give_up_the_late, kept
from toybench.transports.live import Live
from toybench.transports.messages import Push, Rules
from toybench.transports.work import toy_recipe
from toybench.transports.worker import Hand

RUN = load_run(
    {
        "task": {"points": 512, "held_out": 64},
        "cluster": {"sec_per_step": [1.0, 2.0], "local_steps": 2},
        "outer": {"method": "adam"},
        "budget": {"rounds": 3, "evaluations": 3},
    }
)
RULES = Rules(first=5.0, least=5.0)


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def work():
    return toy_recipe(RUN, 0).make()


@pytest.fixture
def clock():
    return Clock()


def pushed(live, hand, reply):
    """The push of what a reply has given."""
    import jax

    structure = jax.tree.structure(jax.eval_shape(hand.work.init))
    start = jax.tree.unflatten(structure, [jax.numpy.asarray(leaf) for leaf in reply.params])
    arrays, loss = hand.visit(start, reply.given.visit, reply.given.reset)
    return Push(reply.worker, reply.given.id, 1.0, float(loss), [np.asarray(array) for array in arrays])


def begun(work, folder, clock):
    """A server, and the first replies of its two workers."""
    live = Live(work, folder, RULES, clock=clock)
    first_look(live)
    live.hello(0)
    return live, [live.next(0) if worker == 0 else live.hello(1) for worker in (1, 0)]


def test_a_number_stays_a_number_in_a_frame(tmp_path):
    path = tmp_path / "frame"
    path.write_bytes(b"".join(bytes(piece) for piece in pack({}, [np.float32(3), np.zeros((0, 2)), np.arange(3)])))
    with open(path, "rb") as file:
        [(_, frame)] = read_frames(file)
    assert [array.shape for array in frame.arrays] == [(), (0, 2), (3,)]


def test_a_damaged_length_ends_the_reading(tmp_path):
    path = tmp_path / "frame"
    path.write_bytes(HEAD.pack(MARK, 2, 2**60, 0) + b"{}")
    with open(path, "rb") as file:
        assert [*read_frames(file)] == []


def test_a_restored_server_has_the_shapes_it_had(work, tmp_path, clock):
    import jax

    live, _ = begun(work, tmp_path, clock)
    live.close()
    again = Live(work, tmp_path, RULES, clock=clock)
    assert jax.tree.map(np.shape, again.server) == jax.tree.map(np.shape, live.server)


def test_a_worker_that_was_given_up_while_it_waited_is_told_to_come_again(work, tmp_path, clock):
    """Stopped with an answer on its way: it asks `next`, and is in no more."""
    live, (second, first) = begun(work, tmp_path, clock)
    assert {first.worker, second.worker} == {0, 1}
    clock.now += 6
    assert sorted(give_up_the_late(live)) == [0, 1]
    reply = live.next(0, wait=0.0)
    assert (reply.verdict, reply.worker) == ("refused", 0)
    assert live.hello(0).given is not None


def test_a_checkpoint_that_was_cut_off_is_cleared_away(work, tmp_path, clock):
    live, _ = begun(work, tmp_path, clock)
    live.ledger.close()
    (tmp_path / "new-1").write_bytes(b"half")
    Live(work, tmp_path, RULES, clock=clock).ledger.close()
    assert not (tmp_path / "new-1").exists()


def run_to_the_end(live, work, first, hands=None, visits=10**6):
    """Or for so many visits; what the workers then hold."""
    hands, replies = hands or [Hand(work, "none"), Hand(work, "none")], {reply.worker: reply for reply in first}
    while not live.over and visits:
        worker, visits = min(replies), visits - 1
        reply = replies.pop(worker)
        reply = live.push(pushed(live, hands[worker], reply))
        replies = {**replies, worker: reply if reply.given else live.next(worker)}
    return [*replies.values()]


def test_evaluations_that_were_due_survive_a_checkpoint_and_a_death(work, tmp_path, clock):
    live, first = begun(work, tmp_path, clock)
    run_to_the_end(live, work, first)
    assert live.due and live.checkpoint()
    live.ledger.close()
    again = Live(work, tmp_path, RULES, clock=clock)
    assert not again.settled
    while evaluate(again):
        pass
    assert again.settled and again.points[-1].local_steps == again.coordinator.steps_done
    assert again.counts["applied"] == len(again.coordinator.arrivals)


def test_applied_pushes_are_counted_through_a_death(work, tmp_path, clock):
    live, first = begun(work, tmp_path, clock)
    run_to_the_end(live, work, first)
    live.ledger.close()  # no checkpoint: it is all in the journal
    again = Live(work, tmp_path, RULES, clock=clock)
    assert again.counts["applied"] == len(again.coordinator.arrivals) > 0
    assert sum(again.visits.values()) == again.counts["applied"]


def test_a_death_between_evaluations_makes_none_twice_and_forgets_no_staleness(work, tmp_path, clock):
    whole, first = begun(work, tmp_path / "whole", clock)
    run_to_the_end(whole, work, first)
    live, first = begun(work, tmp_path / "cut", clock)
    hands = [Hand(work, "none"), Hand(work, "none")]
    held = run_to_the_end(live, work, first, hands, visits=2)
    while evaluate(live):
        pass
    assert live.checkpoint()
    live.ledger.close()
    again = Live(work, tmp_path / "cut", RULES, clock=clock)
    assert again.stalest == live.stalest != {}
    run_to_the_end(again, work, held, hands)
    points = [[point.arrivals for point in (*one.points, *(due for due, _ in one.due))] for one in (whole, again)]
    assert points[0] == points[1]
    assert again.stalest == whole.stalest


def test_a_group_is_closed_when_its_time_is_over_though_nobody_calls(tmp_path, clock):
    work = toy_recipe(overlay(RUN, {"cluster.grace": 3.0}), 0).make()
    live, (_, reply) = begun(work, tmp_path, clock)
    live.push(pushed(live, Hand(work, "none"), reply))
    with kept(live):
        assert live.next(0, 0.2).given is None  # the other computes, and there is time left
        clock.now += 3.5
        assert live.next(0, 10).given is not None


def test_a_house_that_cannot_be_kept_fails_the_run(work, tmp_path, clock, monkeypatch):
    live, _ = begun(work, tmp_path, clock)

    def broken(live):
        raise ZeroDivisionError("nobody expects this")

    monkeypatch.setattr(house, "give_up_the_late", broken)
    with kept(live), live.changed:
        assert live.changed.wait_for(lambda: live.failed, 10)
    assert "ZeroDivisionError" in live.failed


def test_an_error_of_a_setting_travels_between_processes():
    found = pickle.loads(pickle.dumps(ConfigError("out", "full")))
    assert (found.name, found.problem, str(found)) == ("out", "full", "out: full")
