"""`toybench records`: what it prints, writes and removes, and what it refuses."""

import csv
import json
import subprocess
import sys
import tomllib

import numpy as np
import pytest

from tests.test_database import forbid, nobody, shared  # noqa: F401
from tests.test_store import BASE, MAKER, OTHER, add, config, made_up, plan
from toybench.cli import main
from toybench.loading import dump_run, load_run, overlay
from toybench.store import Store

SYNC = overlay(BASE, {"cluster.barrier": True, "cluster.sec_per_step": [1.0, 2.0], "outer.method": "sgd"})


@pytest.fixture
def path(tmp_path):
    """Sweep a of runs 1 to 4, sweep b of 3 to 6, which diverged to NaN, and two synchronous runs of no sweep."""
    path = tmp_path / "runs.sqlite"
    with Store(path) as store:
        store.begin(plan("a", [0, 1]), MAKER)
        store.begin(plan("b", [1, 2, 3]), MAKER)
        add(store, made_up(config(0), (0, 1), last=0.7), made_up(config(1), (0, 1), last=0.5))
        add(store, made_up(config(2), (0, 1), last=np.nan))
        add(store, made_up(SYNC, (0, 1), last=0.25), maker=OTHER)
    return path


@pytest.fixture
def records(path, capsys):
    """Call the command; status, standard output and the lines of standard error."""

    def call(*arguments):
        try:
            status = main(["records", *map(str, arguments), "--store", str(path)])
        except SystemExit as exit:
            status = exit.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err.splitlines()

    return call


def document(answer):
    """The one JSON document of a call that went well; NaN is not JSON."""
    status, out, err = answer
    assert (status, err) == (0, [])
    return json.loads(out, parse_constant=lambda name: pytest.fail(name))


def listed(records, *arguments):
    return [row["run"] for row in document(records(*arguments, "--json"))["runs"]]


# List


@pytest.mark.parametrize("action", [[], ["list"]])
def test_a_list(action, records):
    rows = document(records(*action, "--json"))["runs"]
    assert [row["run"] for row in rows] == list(range(1, 9))
    assert rows[0]["outer.lr"] == 0.01 and rows[0]["loss"] == 0.7 and rows[4]["loss"] is None
    assert rows[4]["diverged"] is True and rows[-1]["cluster.sec_per_step"] == [1.0, 2.0]
    status, out, err = records(*action)
    assert status == 0 and err == [] and "8 of 8 runs" in out and "diverged" in out and "1.0 2.0" in out


@pytest.mark.parametrize(
    "arguments, runs",
    [
        (["--sweep", "a"], [1, 2, 3, 4]),
        (["--sweep", "b"], [3, 4, 5, 6]),
        (["--sweep", "b", "--where", "outer.lr=0.02"], [3, 4]),
        (["--where", "outer.lr=2e-2"], [3, 4]),
        (["--where", "outer.method=sgd", "cluster.barrier=true"], [7, 8]),
        (["--where", "outer.method=sgd", "--where", "cluster.barrier=false"], []),
        (["--where", "cluster.sec-per-step=1 2"], [7, 8]),
        (["--where", "outer.momentum=none"], [7, 8]),
        (["--where", "cluster.local_steps=6"], [1, 2, 3, 4, 5, 6, 7, 8]),
        (["--sort", "loss", "--limit", "3"], [7, 8, 3]),
        (["--sort", "seed", "--limit", "2"], [1, 3]),
        (["--sort", "simulated-time", "--limit", "0"], []),
        (["--sort", "outer.lr", "--columns", "accuracy", "--limit", "1"], [1]),
    ],
)
@pytest.mark.parametrize("action", [[], ["list"]])
def test_choosing(action, arguments, runs, records):
    assert listed(records, *action, *arguments) == runs
    if "--where" not in arguments:  # which would take the action for another condition
        assert listed(records, *arguments, *action) == runs


def test_columns(records):
    [row] = document(records("--columns", "accuracy", "cluster.barrier", "loss", "--limit", "1", "--json"))["runs"]
    assert row["cluster.barrier"] is False and 0 <= row["accuracy"] <= 1 and "outer.lr" not in row
    assert "2 of 8 runs; --limit N shows more" in records("--limit", "2")[1]


def test_sweeps(records):
    rows = document(records("sweeps", "--json"))["sweeps"]
    assert [(row["sweep"], row["runs"], row["done"]) for row in rows] == [("a", 4, 4), ("b", 6, 4)]
    assert "runs wanted" in records("sweeps")[1]


# Show


