"""The store: what goes in comes out bit for bit, whole or not at all; what it is asked for, and what it removes."""

import json
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toybench.config import ConfigError
from toybench.curves import Curves
from toybench.database import canonical
from toybench.loading import dump_run, overlay
from toybench.presets import load_preset
from toybench.store import Call, Plan, Store

BASE = load_preset("fast")
MAKER = {"code": "c0de", "jax": "0"}
OTHER = {"code": "other", "jax": "0"}


def config(i):
    return overlay(BASE, {"outer.lr": 0.01 * (i + 1)})


def made_up(run, seeds=(0,), *, points=4, first=2.0, last=1.0):
    """Curves with numbers of their own, the loss from `first` to `last`."""
    rng = np.random.default_rng([round(1e6 * run.outer.lr), *seeds])
    loss = rng.normal(size=(len(seeds), points)).astype(np.float32)
    loss[:, 0], loss[:, -1] = first, last
    steps = np.tile(np.arange(points) * 8, (len(seeds), 1))
    metrics = {"loss": loss, "accuracy": rng.random((len(seeds), points)).astype(np.float32)}
    return Curves(run, tuple(seeds), steps, rng.random((len(seeds), points)), metrics)


def add(store, *results, maker=MAKER):
    return store.add(results, maker, seconds=0.5, commit="abc")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "runs.sqlite"


@pytest.fixture
def store(path):
    with Store(path) as store:
        yield store


