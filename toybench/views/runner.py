"""Sweeps and trainings as processes of their own: a page that closes, and an app that stops, leave them be.

A process writes what it says to a log beside the store, with a line about itself, so that an app that is started again
finds it. What is done is in the store.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import toybench
from toybench.config import ConfigError


class Kind(NamedTuple):
    """What a process makes."""

    noun: str
    program: str  # behind ``python -m``


SWEEP = Kind("sweep", "toybench")


class Begun(NamedTuple):
    """A process at its work."""

    process: int
    since: float  # seconds since the epoch
    before: int  # runs that were there
    total: int


class Ended(NamedTuple):
    """How a process ended."""

    status: int | None  # as subprocess has it; None if that is not known
    said: str  # its last line


class Runner:
    """The process that makes one thing, if there is one; safe to use from several threads.

    Args:
        store: beside which the log lies.
        name: of what is made, which is a word of the process's command line, or ends a path there.
        kind: of what is made.
    """

    def __init__(self, store: Path, name: str, kind: Kind = SWEEP):
        self.store, self.name, self.kind = store, name, kind
        self.log = store.with_name(f"{store.name}.{quote(name, safe='')}.log")  # another program may have named it
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def start(self, words: Sequence[str], *, before: int, total: int) -> None:
        """Run a command line that begins with the program.

        Raises:
            ConfigError: a process is at it, or none can be started.
        """
        with self._lock:
            if self._running():
                raise ConfigError(self.kind.noun, f"{self.name!r} is running")
            source = str(Path(toybench.__file__).parent.parent)
            path = os.pathsep.join(part for part in (source, os.environ.get("PYTHONPATH", "")) if part)
            try:
                self.log.parent.mkdir(parents=True, exist_ok=True)
                self.log.unlink(missing_ok=True)
                with self.log.open("ab") as log:
                    self._process = subprocess.Popen(
                        [sys.executable, "-m", *words],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=log,
                        start_new_session=True,  # Ctrl-C in the app's terminal is not for it
                        env={**os.environ, "PYTHONPATH": path},
                    )
                    begun = Begun(self._process.pid, time.time(), before, total)
                    log.write(f"\n{json.dumps(begun._asdict())}\n".encode())
            except OSError as error:
                said = f"cannot be started: {error.strerror or error}: {self.log}"
                raise ConfigError(self.kind.noun, said) from None

    @property
    def running(self) -> bool:
        with self._lock:
            return self._running()

    def _running(self) -> bool:
        if self._process is not None:
            if self._process.poll() == 0:
                with suppress(OSError):  # nothing in it that the store does not say
                    self.log.unlink(missing_ok=True)
            return self._process.returncode is None
        begun = self.begun()
        return begun is not None and _alive(begun.process, self.name, self.kind.program)

    def begun(self) -> Begun | None:
        """The process that was started last, as the log has it."""
        for line in self.lines():
            if line.startswith('{"process"'):
                with suppress(ValueError, TypeError):
                    return Begun(**json.loads(line))
        return None

    def ended(self) -> Ended | None:
        """How the process that was started last ended; None if it goes on, or none was started."""
        with self._lock:
            if self._running() or (self._process is None and self.begun() is None):
                return None
            lines = [line for line in self.lines() if not line.startswith('{"process"')]
            status = None if self._process is None else self._process.returncode
            told = [line for line in lines if line.startswith(("toybench: error: ", "interrupted"))] or lines
            return Ended(status, told[-1].removeprefix("toybench: error: ")[:500] if told else "")

    def cancel(self) -> None:
        """Ask the process to keep what is finished and end, as Ctrl-C does."""
        with self._lock:
            if not self._running():
                return
            begun = self.begun()
            process = self._process.pid if self._process is not None else begun.process if begun is not None else None
            if process is not None:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGINT)

    def lines(self) -> list[str]:
        """What the process has said so far."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()]


def _alive(process: int, name: str, program: str) -> bool:
    """Whether a process is there that makes what has this name; its number may be another's by now."""
    try:
        os.kill(process, 0)
    except OSError:
        return False
    own = Path(f"/proc/{process}")
    try:
        words = (own / "cmdline").read_bytes().split(b"\0")
        state = (own / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return not own.parent.is_dir()  # a system without /proc
    if words == [b""]:  # it ended and nobody asked how, or has just begun
        return state not in "ZX"
    return program.encode() in words and any(
        word == name.encode() or word.endswith(f"/{name}".encode()) for word in words
    )


class Runners:
    """One runner for each sweep of each store, or whatever is made, for all pages."""

    def __init__(self, kind: Kind = SWEEP) -> None:
        self._kind = kind
        self._lock = threading.Lock()
        self._found: dict[tuple[Path, str], Runner] = {}

    def get(self, store: Path, name: str) -> Runner:
        key = store.absolute(), name
        with self._lock:
            if key not in self._found:
                self._found[key] = Runner(store, name, self._kind)
            return self._found[key]

    def names(self, store: Path) -> list[str]:
        """Those of a store that have been started here."""
        with self._lock:
            found = [runner for (path, _), runner in self._found.items() if path == store.absolute()]
        return [runner.name for runner in found if runner.running or runner.ended()]
