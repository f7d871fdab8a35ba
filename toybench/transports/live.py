"""The server of real workers: takes what they push, answers what is to be done next, forgets nothing it answered.

Transports call `hello`, `push` and `next` for workers, from any thread, within `house.kept`. Every call may be
repeated: a worker that got no answer asks again.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from toybench.config import ConfigError
from toybench.server import open_server
from toybench.task import Params
from toybench.transports.coordinator import Coordinator, Given, Outcome
from toybench.transports.keeping import Point, freeze, thaw
from toybench.transports.ledger import Ledger
from toybench.transports.messages import Push, Reply, Rules
from toybench.transports.programs import Programs, own, row_of
from toybench.transports.work import Work, reads_pulled

LATE = "late"
PATIENCE = 20  # refusals on end, times the workers, after which the run is given up


class Live:
    """A server.

    Args:
        work: of the run.
        folder: for what it must not forget. If something of the same run is there, it goes on with that.
        rules: see `Rules`.
        about: what workers must agree in: versions, sources, the run.
        clock: seconds, instead of the system's clocks.

    Raises:
        ConfigError: the folder cannot be written, holds another run, or another server is at work in it.
    """

    def __init__(
        self,
        work: Work,
        folder: Path,
        rules: Rules,
        about: Mapping[str, str] | None = None,
        clock: Callable[[], float] | None = None,
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
        self.missed: Counter[int] = Counter()  # by worker, deadlines on end
        self.knocking: Counter[int] = Counter()  # by worker, pushes that are here and wait for their turn
        self.holders: dict[int, str] = {}  # worker -> the process that has its number
        self.retired: set[str] = set()  # processes whose numbers others have
        self.failed, self.closed = "", False
        self._refusals, self._ears = 0, threading.Lock()
        self.began, self.at = (clock or time.time)(), 0.0  # and the time of the last event
        self._ticks = clock or time.monotonic  # the system's other clock may be set while a run goes on
        self.programs = Programs(work.outer, rules.codec, params)
        self.ledger.hold()
        try:
            self._open()
            self.programs.warm(self.server)
        except BaseException:
            self.ledger.close()
            raise
        self.at = max(self.at, (clock or time.time)() - self.began)
        self.opened_at, self._opened = self.at, self._ticks()

    def _open(self) -> None:
        """Go on with what the folder holds, or begin."""
        self._opened = self._ticks()
        frames = self.ledger.read()
        first = next(frames, None)
        if first is None:
            self.checkpoint()
            return
        thaw(self, first)
        for frame in frames:
            self._follow(frame.told, frame.arrays)
            self.at = frame.told["at"]
        self.ledger.open()

    def checkpoint(self) -> bool:
        """Write down everything, if no group is open just now.

        Raises:
            ConfigError: it cannot be written; what was there still is.
        """
        with self.changed:
            if self.held or self.failed or self.closed:  # what could not be written down is in the memory only
                return False
            told, arrays = freeze(self)
            number = self.ledger.roll()
        self.ledger.keep(number, told, arrays)  # nobody waits for it
        return True

    # What workers call

    def hello(self, worker: int, about: Mapping[str, str] | None = None, who: str = "") -> Reply:
        """A worker comes, or comes back, with nothing in its hands. A process that had its number loses it to `who`."""
        about = self.about if about is None else about
        for name, here in self.about.items():
            if (there := about.get(name)) != here:
                self._refuse("other versions")
                return Reply(worker, "refused", f"{name} is {there} on the worker, {here} on the server", done=True)
        with self.changed:
            if (known := self._of_another(worker, who)) is not None:
                return known
            if (before := self.holders.get(worker, who)) != who:
                self.retired.add(before)
            self.holders[worker] = who
            if not (self.over or self.failed):
                self._happen({"kind": "join", "worker": worker})
            return self._reply(worker)

    def push(self, push: Push) -> Reply:
        """A visit is done. What is answered 'applied' is on the disk."""
        with self._heard(push.worker):
            return self._push(push)

    def _push(self, push: Push) -> Reply:
        wrong = self.programs.wrong(push.arrays)
        with self.changed:
            self.counts["bytes in"] += sum(array.nbytes for array in push.arrays)
        if wrong is None and not math.isfinite(push.loss):
            wrong = f"its loss is {push.loss}"
        if wrong is None and not 0 < push.seconds < math.inf:
            wrong = f"it took {push.seconds} seconds"
        with self.changed:
            if self.failed or self.closed:  # the memory may hold what the disk does not
                return self._reply(push.worker)
            if (known := self._of_another(push.worker, push.who) or self._judge(push)) is not None:
                return known
            if wrong is not None:
                return self._refused(push.worker, wrong)
            self._refusals = self.missed[push.worker] = 0
            told = {"kind": "push", "worker": push.worker, "id": push.id, "seconds": push.seconds, "loss": push.loss}
            written = self._happen(told, push.arrays)
            return self._reply(push.worker, "applied" if written else "")

    def next(self, worker: int, wait: float = 1.0, who: str = "") -> Reply:
        """What the worker is to do; waits for so many seconds at most."""
        with self.changed:
            if (known := self._of_another(worker, who)) is not None:
                return known
            self.changed.wait_for(lambda: worker in self.offers or self.over or bool(self.failed), wait)
            if not self.over and worker in self.coordinator.running and worker not in self.offers:
                self._happen({"kind": "join", "worker": worker})  # it never got what it was given
            if not (self.over or self.failed) and worker not in self.coordinator.scheduler.present:
                return Reply(worker, "refused", "it was given up")  # while it was silent; it is to say hello again
            return self._reply(worker)

    def gone(self, worker: int, why: str = "gone") -> None:
        """A worker is lost: its process has ended, or it has not been heard of for too long."""
        with self.changed:
            if not (self.over or self.failed or self.closed) and worker in self.coordinator.scheduler.present:
                self.counts[why] += 1
                self.missed[worker] += why == LATE
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
        """A last checkpoint, and the folder let go.

        Raises:
            ConfigError: it cannot be written; what was answered is in the journal.
        """
        try:
            self.checkpoint()
        finally:
            with self.changed:
                self.closed = True
                self.ledger.close()

    @contextmanager
    def _heard(self, worker: int) -> Iterator[None]:
        """Whose push is here is not late, however long it waits for its turn."""
        with self._ears:
            self.knocking[worker] += 1
        try:
            yield
        finally:
            with self._ears:
                self.knocking[worker] -= 1

    def _of_another(self, worker: int, who: str) -> Reply | None:
        """The answer to a process that was held for dead, and whose number another has."""
        if who not in self.retired:
            return None
        self._refuse("another process has its number")
        return Reply(worker, "refused", "another process has its number", done=True)

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
        try:
            leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(handed)]
        except Exception as error:  # the device failed at what it was given some time ago
            self.fail(f"{type(error).__name__}: {error}")
            return Reply(worker, done=True)
        self.counts["bytes out"] += sum(leaf.nbytes for leaf in leaves)
        return Reply(worker, verdict, reason, given, leaves)

    # Events

    @property
    def now(self) -> float:
        """Seconds since the run began, whatever died in between."""
        return self.at + (self._ticks() - self._opened)

    def _happen(self, told: dict[str, Any], arrays: Sequence[Any] = ()) -> bool:
        """An event, and all that follows from it; nobody is told before it is on the disk. Whether it is.

        The device works while the disk does. Where either fails, so does the run: what the memory holds is dropped.
        """
        if self.failed or self.closed:
            return False
        told = told | {"at": self.now}
        try:
            self._follow(told, arrays)
            self.ledger.append(told, arrays)
        except Exception as error:
            self.fail(str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}")
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
            handed = self.programs.pull(self.server, worker)
            self.offers[worker] = given, handed
            if self.reads:
                self.starts[worker] = handed

    def _take(self, number: int, step: bool) -> None:
        """The server takes an arrival."""
        visit = self.coordinator.arrivals[number].visit
        row = row_of(visit, number, self.count(number, step), step)
        arrays, start = self.held.pop(number)
        self.server = self.programs.arrive(self.server, arrays, row, start)
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
