"""Processes that die, and when to send the next: no Ray here."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

STILLBORN = 3  # processes on end that did not start, for the same cause, after which no other will


@dataclass(frozen=True)
class Care:
    """How a driver deals with processes that die.

    Args:
        limit: deaths on end, without a visit finished in between, after which a process is given up.
        pause: seconds before the second of these is followed by a new process; doubled each time.
        most: seconds that are not exceeded by it.
        beat: seconds between looks.
        silence: seconds that a server may not answer before it is killed.
        leave: seconds that workers have to come to an end by themselves.
    """

    limit: int = 6
    pause: float = 0.5
    most: float = 30.0
    beat: float = 0.25
    silence: float = 300.0
    leave: float = 5.0

    def wait(self, fruitless: int) -> float:
        """Seconds before a process is started again that died so often on end."""
        return 0.0 if fruitless < 2 else min(self.most, self.pause * 2.0 ** (fruitless - 2))


@dataclass
class Deaths:
    """Of the processes of one place, one after the other."""

    care: Care
    total: int = 0
    fruitless: int = 0  # on end, without anything done
    done: int = 0  # visits, or arrivals, when the present one was started
    not_before: float = 0.0  # of the monotonic clock: when to start the next
    unborn: str = ""  # why the last did not start, if it did not
    same: int = 0  # on end, that did not for this cause

    def count(self, done: int, unborn: str = "") -> None:
        """One more; so much had been done by then. Or it did not even start, and why."""
        self.same = 0 if not unborn else self.same + 1 if unborn == self.unborn else 1
        self.unborn = unborn
        self.total += 1
        self.fruitless = 1 if done > self.done else self.fruitless + 1
        self.done = done
        self.not_before = time.monotonic() + self.care.wait(self.fruitless)

    @property
    def hopeless(self) -> bool:
        """Whether to start no other."""
        return self.fruitless >= self.care.limit or self.same >= STILLBORN

    def why(self, how: str, what: str) -> str:
        """Why no other is started, in a line, where the last ended so before it had done anything."""
        if self.same >= STILLBORN:
            return f"its process does not start: {self.unborn}"
        return f"it died {self.fruitless} times on end without {what}: {how}"


@dataclass
class Post:
    """The place of a worker: its number, and the process that holds it."""

    worker: int
    deaths: Deaths
    actor: Any = None
    task: Any = None  # the future of its work
    pid_of: Any = None  # and of its process's number
    pid: int | None = None
    closed: str = ""  # why nobody is sent there any more
