"""The file under the store: one SQLite database that survives a kill at any moment and many processes at once."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from toybench.config import ConfigError

APPLICATION = 0x746F7962  # "toyb": which program's database it is
TIMEOUT = 30.0  # seconds to wait for another process that writes

# Version n of the store becomes version n + 1 by the statements of the n-th entry. Never edited, only appended to.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        f"PRAGMA application_id = {APPLICATION}",
        "CREATE TABLE makers (id INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, document TEXT NOT NULL)",
        "CREATE TABLE configs (id INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, document TEXT NOT NULL)",
        # AUTOINCREMENT: the number of a run that was removed never becomes another's.
        """
        CREATE TABLE runs (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            config INTEGER NOT NULL REFERENCES configs,
            seed INTEGER NOT NULL,
            maker INTEGER NOT NULL REFERENCES makers,
            created TEXT NOT NULL,
            "commit" TEXT,
            seconds REAL NOT NULL,
            diverged INTEGER NOT NULL,
            final TEXT NOT NULL,
            simulated_time REAL NOT NULL,
            UNIQUE (config, seed, maker)
        )
        """,
        """
        CREATE TABLE curves (
            run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
            name TEXT NOT NULL,
            dtype TEXT NOT NULL,
            data BLOB NOT NULL,
            PRIMARY KEY (run, name)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE sweeps (
            name TEXT PRIMARY KEY,
            created TEXT NOT NULL,
            maker INTEGER NOT NULL REFERENCES makers,
            plan TEXT NOT NULL
        )
        """,
        """
        CREATE TABLE members (
            sweep TEXT NOT NULL REFERENCES sweeps ON DELETE CASCADE,
            config INTEGER NOT NULL REFERENCES configs,
            seed INTEGER NOT NULL,
            PRIMARY KEY (sweep, config, seed)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX members_of_config ON members (config, seed)",  # who else has a run
    ),
)


def canonical(document: Any) -> str:
    """JSON that is equal for equal documents."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Database:
    """The tables of `MIGRATIONS` in a file. Opening makes or migrates it; `writable=False` does neither and needs no
    right to write.

    Args:
        path: of the file.
        writable: whether anything is to be written.
        make: whether a file that is not there is made, with its folder.

    Raises:
        ConfigError: the file cannot be opened or written, is no store, or comes from a newer version.
    """

    def __init__(self, path: str | Path, *, writable: bool = True, make: bool = True):
        self.path, self.writable = Path(path), writable
        with self._told():
            self._connection = self._open(writable and make)
            try:
                version = self._version()
                if writable:
                    self._log_ahead()
                    self._migrate(version)
                    self._connection.execute("PRAGMA foreign_keys = ON")
                elif version < len(MIGRATIONS):
                    raise ConfigError("store", f"{str(self.path)!r} is empty or of the older version {version}")
            except BaseException:
                self._connection.close()
                raise

    def _open(self, make: bool) -> sqlite3.Connection:
        if make:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        elif not self.path.exists():
            raise ConfigError("store", f"{str(self.path)!r} is not there; `toybench sweep` makes one")
        if self.writable:
            return sqlite3.connect(self.path, timeout=TIMEOUT, isolation_level=None)
        uri = self.path.absolute().as_uri()
        # Not mode=ro: who may write tidies up behind itself. SQLite reads where it may not write.
        connection = sqlite3.connect(f"{uri}?mode=rw", timeout=TIMEOUT, isolation_level=None, uri=True)
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA user_version")
            return connection
        except sqlite3.OperationalError as error:
            connection.close()
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                raise
        # The log beside the file can neither be read nor made here. Without one the file is all there is.
        log = self.path.with_name(f"{self.path.name}-wal")
        if log.exists() and log.stat().st_size:
            raise ConfigError("store", f"{str(self.path)!r}: some runs are in {log.name}, which cannot be read here")
        return sqlite3.connect(f"{uri}?mode=ro&immutable=1", isolation_level=None, uri=True)

    def _version(self) -> int:
        """The version of the store; 0 of a new file."""
        # In this order: another process may be making the store, and does it all at once.
        tables = self._one("SELECT count(*) FROM sqlite_master")
        if tables and self._one("PRAGMA application_id") != APPLICATION:
            raise ConfigError("store", f"{str(self.path)!r} is a database of another program")
        version = self._one("PRAGMA user_version")
        if version > len(MIGRATIONS):
            raise ConfigError(
                "store", f"{str(self.path)!r} has version {version}; this toybench knows up to {len(MIGRATIONS)}"
            )
        return version

    def _log_ahead(self) -> None:
        """Write to a log beside the file: readers and a writer do not wait for each other, and a kill harms neither."""
        deadline = time.monotonic() + TIMEOUT
        while self._one("PRAGMA journal_mode") != "wal":
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                break  # a file system that cannot do it keeps its own mode
            except sqlite3.OperationalError as error:  # this one statement does not wait for other processes by itself
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self._connection.execute("PRAGMA synchronous = NORMAL")

    def _migrate(self, version: int) -> None:
        """Bring an older store up to date, whole or not at all."""
        if version == len(MIGRATIONS):
            return
        self._connection.execute("PRAGMA foreign_keys = OFF")  # a table made anew must not empty those that point to it
        with self.transaction():
            version = self._version()  # another process may have been here first
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            if broken := self._rows("PRAGMA foreign_key_check"):
                raise ConfigError("store", f"{str(self.path)!r}: migration breaks references of {broken[0][0]}")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            text = error.strerror if isinstance(error, OSError) else str(error)
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                text = f"another process has kept it locked for {TIMEOUT:g} s"
            raise ConfigError("store", f"{str(self.path)!r}: {text}") from None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written within is kept, or nothing of it."""
        with self._told():
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple]:
        with self._told():
            return self._connection.execute(query, values).fetchall()

    def _one(self, query: str, values: Sequence[Any] = ()) -> Any:
        rows = self._rows(query, values)
        return rows[0][0] if rows else None

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _shared(self, table: str, document: Any) -> int:
        """The number of a document that many runs share, put into its table if it is new."""
        text = canonical(document)
        self._connection.execute(
            f"INSERT INTO {table} (hash, document) VALUES (?, ?) ON CONFLICT (hash) DO NOTHING", (digest(text), text)
        )
        return self._one(f"SELECT id FROM {table} WHERE hash = ?", (digest(text),))

    def _found(self, table: str, document: Any) -> int | None:
        """The number of a document; None if it is not there."""
        return self._one(f"SELECT id FROM {table} WHERE hash = ?", (digest(canonical(document)),))
