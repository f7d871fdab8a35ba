"""Work beside the pages: in threads, shared by all that ask for the same, dropped when nobody wants it any more."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Literal

from toybench.config import ConfigError

State = Literal["waiting", "running", "done", "failed", "dropped"]


class Dropped(Exception):
    """Nobody wants the result any more."""


class Job:
    """A piece of work: how far it is, and in the end its result or what went wrong, in a line."""

    def __init__(self, key: Hashable, work: Callable[[Job], Any], alive: Callable[[str], bool] = lambda owner: True):
        self.key, self.work, self._alive = key, work, alive
        self.owners: set[str] = set()
        self.state: State = "waiting"
        self.said, self.share = "waiting", 0.0
        self.result: Any = None
        self.problem = ""
        self._ended = threading.Event()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for the end, no longer than so; whether it came."""
        return self._ended.wait(seconds)

    def report(self, done: float = 0.0, said: str | None = None) -> None:
        """Called by the work now and then: a further share of it is done, or what it does now.

        Raises:
            Dropped: it may stop.
        """
        self.owners -= {owner for owner in tuple(self.owners) if not self._alive(owner)}
        if not self.owners:
            raise Dropped
        self.share = min(1.0, self.share + done)
        self.said = self.said if said is None else said

    def end(self, state: State, result: Any = None, problem: str = "") -> None:
        self.state, self.result, self.problem = state, result, problem
        self._ended.set()


class Desk:
    """Threads that take jobs in the order in which they were asked for, and the results of the last ones.

    Args:
        threads: jobs at a time; with two, a page that compiles does not keep another from redrawing.
        keep: results kept for whoever asks again.
        alive: whether an owner is still there; what only others want is dropped.
    """

    def __init__(self, threads: int = 2, keep: int = 200, alive: Callable[[str], bool] = lambda owner: True):
        self._keep, self._alive, self._changed = keep, alive, threading.Condition()
        self._jobs: OrderedDict[Hashable, Job] = OrderedDict()
        self._waiting: list[Job] = []
        self._closed = False
        self._threads = [threading.Thread(target=self._take, name=f"desk-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def close(self, seconds: float = 20.0) -> None:
        """Drop everything, and wait for the threads: an interpreter that ends under a compiler would crash."""
        with self._changed:
            self._closed = True
            for job in self._jobs.values():
                job.owners.clear()
            unwanted, self._waiting = self._waiting, []
            self._changed.notify_all()
        for job in unwanted:
            job.end("dropped")
        for thread in self._threads:
            thread.join(seconds)

    def ask(self, owner: str, key: Hashable, work: Callable[[Job], Any]) -> Job:
        """The job of a key: one that is there, unless it failed; else `work`, called in a thread with its job."""
        with self._changed:
            job = self._jobs.get(key)
            if job is None or job.state in ("failed", "dropped") or (not job.ended and not job.owners):
                job = self._jobs[key] = Job(key, work, self._alive)
                self._waiting.append(job)
                self._changed.notify()
            job.owners.add(owner)
            self._jobs.move_to_end(key)
            return job

    def put(self, key: Hashable, result: Any) -> None:
        """A result that is there without work, unless the key has a job already."""
        job = Job(key, lambda job: result)
        job.end("done", result)
        with self._changed:
            self._jobs.setdefault(key, job)

    def keep_only(self, owner: str, keys: Iterable[Hashable]) -> None:
        """All that this owner still wants; what nobody wants is taken from the queue, or stops at its next report."""
        wanted = set(keys)
        with self._changed:
            for key, job in self._jobs.items():
                if key not in wanted:
                    job.owners.discard(owner)
            unwanted = [job for job in self._waiting if not job.owners]
            self._waiting = [job for job in self._waiting if job.owners]
        for job in unwanted:
            job.end("dropped")

    def unfinished(self) -> int:
        """Jobs that wait or run."""
        with self._changed:
            return sum(not job.ended for job in self._jobs.values())

    def _take(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closed:
                        return
                    self._changed.wait()
                job = self._waiting.pop(0)
                job.state = "running"
            self._do(job)
            with self._changed:
                ended = [key for key, job in self._jobs.items() if job.ended]
                for key in ended[: max(0, len(ended) - self._keep)]:
                    del self._jobs[key]

    @staticmethod
    def _do(job: Job) -> None:
        try:
            job.report(said="beginning")
            job.end("done", job.work(job))
        except Dropped:
            job.end("dropped")
        except ConfigError as error:
            job.end("failed", problem=str(error))
        except BaseException as error:  # a page says it; the thread goes on to the next
            first = (str(error).strip() or "no reason given").splitlines()[0]
            job.end("failed", problem=f"{type(error).__name__}: {first[:300]}")