def test_a_run_is_shown_as_a_file_that_gives_it_back(records, path):
    status, out, _ = records("show", 7)
    assert status == 0 and load_run(tomllib.loads(out)) == SYNC
    said = [line for line in out.splitlines() if line.startswith("#")]
    assert "run 7, seed 0" in said[0] and any("code other" in line for line in said)
    assert "not finite" in records("show", 5)[1] and "sweeps: a, b" in records("show", 3)[1]
    found = document(records("show", 5, "--json"))
    assert found["run"] == dump_run(config(2)) and found["sweeps"] == ["b"] and found["maker"] == MAKER
    assert found["number"] == 5 and found["final"]["loss"] is None and found["commit"] == "abc"
    with Store(path) as store:
        [curves] = store.read([5])
    np.testing.assert_array_equal(found["curves"]["time"], curves.time[0])
    assert found["curves"]["loss"][-1] is None
    assert np.float32(found["curves"]["accuracy"]).tobytes() == curves.metrics["accuracy"][0].tobytes()


# Export


def test_a_table_of_runs(records, tmp_path):
    file = tmp_path / "runs.csv"
    said = document(records("export", file, "--json"))
    rows = list(csv.DictReader(file.open(newline="")))
    assert said["rows"] == len(rows) == 8 and said["columns"] == list(rows[0])
    assert [row["loss"] for row in rows] == ["0.7", "0.7", "0.5", "0.5", "", "", "0.25", "0.25"]
    assert rows[7]["cluster.sec_per_step"] == "1.0 2.0" and rows[7]["cluster.barrier"] == "true"
    assert rows[7]["outer.momentum"] == "" and float(rows[0]["outer.momentum"]) == BASE.outer.momentum
    assert records("export", "--sweep", "a", "--where", "outer.lr=0.01", "--json", file)[0] == 0
    assert [row["run"] for row in csv.DictReader(file.open(newline=""))] == ["1", "2"]


def test_a_table_of_curves(records, tmp_path, path):
    file = tmp_path / "curves.csv"
    assert document(records("export", file, "--curves", "--sweep", "b", "--json"))["rows"] == 16
    rows = list(csv.DictReader(file.open(newline="")))
    assert list(rows[0]) == ["run", "seed", "local_steps", "time", "accuracy", "loss"]
    with Store(path) as store:
        for number in (3, 4, 5, 6):
            [curves] = store.read([number])
            own = [row for row in rows if row["run"] == str(number)]
            assert [float(row["time"]) for row in own] == curves.time[0].tolist()
            loss = np.float32([row["loss"] for row in own])
            np.testing.assert_array_equal(loss, curves.metrics["loss"][0])


def test_nothing_chosen_is_a_table_of_nothing(records, tmp_path):
    for more in ([], ["--curves"]):
        file = tmp_path / "none.csv"
        assert document(records("export", file, *more, "--json", "--where", "outer.lr=5"))["rows"] == 0
        assert file.read_text().startswith("run")