def equal(a, b):
    """Whether two arrays are the same, bit for bit."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def assert_same(a, b):
    assert a.run == b.run and a.seeds == b.seeds and a.metrics.keys() == b.metrics.keys()
    assert equal(a.local_steps, b.local_steps) and equal(a.time, b.time)
    assert all(equal(a.metrics[name], b.metrics[name]) for name in a.metrics)


def refused(pattern, job, *arguments, **options):
    """The one line that something is refused with."""
    with pytest.raises(ConfigError, match=pattern) as error:
        job(*arguments, **options)
    assert "\n" not in str(error.value)
    return error.value


def sound(path):
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchall()
        return found == [("ok",)] and not connection.execute("PRAGMA foreign_key_check").fetchall()


# In and out


@settings(max_examples=20)
@given(
    data=st.lists(st.floats(width=32), min_size=2, max_size=6),
    dtype=st.sampled_from(["f4", "f8"]),
)
def test_curves_come_back_bit_for_bit(data, dtype):
    loss = np.array([data], dtype)
    curves = Curves(BASE, (7,), np.arange(len(data))[None], np.linspace(0, 1, len(data))[None], {"loss": loss})
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "s") as store:
        add(store, curves)
        assert_same(store.curves(BASE, [7], MAKER), curves)
        assert_same(store.read([1])[0], curves)
        final = store.describe(1)["final"]["loss"]
        assert final is None if not np.isfinite(data[-1]) else np.dtype(dtype).type(final) == loss[0, -1]
        json.dumps([*store.list(), store.describe(1)], allow_nan=False)


def test_seeds_are_kept_each_for_itself_and_given_in_the_order_asked(store):
    whole = made_up(BASE, (3, 1, 2))
    assert add(store, whole) == 3
    back = store.curves(BASE, [2, 3], MAKER)
    assert back.seeds == (2, 3)
    assert equal(back.metrics["loss"], whole.metrics["loss"][[2, 0]])
    assert store.present(BASE, MAKER).keys() == {1, 2, 3}
    assert store.present(BASE, OTHER) == store.present(config(5), MAKER) == {}


def test_what_is_there_is_kept_as_it_is(store):
    first, second = made_up(BASE, (0,)), made_up(BASE, (0, 1), last=0.5)
    assert [add(store, first), add(store, second), add(store, second)] == [1, 1, 0]
    assert_same(store.curves(BASE, [0], MAKER), first)
    assert add(store, second, maker=OTHER) == 2 and len(store.list()) == 4


def test_what_is_not_there_is_one_line(store):
    add(store, made_up(BASE, (0,)))
    assert "seed 4" in str(refused("run", store.curves, BASE, [0, 4], MAKER))
    for job in (store.read, lambda numbers: store.describe(numbers[0])):
        assert "no run 9" in str(refused("run", job, [9]))
    for job in (store.plan, store.runs_of, store.remove_sweep, lambda name: store.list(sweep=name)):
        assert "there: none" in str(refused("sweep: there is no 'a'", job, "a"))


def test_a_batch_is_kept_whole_or_not_at_all(store):
    def results():
        yield made_up(config(0))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.add(results(), MAKER, seconds=1, commit=None)
    assert store.list() == [] and store._one("SELECT count(*) FROM makers") == 0
    assert add(store, made_up(config(0))) == 1  # no transaction was left open


def test_a_full_disk_keeps_what_was_there(store, path):
    add(store, made_up(config(0)))
    pages = store._one("PRAGMA page_count")
    store._connection.execute(f"PRAGMA max_page_count = {pages + 4}")
    refused("store: .*full", add, store, *(made_up(config(i), range(9), points=200) for i in range(1, 9)))
    assert len(store.list()) == 1
    store._connection.execute("PRAGMA max_page_count = 100000")
    assert add(store, made_up(config(1))) == 1
    store.close()
    assert sound(path)


# List


@pytest.fixture
def listed(store):
    """Six runs: three rates on two seeds, the last rate diverged to NaN; and two synchronous ones of other speeds."""
    add(store, *(made_up(config(i), (0, 1), last=3 - i) for i in range(2)))
    add(store, made_up(config(2), (0, 1), last=np.nan))
    slow = overlay(BASE, {"cluster.barrier": True, "cluster.sec_per_step": [1.0, 2.0], "outer.method": "sgd"})
    add(store, made_up(slow, (0, 1), last=0.5))
    return store


def test_rows(listed):
    rows = listed.list(columns=["outer.lr", "accuracy", "cluster.barrier", "cluster.sec_per_step", "outer.momentum"])
    assert [row["run"] for row in rows] == list(range(1, 9))
    assert [row["loss"] for row in rows] == [3, 3, 2, 2, None, None, 0.5, 0.5]
    assert [row["diverged"] for row in rows] == [True, True, False, False, True, True, False, False]
    assert rows[-1]["cluster.barrier"] is True and rows[-1]["cluster.sec_per_step"] == [1.0, 2.0]
    assert rows[-1]["outer.momentum"] is None and rows[0]["outer.momentum"] == BASE.outer.momentum
    assert rows[0]["accuracy"] == pytest.approx(listed.read([1])[0].metrics["accuracy"][0, -1])
    assert listed.count() == 8 and listed.metrics() == ["accuracy", "loss"]
    assert canonical(dump_run(config(1))) in map(canonical, listed.configurations())


@pytest.mark.parametrize(
    "where, runs",
    [
        ({"outer.lr": 0.02}, [3, 4]),
        ({"outer.lr": 0.02, "cluster.barrier": True}, []),
        ({"cluster.barrier": True}, [7, 8]),
        ({"cluster.barrier": False}, [1, 2, 3, 4, 5, 6]),
        ({"outer.method": "sgd"}, [7, 8]),
        ({"cluster.sec_per_step": [1.0, 2.0]}, [7, 8]),
        ({"cluster.local_steps": 6.0}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"cluster.local_steps": "6"}, []),
        ({"outer.momentum": None}, [7, 8]),
        ({"inner.decay_steps": None, "outer.lr": 0.01}, [1, 2]),
        ({}, [1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_where(where, runs, listed):
    assert [row["run"] for row in listed.list(where=where)] == runs
    assert listed.count(where=where) == len(runs)


def test_order_and_limit(listed):
    def order(name, **more):
        return [row["run"] for row in listed.list(order=name, **more)]

    assert order("loss") == [7, 8, 3, 4, 1, 2, 5, 6]  # what is lacking comes last
    assert order("seed") == [1, 3, 5, 7, 2, 4, 6, 8]
    assert order("outer.lr", columns=["outer.lr"], limit=3) == [1, 2, 3]
    assert order("accuracy", columns=["accuracy"]) == sorted(
        range(1, 9), key=lambda n: listed.describe(n)["final"]["accuracy"]
    )
    assert order("loss", limit=0) == []


@pytest.mark.parametrize(
    "options, name",
    [
        ({"order": "lss"}, "sort"),
        ({"limit": -1}, "limit"),
        ({"limit": 2**70}, "limit"),
        ({"columns": ["a.b') --"]}, "columns"),
        ({"where": {"lr": 1}}, "where"),
        ({"where": {"outer.lr' OR 1": 1}}, "where"),
    ],
)
def test_a_list_that_cannot_be(options, name, listed):
    assert refused(name, listed.list, **options).name == name


# Sweeps and removal


def plan(name, indices, seeds=(0, 1)):
    runs = [config(i) for i in indices]
    return Plan(name, runs, tuple(seeds), [Call((i,), tuple(seeds), 1) for i in range(len(runs))])


def test_a_plan_comes_back(store):
    store.begin(plan("a", range(5)), MAKER)
    assert store.plan("a") == (plan("a", range(5)), MAKER)
    refused("sweep: 'a' is there already", store.begin, plan("a", range(2)), MAKER)
    store.extend(plan("a", range(7)), MAKER)
    assert store.plan("a")[0] == plan("a", range(7))
    assert "there: a" in str(refused("sweep", store.plan, "b"))


def test_sweeps_count_their_own_runs(store):
    store.begin(plan("a", range(3)), MAKER)
    store.begin(plan("b", range(2, 4)), OTHER)
    add(store, made_up(config(2), (0, 1, 2)))
    assert [(s["sweep"], s["runs"], s["done"]) for s in store.sweeps()] == [("a", 6, 2), ("b", 4, 0)]
    assert store.runs_of("a") == [1, 2] == [row["run"] for row in store.list(sweep="a")]
    assert store.list(sweep="b") == []
    assert store.describe(1)["sweeps"] == ["a"] and store.describe(3)["sweeps"] == []


def test_runs_are_removed_with_all_that_only_they_used(store):
    add(store, made_up(config(0), (0, 1)))
    add(store, made_up(config(1)), maker=OTHER)
    assert store.remove([2, 3, 99]) == 2
    assert [row["run"] for row in store.list()] == [1]
    counts = [store._one(f"SELECT count(*) FROM {table}") for table in ("curves", "configs", "makers")]
    assert counts == [4, 1, 1]
    add(store, made_up(config(1)))
    assert [row["run"] for row in store.list()] == [1, 4]  # a number never becomes another run's


def test_a_sweep_is_removed_with_the_runs_that_no_other_has(store):
    store.begin(plan("a", range(3)), MAKER)
    store.begin(plan("b", range(2, 4)), MAKER)
    store.begin(plan("c", range(3)), OTHER)
    add(store, *(made_up(config(i), (0, 1)) for i in range(4)))
    assert store.runs_of("a", alone=True) == [1, 2, 3, 4]
    assert store.remove_sweep("a") == 4
    assert [s["sweep"] for s in store.sweeps()] == ["b", "c"]
    assert len(store.list(sweep="b")) == 4 and store.plan("c")[0].runs == plan("c", range(3)).runs
    assert store.remove_sweep("c") == 0 and store.remove_sweep("b") == 4
    assert [store._one(f"SELECT count(*) FROM {t}") for t in ("runs", "members", "configs", "makers")] == [0, 0, 0, 0]
