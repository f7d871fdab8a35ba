"""The file under the store: made, migrated, shared by many processes, read where one may not write, or refused."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import toybench
from tests.test_store import BASE, MAKER, add, assert_same, config, made_up, refused, sound
from toybench import database
from toybench.database import APPLICATION, MIGRATIONS
from toybench.store import Store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "runs.sqlite"


@pytest.fixture
def store(path):
    with Store(path) as store:
        yield store


# Versions


def tables(path):
    with closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")
        return [name for (name,) in names], connection.execute("PRAGMA user_version").fetchone()[0]


def test_an_older_store_is_brought_up_to_date(store, path, monkeypatch):
    add(store, made_up(BASE, (0, 1)))
    store.close()
    remade = (  # a table made anew under its own name: references to it must survive
        "CREATE TABLE runs_2 AS SELECT * FROM runs",
        "DROP TABLE runs",
        next(s for s in MIGRATIONS[0] if "TABLE runs" in s),
        "INSERT INTO runs SELECT * FROM runs_2",
        "DROP TABLE runs_2",
    )
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, remade, ("CREATE TABLE more (x TEXT DEFAULT ';')",)))
    refused("older version 1", Store, path, writable=False)
    with Store(path) as store:
        assert_same(store.curves(BASE, [0, 1], MAKER), made_up(BASE, (0, 1)))
        assert store._one("PRAGMA foreign_keys") == 1
    with Store(path, writable=False) as store:
        assert len(store.list()) == 2
    assert tables(path)[1] == 3 and "more" in tables(path)[0] and sound(path)


@pytest.mark.parametrize("bad", ["CREATE TABEL x (y)", "DELETE FROM makers"], ids=["no SQL", "breaks references"])
def test_a_migration_that_fails_leaves_the_old_version(bad, store, path, monkeypatch):
    add(store, made_up(BASE))
    store.close()
    before = tables(path)
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE half (x)",), (bad,)))
    refused("store", Store, path)
    assert tables(path) == before and before[1] == 1
    monkeypatch.setattr(database, "MIGRATIONS", MIGRATIONS)
    with Store(path) as store:
        assert_same(store.curves(BASE, [0], MAKER), made_up(BASE))


def test_a_new_store_that_cannot_be_made_is_made_later(path, monkeypatch):
    monkeypatch.setattr(database, "MIGRATIONS", ((*MIGRATIONS[0], "nonsense"),))
    refused("store", Store, path)
    monkeypatch.setattr(database, "MIGRATIONS", MIGRATIONS)
    with Store(path) as store:
        assert store.list() == []


@pytest.mark.parametrize("writable", [True, False])
def test_a_newer_store_is_refused_and_left_alone(writable, store, path):
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")
    error = refused("store", Store, path, writable=writable)
    assert "version 7" in str(error) and f"up to {len(MIGRATIONS)}" in str(error)
    assert tables(path)[1] == 7


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("kind", ["text", "folder", "another program's", "cut off"])
def test_what_is_no_store_is_refused_and_left_alone(kind, writable, tmp_path):
    path = tmp_path / "runs.sqlite"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("no database\n" * 100)
    elif kind == "cut off":
        Store(path).close()
        path.write_bytes(path.read_bytes()[:5000])
    else:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE bookmarks (url)")
    before = None if kind == "folder" else path.read_bytes()
    refused("store: .*runs.sqlite", Store, path, writable=writable)
    assert before is None or path.read_bytes() == before
    assert kind == "cut off" or [p.name for p in tmp_path.iterdir()] == ["runs.sqlite"]


def test_an_empty_file_becomes_a_store_where_it_may(tmp_path):
    path = tmp_path / "runs.sqlite"
    path.touch()
    refused("empty", Store, path, writable=False)
    with Store(path) as store:
        assert store.list() == [] and store._one("PRAGMA application_id") == APPLICATION


def test_a_store_that_is_not_there(tmp_path):
    for options in ({"writable": False}, {"make": False}):
        refused("store: .*is not there", Store, tmp_path / "no" / "runs.sqlite", **options)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    refused("store", Store, tmp_path / "file" / "runs.sqlite")


@pytest.mark.parametrize("name", ["a b.sqlite", "what?.sqlite", "50%#.sqlite", "läufe.sqlite"])
def test_any_name_will_do(name, tmp_path):
    with Store(tmp_path / name) as store:
        add(store, made_up(BASE))
        with Store(tmp_path / name, writable=False) as reader:
            assert len(reader.list()) == 1
    assert [p.name for p in tmp_path.iterdir()] == [name]


# Many processes

WRITER = """
import sys
from tests.test_store import add, config, made_up
from toybench.store import Store
path, who, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print(flush=True)
input()
with Store(path) as store:
    for i in range(count):
        add(store, made_up(config(who * 1000 + i)), made_up(config(i)))
