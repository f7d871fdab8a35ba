"""The server of real workers: takes what they push, answers what is to be done next, forgets nothing it answered.

Transports call `hello`, `push` and `next` for workers, from any thread, and `keep_house` beside them. Every call may
be repeated: a worker that got no answer asks again.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toybench.config import ConfigError
from toybench.engine import Rows, arrival_extras
from toybench.outer.base import pull_current
from toybench.scheduler import Visit
from toybench.server import Server, apply_arrival, open_server
from toybench.task import Params
from toybench.transports.codec import CODECS, decode, fits
from toybench.transports.coordinator import Coordinator, Given, Outcome
from toybench.transports.keeping import Point, freeze, thaw
from toybench.transports.ledger import Ledger
from toybench.transports.work import Work, reads_pulled

PATIENCE = 20  # refusals on end, times the workers, after which the run is given up


class Push(NamedTuple):
    """A finished visit, on its way to the server."""

    worker: int
    id: int
    seconds: float  # that the visit took the worker
    loss: float  # mean over its steps
    arrays: list[Any]  # the pseudo-gradient, encoded


class Reply(NamedTuple):
    """What the server answers. Neither done nor given anything, a worker asks `next`."""

    worker: int
    verdict: str = ""  # of a push: 'applied', 'repeated' (it had been before) or 'refused'
    reason: str = ""  # why refused
    given: Given | None = None
    params: list[np.ndarray] | None = None  # leaves of what the worker pulls
    done: bool = False


@dataclass(frozen=True)
class Rules:
    """How a server deals with its workers.

    Args:
        codec: of `toybench.transports.codec.CODECS`.
        pace: seconds that a second of the cluster's declared speeds lasts, for workers that are slowed down to them;
            0: they are as fast as they are.
        first: seconds after which a worker that has shown no speed yet is given up: it compiles.
        factor: times its own expected time after which a worker is given up.
        least: seconds before which none is.
        every: seconds between checkpoints.
    """

    codec: str = "none"
    pace: float = 0.0
    first: float = 300.0
    factor: float = 4.0
    least: float = 5.0
    every: float = 30.0


class Live:
    """A server.

    Args:
        work: of the run.
        folder: for what it must not forget. If something of the same run is there, it goes on with that.
        rules: see `Rules`.
        about: what workers must agree in: versions, sources, the run.
        clock: seconds since the epoch.

    Raises:
        ConfigError: the folder cannot be written, or holds another run.
    """

    def __init__(
        self,
        work: Work,
        folder: Path,
        rules: Rules,
        about: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ):
        self.work, self.rules, self.about = work, rules, dict(about or {})
        self.ledger, self.changed = Ledger(folder), threading.Condition()
        run = work.run
        goal = run.budget.total_steps(run.cluster)
        self.coordinator = Coordinator(run.cluster, goal, work.seed, rules.pace > 0, rules.first)
        params = work.init()
        self.server = own(open_server(work.outer, params))
        self.structure, self.reads = jax.tree.structure(params), reads_pulled(work.outer, params)
        self.versions, self.steps = [0], [0]  # outer and local steps after so many arrivals
        self.held: dict[int, tuple[list[Any], Params]] = {}  # arrival -> what was pushed, and start, until it is taken
        self.offers: dict[int, tuple[Given, Params]] = {}  # given, and not yet fetched
        self.starts: dict[int, Params] = {}  # worker -> what it pulled, for methods that look at it
        self.losses: dict[int, float] = {}  # worker -> of its last visit
        self.stalest: dict[int, int] = {}  # worker -> staleness of its last push
        self.counts: Counter[str] = Counter()  # pushes by verdict, and why refused; bytes in and out
        self.visits: Counter[int] = Counter()  # by worker, that arrived
        self.points: list[Point] = []
        self.due: deque[tuple[Point, Params]] = deque()  # evaluations to be made
        self.looked_at = 0  # local steps at the last of these
        self.applied: set[int] = set()  # visits that arrived
        self.failed, self.closed = "", False
        self._clock, self._refusals, self.began = clock, 0, clock()
        self._compile()
        self._open()
        self.opened_at = self.now

    def _open(self) -> None:
        """Go on with what the folder holds, or begin."""
        frames = self.ledger.read()
        first = next(frames, None)
        if first is None:
            self.checkpoint()
            return
        thaw(self, first)
        for frame in frames:
            self._follow(frame.told, frame.arrays)
        self.ledger.open()

    def checkpoint(self) -> bool:
        """Write down everything, if no group is open just now.

        Raises:
            ConfigError: it cannot be written; what was there still is.
        """
        with self.changed:
            if self.held or self.failed:  # what could not be written down is in the memory only
                return False
            told, arrays = freeze(self)
            number = self.ledger.roll()
        self.ledger.keep(number, told, arrays)  # nobody waits for it
        return True

    # Its two programs

    def _compile(self) -> None:
        codec, outer = CODECS[self.rules.codec], self.work.outer
        like = jax.eval_shape(lambda: self.server.params)

        @jax.jit
        def finite(arrays):
            return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(decode(codec, arrays, like))]).all()

        # The parameters are others' too: workers that are to pull them, evaluations. All else is written over.
        @partial(jax.jit, donate_argnums=1)
        def arrive(params, rest, arrays, row, start):
            g, server = decode(codec, arrays, like), Server(params, *rest)
            params, *rest = apply_arrival(outer, server, g, step=row.step, **arrival_extras(row, start))
            return params, tuple(rest)

        self._finite, self._arrive = finite, arrive
        self._pull = pull_current if outer.pull is pull_current else jax.jit(outer.pull)
        self._fits = partial(fits, codec, like=like)

    # What workers call

    def hello(self, worker: int, about: Mapping[str, str] | None = None) -> Reply:
        """A worker comes, or comes back, with nothing in its hands."""
        about = self.about if about is None else about
        for name, own in self.about.items():
            if (there := about.get(name)) != own:
                self._refuse("other versions")
                return Reply(-1, "refused", f"{name} is {there} on the worker, {own} on the server", done=True)
        with self.changed:
            if not (self.over or self.failed):
                self._happen({"kind": "join", "worker": worker})
            return self._reply(worker)

    def push(self, push: Push) -> Reply:
        """A visit is done. What is answered 'applied' is on the disk."""
        wrong = self._fits(push.arrays)
        with self.changed:
            self.counts["bytes in"] += sum(array.nbytes for array in push.arrays)
        if wrong is None and not math.isfinite(push.loss):
            wrong = f"its loss is {push.loss}"
        if wrong is None and not 0 < push.seconds < math.inf:
            wrong = f"it took {push.seconds} seconds"
        if wrong is None and not bool(self._finite([np.asarray(a) for a in push.arrays])):
            wrong = "it has numbers that are not finite"
        with self.changed:
            if (known := self._judge(push)) is not None:
                return known
            if wrong is not None:
                return self._refused(push.worker, wrong)
            self._refusals = 0
            told = {"kind": "push", "worker": push.worker, "id": push.id, "seconds": push.seconds, "loss": push.loss}
            written = self._happen(told, push.arrays)
            return self._reply(push.worker, "applied" if written else "")

    def next(self, worker: int, wait: float = 1.0) -> Reply:
        """What the worker is to do; waits for so many seconds at most."""
        with self.changed:
            self.changed.wait_for(lambda: worker in self.offers or self.over or bool(self.failed), wait)
            if not self.over and worker in self.coordinator.running and worker not in self.offers:
                self._happen({"kind": "join", "worker": worker})  # it never got what it was given
            if not (self.over or self.failed) and worker not in self.coordinator.scheduler.present:
                return Reply(worker, "refused", "it was given up")  # while it was silent; it is to say hello again
            return self._reply(worker)

    def gone(self, worker: int, why: str = "gone") -> None:
        """A worker is lost: its process has ended, or it has not been heard of for too long."""
        with self.changed:
            if not self.over and worker in self.coordinator.scheduler.present:
                self.counts[why] += 1
                self._happen({"kind": "leave", "worker": worker})

    def close_if_due(self) -> None:
        """Close the open group, if it is time."""
        with self.changed:
            if not self.over and self.coordinator.due(self.now):
                self._happen({"kind": "tick"})

    def fail(self, why: str) -> None:
        """Give the run up; workers are told to stop."""
        with self.changed:
            self.failed = self.failed or why
            self.changed.notify_all()

    @property
    def over(self) -> bool:
        """Whether the run has all its local steps."""
        return self.coordinator.done

    @property
    def settled(self) -> bool:
        """Whether nothing more will happen: it is over and looked at, or has failed."""
        return bool(self.failed) or (self.over and not self.due)

    def close(self) -> None:
        """A last checkpoint, if it can be written, and the journal let go."""
        if not self.failed:
            self.checkpoint()
        with self.changed:
            self.closed = True
            self.ledger.close()

    def _judge(self, push: Push) -> Reply | None:
        """The answer to a push that is not new, not the worker's own, or comes too late."""
        running = self.coordinator.running.get(push.worker)
        if running is not None and running.id == push.id and not self.over:
            return None
        if push.id in self.applied:
            self.counts["repeated"] += 1
            return self._reply(push.worker, "repeated")
        if self.over:
            self.counts["after the end"] += 1
            return self._reply(push.worker)
        self._refuse("too late")
        return self._reply(push.worker, "refused", "its visit was given up", none=True)

    def _refused(self, worker: int, reason: str) -> Reply:
        """A push that cannot be applied: the visit is lost, and given out again."""
        self._refuse("not usable")
        self._refusals += 1
        self._happen({"kind": "leave", "worker": worker})
        if self._refusals >= PATIENCE * max(1, self.work.run.cluster.workers):
            self.fail(f"{self._refusals} pushes on end were refused, the last of worker {worker}: {reason}")
        return self._reply(worker, "refused", reason, none=True)

    def _refuse(self, why: str) -> None:
        self.counts["refused"] += 1
        self.counts[f"refused: {why}"] += 1

    def _reply(self, worker: int, verdict: str = "", reason: str = "", none: bool = False) -> Reply:
        done = self.over or bool(self.failed)
        if done or none or worker not in self.offers:
            return Reply(worker, verdict, reason, done=done)
        given, handed = self.offers.pop(worker)
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(handed)]
        self.counts["bytes out"] += sum(leaf.nbytes for leaf in leaves)
        return Reply(worker, verdict, reason, given, leaves)

    # Events

    @property
    def now(self) -> float:
        """Seconds since the run began, whatever died in between."""
        return self._clock() - self.began

    def _happen(self, told: dict[str, Any], arrays: Sequence[Any] = ()) -> bool:
        """An event, and all that follows from it; nobody is told before it is on the disk. Whether it is.

        The device works while the disk does. Where that fails, so does the run: what the memory then holds is dropped.
        """
        if self.failed or self.closed:
            return False
        told = told | {"at": self.now}
        self._follow(told, arrays)
        try:
            self.ledger.append(told, arrays)
        except ConfigError as error:
            self.fail(str(error))
            return False
        self.changed.notify_all()
        return True

    def _follow(self, told: dict[str, Any], arrays: Sequence[Any]) -> None:
        kind, at, worker = told["kind"], told["at"], told.get("worker", -1)
        if kind == "join":
            self._forget(worker)
            self._carry(self.coordinator.join(worker, at))
        elif kind == "leave":
            self._forget(worker)
            self._carry(self.coordinator.leave(worker, at))
        elif kind == "tick":
            self._carry(self.coordinator.tick(at))
        else:
            arrival, whole = len(self.coordinator.arrivals), [np.asarray(array) for array in arrays]
            self.held[arrival] = whole, self.starts.pop(worker, self.server.params)
            self.losses[worker] = told["loss"]
            self.applied.add(told["id"])
            self.visits[worker] += 1
            self.counts["applied"] += 1
            self.offers.pop(worker, None)
            self._carry(self.coordinator.arrive(worker, at, told["seconds"] / (self.rules.pace or 1.0)))

    def _forget(self, worker: int) -> None:
        self.offers.pop(worker, None)
        self.starts.pop(worker, None)

    def _carry(self, outcome: Outcome) -> None:
        for number, step in outcome.taken:
            self._take(number, step)
        for given in outcome.given:
            worker = given.visit.worker
            handed = self._pull(self.server.outer_state, self.server.params, np.int32(worker))
            self.offers[worker] = given, handed
            if self.reads:
                self.starts[worker] = handed

    def _take(self, number: int, step: bool) -> None:
        """The server takes an arrival."""
        visit = self.coordinator.arrivals[number].visit
        row = row_of(visit, number, self.count(number, step), step)
        arrays, start = self.held.pop(number)
        params, rest = self._arrive(self.server.params, tuple(self.server[1:]), arrays, row, start)
        self.server = Server(params, *rest)
        if step:
            self._mark(number)

    def count(self, number: int, step: bool) -> int:
        """Note that an arrival is taken; its staleness, in outer steps."""
        visit = self.coordinator.arrivals[number].visit
        staleness = self.versions[number] - self.versions[visit.pulled_at]
        self.stalest[visit.worker] = staleness
        self.versions.append(self.versions[-1] + step)
        self.steps.append(self.steps[-1] + visit.num_steps)
        return staleness

    def _mark(self, number: int) -> None:
        """The parameters are looked at later, if an evaluation is due."""
        steps, coordinator = self.steps[-1], self.coordinator
        share = coordinator.goal / self.work.run.budget.evaluations
        if steps // share > self.looked_at // share or self.over:
            self.looked_at = steps
            due = Point(number + 1, steps, coordinator.arrivals[number].time, {})
            if all(point.arrivals != due.arrivals for point in self.points):  # or it was made before the server died
                self.due.append((due, self.server.params))


def own(server: Server) -> Server:
    """The same, nothing in it another's as well: an outer optimizer's state may begin as the parameters themselves."""
    return Server(server.params, *jax.tree.map(jnp.array, tuple(server[1:])))


def row_of(visit: Visit, number: int, staleness: int, step: bool) -> Rows:
    """An arrival as the spine reads it; who pulls is the caller's."""
    return Rows(
        worker=np.int32(visit.worker),
        shard=np.int32(visit.shard),
        first_step=np.int32(visit.first_step),
        num_steps=np.int32(visit.num_steps),
        staleness=np.int32(staleness),
        arrival=np.int32(number),
        dispatch=np.int32(visit.pulled_at),
        step=np.bool_(step),
        reset=np.bool_(False),
        pulls=np.zeros(0, bool),
        valid=np.bool_(True),
    )
