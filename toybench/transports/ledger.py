"""What a server must not forget, in a folder: now and then all of it, in between every event, before it is answered.

A server that dies is rebuilt by its last whole checkpoint and the events since; an answer is only given to what is on
the disk. Checkpoint n is followed by journal n, that by journal n + 1 while checkpoint n + 1 is still being written;
the one before the last is kept too, with the events since.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from toybench.config import ConfigError
from toybench.transports.frames import Frame, pack, read_frames

SYNC = getattr(os, "fdatasync", os.fsync)
LOCK = "lock"
WAIT = 10.0  # seconds for a process that was just killed to let go of the folder


class Ledger:
    """The ledger of one server in a folder of its own.

    Args:
        folder: made if it is not there.

    Raises:
        ConfigError: it cannot be written.
    """

    def __init__(self, folder: Path):
        self.folder, self._number = folder, -1
        self._journal: BinaryIO | None = None
        self._lock: Any = None
        with _told_of(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def hold(self) -> None:
        """Keep other servers from the folder until `close`.

        Raises:
            ConfigError: one is at work there, in this process or another.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / LOCK, timeout=WAIT, thread_local=False)
        with _told_of(self.folder):
            try:
                lock.acquire()
            except Timeout:  # an OSError too
                said = f"another process is at work in {str(self.folder)!r}"
                raise ConfigError("out", said) from None
        self._lock = lock

    @property
    def bytes(self) -> int:
        """On the disk."""
        return sum(path.stat().st_size for path in self.folder.glob("*-*"))

    def read(self) -> Iterator[Frame]:
        """The last whole checkpoint, then every event since; nothing where there is none.

        Raises:
            ConfigError: the folder cannot be read, or its journals are not whole up to the last.
        """
        with _told_of(self.folder, "read"):
            yield from self._frames()

    def _frames(self) -> Iterator[Frame]:
        found = self._last()
        if found is None:
            journals = [self._path("journal", n) for n in self._numbers("journal")]
            if self._numbers("checkpoint") or any(path.stat().st_size for path in journals):
                raise ConfigError("resume", f"{str(self.folder)!r} holds no whole checkpoint")
            return
        number, frame = found
        yield frame
        for path in self.folder.glob("new-*"):  # a checkpoint that was being written when the server died
            path.unlink()
        self._number, journals = number, [n for n in self._numbers("journal") if n >= number]
        for n in journals:
            path, end = self._path("journal", n), 0
            with open(path, "rb") as file:
                for read, frame in read_frames(file):
                    end = read
                    yield frame
            if end < path.stat().st_size and n < journals[-1]:
                raise ConfigError("resume", f"{str(path)!r} is damaged at byte {end}")
            with open(path, "r+b") as file:  # what was being written when the server died was never answered
                file.truncate(end)
            self._number = n

    def open(self) -> None:
        """Write on after what `read` gave."""
        with _told_of(self.folder):
            self._journal = self._opened(self._number)

    def append(self, told: dict[str, Any], arrays: Sequence[Any] = ()) -> None:
        """An event, on the disk when this returns.

        Raises:
            ConfigError: it cannot be written; the journal is as it was.
        """
        assert self._journal is not None
        end = self._journal.tell()
        try:
            for piece in pack(told, arrays):
                self._journal.write(piece)
            self._journal.flush()
            SYNC(self._journal.fileno())
        except OSError as error:
            self._undo(end)
            raise _told(self.folder, error) from None

    def _undo(self, end: int) -> None:
        """Never fails: nothing more is written after it but by a server that is begun again."""
        assert self._journal is not None
        with suppress(OSError):
            self._journal.close()  # what it still holds goes wherever it can
        with suppress(OSError), open(self._path("journal", self._number), "r+b") as file:
            file.truncate(end)
        with suppress(OSError):
            self._journal = self._opened(self._number)

    def roll(self) -> int:
        """Later events go to a new journal, to which the checkpoint belongs that is to be written; its number.

        Raises:
            ConfigError: it cannot be made.
        """
        with _told_of(self.folder):
            following = self._opened(self._number + 1)
            if self._journal is not None:
                self._journal.close()
            self._journal, self._number = following, self._number + 1
            sync_folder(self.folder)  # its name too is on the disk before anything in it is answered
        return self._number

    def keep(self, number: int, told: dict[str, Any] | str, arrays: Sequence[Any]) -> None:
        """The checkpoint of a number from `roll`, whole or not there; what came before the last two is then dropped.

        Raises:
            ConfigError: it cannot be written; what was there still is.
        """
        path, fresh = self._path("checkpoint", number), self.folder / f"new-{number}"
        try:
            with open(fresh, "wb") as file:
                for piece in pack(told, arrays):
                    file.write(piece)
                file.flush()
                SYNC(file.fileno())
            os.replace(fresh, path)
            sync_folder(self.folder)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink()
            raise _told(self.folder, error) from None
        before = max((n for n in self._numbers("checkpoint") if n < number), default=number)
        for kind in ("checkpoint", "journal"):
            for n in self._numbers(kind):
                if n < before:
                    self._path(kind, n).unlink()

    def close(self) -> None:
        """Let go of the journal, and of the folder."""
        if self._journal is not None:
            self._journal.close()
        if self._lock is not None:
            self._lock.release()

    def last(self) -> Frame | None:
        """The last whole checkpoint.

        Raises:
            ConfigError: the folder cannot be read.
        """
        with _told_of(self.folder, "read"):
            found = self._last()
        return None if found is None else found[1]

    def _last(self) -> tuple[int, Frame] | None:
        found = ((n, self._checkpoint(n)) for n in reversed(self._numbers("checkpoint")))
        return next(((n, frame) for n, frame in found if frame is not None), None)

    def _checkpoint(self, number: int) -> Frame | None:
        with open(self._path("checkpoint", number), "rb") as file:
            return next((frame for _, frame in read_frames(file)), None)

    def _numbers(self, kind: str) -> list[int]:
        names = [path.name.split("-")[1] for path in self.folder.glob(f"{kind}-*")]
        return sorted(int(name) for name in names if name.isdigit())

    def _opened(self, number: int) -> BinaryIO:
        return open(self._path("journal", number), "ab")

    def _path(self, kind: str, number: int) -> Path:
        return self.folder / f"{kind}-{number}"


@contextmanager
def _told_of(folder: Path, what: str = "write") -> Iterator[None]:
    """What goes wrong with a folder, in one line."""
    try:
        yield
    except OSError as error:
        raise _told(folder, error) if what == "write" else _unread(folder, error) from None


def _unread(folder: Path, error: OSError) -> ConfigError:
    return ConfigError("resume", f"cannot read {str(folder)!r}: {error.strerror or error}")


def _told(folder: Path, error: OSError) -> ConfigError:
    said = f"cannot write to {str(folder)!r}: {error.strerror or error}"
    return ConfigError("out", f"{said}; all that was answered is there, and --resume goes on")


def sync_folder(folder: Path) -> None:
    """Names of new files on the disk, where the system can say so."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