"""


def test_many_processes_make_fill_and_read_one_store(path):
    """All at once on a file that is not there yet; each adds its own runs and the same ones as the others."""
    count, command = 25, [sys.executable, "-c", WRITER, str(path)]
    root = Path(__file__).parent.parent
    writers = [
        subprocess.Popen([*command, str(w), str(count)], stdin=-1, stdout=-1, stderr=-1, text=True, cwd=root)
        for w in range(1, 4)
    ]
    for writer in writers:
        writer.stdout.readline()  # has loaded
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    seen = [0]
    while any(writer.poll() is None for writer in writers):
        with Store(path) as reader:
            seen.append(len(reader.list()))
    for writer in writers:
        assert (writer.communicate()[1], writer.returncode) == ("", 0)
    assert seen == sorted(seen)
    with Store(path) as store:
        assert len(store.list()) == 4 * count
        assert_same(store.curves(config(3), [0], MAKER), made_up(config(3)))
    assert sound(path)


def test_a_lock_that_lasts_is_one_line_and_readers_do_not_mind(store, path, monkeypatch):
    add(store, made_up(BASE))
    monkeypatch.setattr(database, "TIMEOUT", 0.1)
    with Store(path) as other, Store(path, writable=False) as reader, store.transaction():
        store._connection.execute("DELETE FROM runs")
        began = time.perf_counter()
        refused("store: .*another process", add, other, made_up(config(1)))
        assert time.perf_counter() - began < 5
        assert len(reader.list()) == len(other.list()) == 1
        with Store(path) as late:
            assert len(late.list()) == 1


def test_a_new_file_that_another_process_has_locked(path, monkeypatch):
    monkeypatch.setattr(database, "TIMEOUT", 0.1)
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        other.execute("CREATE TABLE x (y)")
        refused("store: .*another process", Store, path)
        refused("store: .*another process", Store, path, writable=False)


def test_a_store_without_a_log_waits_for_the_one_who_writes(store, path):
    """As a copy made by another program may be: switching it to a log is refused, not waited for, by SQLite itself."""
    store.close()
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.2, other.execute, ["COMMIT"])
        timer.start()
        with Store(path) as store:
            assert store._one("PRAGMA journal_mode") == "wal"
        timer.join()


def test_one_that_was_migrated_meanwhile_stays_as_it_is(path, monkeypatch):
    """Another process, of a newer version even, migrates between our look at the version and our lock."""
    Store(path).close()
    look = Store._version

    def late(self):
        version = look(self)
        if not self._connection.in_transaction:
            with closing(sqlite3.connect(path)) as other:
                other.execute("PRAGMA user_version = 9")
            return version
        return version

    monkeypatch.setattr(Store, "_version", late)
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE more (x)",)))
    refused("version 9", Store, path)
    assert tables(path)[1] == 9


# Where one may not write


@contextmanager
def nobody():
    """As a user who owns nothing, where this is root; permissions do not bind root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        if not os.access(Path(toybench.__file__), os.R_OK, effective_ids=True):
            pytest.skip("others may not read the package itself")
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def shared():
    """A folder that others can look into."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(folder)


def forbid(folder):
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)


def test_a_store_in_a_folder_of_others_is_read(shared):
    with Store(shared / "s") as store:
        add(store, made_up(BASE))
    forbid(shared)
    with nobody(), Store(shared / "s", writable=False) as store:
        assert_same(store.read([1])[0], made_up(BASE))
        refused("store", add, store, made_up(config(1)))
    with nobody():
        refused("store", Store, shared / "s")
        refused("store", Store, shared / "new")
    assert [p.name for p in shared.iterdir()] == ["s"]


def test_a_file_of_others_is_read_while_they_write(shared):
    with Store(shared / "s") as store:
        add(store, made_up(BASE))
        shared.chmod(0o555)
        with nobody(), Store(shared / "s", writable=False) as reader:
            assert len(reader.list()) == 1
            with_more = add(store, made_up(config(1))) if os.geteuid() == 0 else 0
            assert len(reader.list()) == 1 + with_more


def test_what_a_killed_writer_left_in_the_log_is_read_or_told(shared):
    with Store(shared / "s") as store:
        add(store, made_up(BASE))
        for name in ("killed", "copied"):
            (shared / name).mkdir()
            for end in ("", "-wal", "-shm")[: 3 if name == "killed" else 2]:
                shutil.copy(shared / f"s{end}", shared / name)
            forbid(shared / name)
    with nobody():
        with Store(shared / "killed" / "s", writable=False) as store:
            assert len(store.list()) == 1
        refused("some runs are in s-wal", Store, shared / "copied" / "s", writable=False)
    (shared / "copied").chmod(0o755)
    (shared / "copied" / "s").chmod(0o644)
    with Store(shared / "copied" / "s") as store:
        assert len(store.list()) == 1


def test_a_store_that_may_not_be_read(shared):
    Store(shared / "s").close()
    (shared / "s").chmod(0)
    with nobody():
        refused("store", Store, shared / "s", writable=False)