def test_parquet(records, tmp_path, path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert records("export", tmp_path / "runs.parquet")[0] == 0
    table = parquet.read_table(tmp_path / "runs.parquet").to_pydict()
    assert table["loss"] == [0.7, 0.7, 0.5, 0.5, None, None, 0.25, 0.25]
    assert table["cluster.sec_per_step"][7] == [1.0, 2.0] and table["cluster.barrier"][7] is True
    assert records("export", tmp_path / "curves.parquet", "--curves")[0] == 0
    assert len(parquet.read_table(tmp_path / "curves.parquet")["loss"]) == 32


def test_parquet_without_pyarrow_is_one_line(records, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, out, err = records("export", tmp_path / "runs.parquet")
    assert (status, out, len(err)) == (2, "", 1) and "toybench[parquet]" in err[0]
    assert not (tmp_path / "runs.parquet").exists()


def test_an_export_that_fails_leaves_the_old_file(records, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    status, _, err = records("export", tmp_path / "folder.csv")
    assert status == 2 and len(err) == 1
    status, _, err = records("export", tmp_path / "no" / "folder" / "x.csv")
    assert status == 2 and len(err) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.csv", "runs.sqlite"]


# Remove


def test_nothing_is_removed_without_yes(records, path):
    before = path.read_bytes()
    assert records("remove", 1, 2)[1] == "would remove 2 runs; --yes does it\n"
    assert "the sweep a and 2 runs that no other has" in records("remove", "--sweep", "a")[1]
    said = document(records("remove", "--sweep", "a", "--json"))
    assert said == {"sweep": "a", "runs": [1, 2], "removed": False}
    assert path.read_bytes() == before


def test_runs_and_sweeps_are_removed(records):
    assert document(records("remove", "--yes", 8, "--json")) == {"sweep": None, "runs": [8], "removed": True}
    assert records("remove", "--sweep", "a", "--yes")[0] == 0
    assert listed(records) == [3, 4, 5, 6, 7]
    status, _, err = records("remove", 3, 1, "--yes")
    assert status == 2 and "no run 1 " in err[0] and listed(records) == [3, 4, 5, 6, 7]


def test_a_sweep_that_is_being_made_is_not_removed(records, path):
    from toybench.sweep import only_one

    with Store(path) as store, only_one(store, "a"):
        status, _, err = records("remove", "--sweep", "a", "--yes")
    assert status == 2 and "made by another process" in err[0] and len(listed(records)) == 8


# What cannot be


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["--where", "outer.lr"], "where: expected KEY=VALUE"),
        (["--where", "outer.lr= "], "where: expected KEY=VALUE"),
        (["--where", "outer.lrr=1"], "did you mean 'outer.lr'"),
        (["--where", "lr=1"], "lr: unknown key; sections"),
        (["--where", "outer.lr=fast"], "outer.lr: expected a number, got 'fast'"),
        (["--where", "cluster.barrier=1"], "cluster.barrier: expected true or false"),
        (["--where", "outer.lr=1", "outer.lr=2"], "outer.lr is given twice"),
        (["--columns", "outer.lrr"], "outer.lrr: unknown key"),
        (["--columns", "accuracyy"], "no run has a metric 'accuracyy'; there: accuracy, loss"),
        (["--sort", "lss"], "sort: must be one of"),
        (["--sort", "outer.lrr"], "outer.lrr: unknown key"),
        (["--limit", "-1"], "limit: must be >= 0"),
        (["--limit", "x"], "--limit"),
        (["--sweep", "c"], "sweep: there is no 'c'"),
        (["--limt=3"], "did you mean --limit?"),
        (["nonsense"], "nonsense"),
        (["show"], "RUN"),
        (["show", "x"], "run: expected the number of a run, got 'x'"),
        (["show", "0"], "run: expected the number of a run"),
        (["show", "9" * 30], "run: expected the number of a run"),
        (["show", "²"], "run: expected the number of a run"),
        (["show", "99"], "no run 99"),
        (["show", "1", "--crves"], "--crves: unknown option"),
        (["--limit", "3", "show", "1"], "limit: is no option of `toybench records show`"),
        (["--yes"], "yes: is no option of `toybench records list`"),
        (["export"], "FILE"),
        (["export", "runs.txt"], "expected FILE.csv or FILE.parquet"),
        (["remove"], "expected numbers of runs, or --sweep NAME"),
        (["remove", "1", "--sweep", "a"], "expected numbers of runs, or --sweep NAME"),
        (["remove", "--sweep", "c", "--yes"], "sweep: there is no 'c'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, part, records):
    status, out, err = records(*arguments)
    assert (status, out, len(err)) == (2, "", 1) and err[0].startswith("toybench: error: ") and part in err[0]


def test_a_store_that_is_not_there_is_not_made(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for action in ([], ["sweeps"], ["show", "1"], ["export", "x.csv"], ["remove", "1"], ["remove", "1", "--yes"]):
        with pytest.raises(SystemExit):
            main(["records", *action])
        printed = capsys.readouterr()
        assert "'results/runs.sqlite' is not there" in printed.err and printed.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_empty_store(tmp_path, capsys):
    Store(tmp_path / "s").close()
    for action in ([], ["list", "--json"], ["sweeps"], ["export", str(tmp_path / "x.csv")]):
        assert main(["records", *action, "--store", str(tmp_path / "s")]) == 0
    assert "0 of 0 runs" in capsys.readouterr().out


def test_others_may_read(shared, capsys):  # noqa: F811
    with Store(shared / "s") as store:
        add(store, made_up(BASE))
    forbid(shared)
    with nobody():
        for action in (["list"], ["sweeps"], ["show", "1"]):
            assert main(["records", *action, "--json", "--store", str(shared / "s")]) == 0
            assert json.loads(capsys.readouterr().out)
        with pytest.raises(SystemExit):
            main(["records", "remove", "1", "--yes", "--store", str(shared / "s")])
        assert capsys.readouterr().err.count("\n") == 1


def test_a_run_of_other_settings_is_still_shown(records, path):
    """As one that was made by a toybench with a setting that this one has no more."""
    with Store(path) as store, store.transaction():
        store._connection.execute("UPDATE configs SET document = json_set(document, '$.outer.warmth', 3) WHERE id = 1")
    assert tomllib.loads(records("show", 1)[1])["outer"]["warmth"] == 3
    assert document(records("show", 1, "--json"))["run"]["outer"]["warmth"] == 3
    assert len(listed(records)) == 8


def test_it_loads_no_jax(path):
    code = (
        "import sys; from toybench.cli import main\n"
        "main(['records', '--store', sys.argv[1]]); print('jax' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert ended.stdout.endswith("False\n"), ended.stderr
