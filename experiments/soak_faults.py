"""The faults of `experiments.soak`: in a worker's connection, and from outside by signals and limits."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toybench.transports.messages import Push, Reply
from toybench.transports.ray.means import MARK
from toybench.transports.worker import Connection

LATE = 2.5  # seconds that a push is held back: more than the server waits
STOPPED = (1.0, 4.0)  # seconds that a process is stopped: less and more than that


class Unreliable:
    """A connection that sends pushes twice, again after the next one, or late, and loses answers. It writes down all.

    Args:
        connection: the real one.
        folder: for what was sent and answered, a file for each process.
    """

    def __init__(self, connection: Connection, folder: str):
        self.inner, self.random = connection, random.Random(os.getpid())
        self.file = os.open(Path(folder) / f"{os.getpid()}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.old: Push | None = None

    def hello(self, worker: int, about: Mapping[str, str] | None, who: str) -> Reply:
        return self.inner.hello(worker, about, who)

    def next(self, worker: int, who: str) -> Reply:
        return self.inner.next(worker, who)

    def push(self, push: Push) -> Reply:
        chance = self.random.random()
        if chance < 0.02:
            time.sleep(LATE)
            return self._send(push, "late")
        if chance < 0.05:
            first, second = self._send(push), self._send(push, "twice")
            return self.random.choice([first, second])  # the other is lost on its way
        reply = self._send(push)
        if chance < 0.08 and self.old is not None:
            self._send(self.old, "reordered")
        self.old = push
        return reply

    def _send(self, push: Push, how: str = "once") -> Reply:
        self._write({"sent": push.id, "how": how})
        reply = self.inner.push(push)
        self._write({"id": push.id, "verdict": reply.verdict, "reason": reply.reason, "how": how})
        return reply

    def _write(self, told: dict[str, Any]) -> None:
        os.write(self.file, json.dumps(told).encode() + b"\n")  # with the system, whatever happens to this process


class Foreign:
    """The connection of a worker of another version."""

    def __init__(self, connection: Connection):
        self.inner = connection

    def hello(self, worker: int, about: Mapping[str, str] | None, who: str) -> Reply:
        return self.inner.hello(worker, {**(about or {}), "toybench": "0.0.0"}, who)

    def push(self, push: Push) -> Reply:
        return self.inner.push(push)

    def next(self, worker: int, who: str) -> Reply:
        return self.inner.next(worker, who)


def ours(pid: int | None) -> bool:
    """Whether a process is one of a Ray of our own: a number may be another's by now."""
    with suppress(OSError):
        return pid is not None and f"{MARK}=".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    return False


def send(pid: int | None, what: signal.Signals) -> bool:
    """A signal to a process of ours, if it is there."""
    if pid is None or not ours(pid):
        return False
    with suppress(OSError):
        os.kill(pid, what)
        return True
    return False


@dataclass
class Chaos:
    """Signals at random, from a thread of its own.

    Args:
        ledger: the server's folder, whose files tell what it is doing.
        seed: of the chances.
        disk: seconds after which the server's files may grow no further, once.
    """

    ledger: Path
    seed: int
    disk: float
    counts: Counter[str] = field(default_factory=Counter)
    told: dict[str, Any] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until `ended`: something every few seconds."""
        chances, began = random.Random(self.seed), time.monotonic()
        acts = [self.kill_worker] * 3 + [self.stop_worker, self.stop_server] + [self.kill_server] * 5
        while not self.ended.wait(chances.uniform(1.0, 3.0)):
            if not self.told.get("arrivals"):
                continue
            if time.monotonic() - began > self.disk and not self.counts["disk full"]:
                self.fill_disk()
            else:
                chances.choice(acts)(chances)

    def kill_worker(self, chances: random.Random) -> None:
        if pids := [*self.told.get("pids", {}).values()]:
            self.counts["workers killed"] += send(chances.choice(pids), signal.SIGKILL)

    def stop_worker(self, chances: random.Random) -> None:
        if not (pids := [*self.told.get("pids", {}).values()]):
            return
        self.counts["workers stopped"] += self._stopped(chances.choice(pids), chances)

    def stop_server(self, chances: random.Random) -> None:
        """All wait for it, and when it goes on much is due at once."""
        self.counts["servers stopped"] += self._stopped(self.told.get("server_pid"), chances)

    def _stopped(self, pid: int | None, chances: random.Random) -> bool:
        if stopped := send(pid, signal.SIGSTOP):
            self.ended.wait(chances.uniform(*STOPPED))
            send(pid, signal.SIGCONT)
        return stopped

    def kill_server(self, chances: random.Random) -> None:
        """At any moment; or when its journal has just grown; or while a checkpoint is being written."""
        moment = chances.choice(["any moment", "apply", "checkpoint"])
        if moment == "any moment" or self._seen(moment):
            self.counts[f"servers killed: {moment}"] += send(self.told.get("server_pid"), signal.SIGKILL)
            time.sleep(0.05)
            self.counts["checkpoints cut off"] += bool([*self.ledger.glob("new-*")])
            self.told.pop("server_pid", None)

    def _seen(self, moment: str) -> bool:
        """Wait for the moment; looked for as often as this thread can."""
        until, before = time.monotonic() + 10, self._journal()
        while time.monotonic() < until and not self.ended.is_set():
            if moment == "checkpoint" and any(self.ledger.glob("new-*")):
                return True
            if moment == "apply" and (now := self._journal()) != before:
                if now[0] == before[0] and now[1] > before[1]:
                    return True
                before = now
        return False

    def _journal(self) -> tuple[int, int]:
        numbers = [int(path.name.split("-")[1]) for path in self.ledger.glob("journal-*")]
        with suppress(OSError):
            return max(numbers, default=0), (self.ledger / f"journal-{max(numbers, default=0)}").stat().st_size
        return max(numbers, default=0), 0

    def fill_disk(self) -> None:
        """No file of the server's process may be as large as its last checkpoint."""
        sizes = [path.stat().st_size for path in self.ledger.glob("checkpoint-*")]
        pid = self.told.get("server_pid")
        if pid is not None and ours(pid) and sizes:
            with suppress(OSError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (max(sizes) - 1, resource.RLIM_INFINITY))
                self.counts["disk full"] += 1
