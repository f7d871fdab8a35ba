"""What a run needs of machines, and what is looked at before anything is started: no Ray here."""

from __future__ import annotations

import math
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from toybench.config import ConfigError

MARK = "TOYBENCH_RAY"  # in the environment of every process of a Ray of our own: its folder
# An empty SETTINGS frame behind the opening of HTTP/2, which gRPC answers with a SETTINGS frame of its own.
KNOCK = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS = 4
LONGEST = (103 if sys.platform == "darwin" else 107) - 84  # of the temporary folder's name: sockets' are limited
LEAST = 0.0001  # of a resource: Ray counts in these


NOTHING: Mapping[str, float] = {}


def check_amount(name: str, value: float, whole: bool = False) -> None:
    """Whether Ray takes so much of a resource; above 1 only `whole` numbers of it, where they must be.

    Raises:
        ConfigError: it does not.
    """
    if not 0 <= value < math.inf:
        raise ConfigError(name, f"expected a number >= 0, got {value:g}")
    if 0 < value < LEAST:
        raise ConfigError(name, f"expected 0 or at least {LEAST:.4f}, got {value:g}")
    if whole and value > 1 and value % 1:
        raise ConfigError(name, f"expected a part of one or a whole number, got {value:g}")


class Needs(NamedTuple):
    """What the workers of a driver need."""

    workers: int
    cpus: float = 1.0  # of each
    gpus: float = 0.0
    others: Mapping[str, float] = NOTHING  # by Ray's names

    @property
    def each(self) -> dict[str, float]:
        """What a worker takes, by Ray's names."""
        return {"CPU": self.cpus, "GPU": self.gpus, **self.others}

    def check(self) -> None:
        """Whether these are numbers that can be meant.

        Raises:
            ConfigError: they are not.
        """
        if self.workers < 1:
            raise ConfigError("workers", f"expected at least 1, got {self.workers}")
        check_amount("cpus-per-worker", self.cpus)
        check_amount("gpus-per-worker", self.gpus, whole=True)
        for name, value in self.others.items():
            if not name or name in ("CPU", "GPU", "memory", "object_store_memory"):
                raise ConfigError("resources-per-worker", f"expected the name of another resource, got {name!r}")
            check_amount(f"resources-per-worker: {name}", value)


def room(resources: Mapping[str, float], needs: Needs) -> float:
    """How many such workers a machine of these resources takes."""
    each = needs.each.items()
    return min((resources.get(kind, 0) / need + 1e-9 for kind, need in each if need), default=math.inf)


def check_room(machines: Iterable[Mapping[str, float]], needs: Needs, where: str) -> None:
    """Whether the workers fit on machines of these resources.

    Raises:
        ConfigError: they do not.
    """
    machines = list(machines)
    if sum(min(room(one, needs), needs.workers) // 1 for one in machines) >= needs.workers:
        return
    has = ", ".join(f"{sum(one.get(kind, 0) for one in machines):g} {kind}s" for kind in needs.each)
    each = " and ".join(f"{need:g} {kind}" for kind, need in needs.each.items() if need or kind == "CPU")
    less = "fewer workers, or less for each (--cpus-per-worker 0.5)"
    raise ConfigError("workers", f"{needs.workers} of {each} each do not fit: {where} has {has}; ask for {less}")


QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # deaths are told by the driver, in a line
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
}


# On Linux: a Ray listens on loopback only, and 127.0.0.1 is not taken for this machine's other address.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def joining(address: str, token: str | None) -> dict[str, str]:
    """Likewise, to join the Ray at an address; with the token of the environment where none is given."""
    here = LOOPBACK if address.startswith(("127.", "localhost:", "[::1]:")) else {}
    return QUIET | here | ({} if token is None else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token})


def environment() -> dict[str, str]:
    """What must be in the environment before Ray is imported, to start it on this machine for this user only."""
    return (
        QUIET
        | LOOPBACK
        | {
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_worker_niceness": "0",  # 15 by default, which starves workers on a machine that does anything else
            "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token"),
            "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32),
        }
    )


def knock(address: str, seconds: float = 3.0) -> None:
    """Whether somebody is at an address who may be a Ray, which itself waits for a minute and ends the process.

    Raises:
        ConfigError: nobody answers, or not as a Ray would.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16 or "/" in address:
        raise ConfigError("address", f"expected HOST:PORT of a Ray's head, got {address!r}")
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), seconds) as there:
            there.settimeout(seconds)
            there.sendall(KNOCK)
            answer = there.recv(9)
    except OSError as error:
        raise ConfigError("address", f"nobody answers at {address}: {error.strerror or error}") from None
    if len(answer) < 4 or answer[3] != SETTINGS:
        raise ConfigError("address", f"what answers at {address} is no Ray")


def store_size(asked: int | None) -> int:
    """Bytes of shared memory for arrays on their way; a file that has holes until they are used."""
    if asked is not None:
        return asked
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError):
        found = os.statvfs("/dev/shm")
        whole = min(whole, 2 * found.f_bavail * found.f_frsize)
    return max(80 * 2**20, min(2 * 2**30, whole // 8))


def private_folder() -> str:
    """A new folder that nobody else can enter, with room for the names of Ray's sockets behind it.

    Raises:
        ConfigError: there is no place for it.
    """
    place = tempfile.gettempdir()
    if len(os.fsencode(place)) > LONGEST:
        place = "/tmp"
    try:
        return tempfile.mkdtemp(prefix="toybench-", dir=place)
    except OSError as error:
        raise ConfigError("ray", f"cannot write to {place!r}: {error.strerror}") from None


def marked(folder: str) -> list[int]:
    """Processes of the Ray of a folder, where the system tells."""
    mark, found = f"{MARK}={folder}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_bytes().split(b"\0") and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def sweep(folder: str, seconds: float = 5.0) -> None:
    """Wait for the processes of a Ray of our own that was shut down; who stays, as a stopped one does, is killed."""
    until = time.monotonic() + seconds
    while (left := marked(folder)) and time.monotonic() < until:
        time.sleep(0.1)
    for pid in left:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


class Key(NamedTuple):
    """Where a run is to be joined."""

    address: str
    name: str
    token: str | None = None

    def told(self) -> dict[str, Any]:
        return {key: value for key, value in self._asdict().items() if value is not None}
