"""The command line: what it prints, what it refuses, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from toybench.arguments import read_seeds
from toybench.cli import main
from toybench.config import ConfigError
from toybench.console import progress_bar
from toybench.interrupt import INTERRUPT
from toybench.outer import MARKS, METHODS
from toybench.study import ARMS

FAST = ["--preset", "fast"]


def run_cli(*arguments, **options):
    command = [sys.executable, "-m", "toybench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, **options)


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["run", "--cluster.gracee", "1"], ["cluster.gracee", "--cluster.grace"]),
        (["run", "--cluster.worker-speed", "1"], ["cluster.worker-speed", "unknown option"]),
        (["run", "--outer.method", "nesterof"], ["outer.method", "nesterof", "nesterov"]),
        (["run", "--inner.optimizer", "adam"], ["inner.optimizer", "'adam'", "adamw"]),
        (["run", "--outer.method", "sgd", "--outer.momentum", "0.5"], ["outer.momentum", "sgd has no such setting"]),
        (["run", "--cluster.local-steps", "five"], ["cluster.local_steps", "five", "whole number"]),
        (["run", "--cluster.local-steps", "2.5"], ["cluster.local_steps", "2.5", "whole number"]),
        (["run", "--cluster.local-steps", "0"], ["cluster.local_steps", "0"]),
        (["run", "--cluster.sec-per-step", "1", "0"], ["cluster.sec_per_step", "> 0", "0.0"]),
        (["run", "--cluster.sec-per-step", "1", "-2"], ["cluster.sec_per_step", "> 0", "-2.0"]),
        (["run", "--cluster.sec-per-step", "nan"], ["cluster.sec_per_step", "finite"]),
        (["run", "--cluster.sec-per-step"], ["cluster.sec-per-step", "expected"]),
        (["run", "--cluster.grace", "-1"], ["cluster.grace", ">= 0", "-1.0"]),
        (["run", "--cluster.barrier", "maybe"], ["cluster.barrier", "maybe"]),
        (["run", "--cluster.shards", "2000", *FAST], ["cluster.shards", "1024", "2000"]),
        (["run", "--outer.method", "delayed_nesterov", "--outer.period", "0"], ["outer.period", "0"]),
        (["run", "--outer.method", "delayed_nesterov", "--outer.activation", "1.5"], ["outer.activation", "1.5"]),
        (["run", "--outer.momentum", "1"], ["outer.momentum", "< 1"]),
        (["run", "--outer.scale", "2"], ["outer.scale", "'2'", "1/sqrt(k)"]),
        (["run", "--task.batch", "0"], ["task.batch", "0"]),
        (["run", "--budget.rounds", "-3"], ["budget.rounds", "-3"]),
        (["run", "--preset", "defaul"], ["preset", "defaul", "default"]),
        (["run", "--seeds", "x"], ["seeds", "x"]),
        (["run", "--seeds", "0"], ["seeds"]),
        (["run", "there-is-none.toml"], ["there-is-none.toml", "cannot be read"]),
        (["run", "--out", "/dev/null/x"], ["out", "/dev/null/x"]),
        (["timeline", "--seed", "-1"], ["seed", "-1"]),
        (["demo", "--seeds", "1"], ["seeds", "two"]),
        (["demo", "--seeds", "1000", "1"], ["seeds", "1000", "chosen"]),
        (["demo", "--preset", "notebook"], ["preset", "notebook", "tuned"]),
        (["presets", "nothing"], ["preset", "nothing"]),
        (["trian"], ["trian"]),
        (["run", "a.toml", "b.toml"], ["b.toml"]),
        (["run", "--seeds", "99999999999"], ["seeds", "at most", "99999999999"]),
        (["run", "--seeds", "0:" + "9" * 30], ["seeds", "at most"]),
        (["run", "--seeds", "5:2"], ["seeds", "'5:2'"]),
        (["run", "--seeds", "-3"], ["seeds", "'-3'"]),
        (["run", ""], ["file", "cannot be read"]),
        (["run", *FAST, "--budget.evaluations", "2000000000"], ["budget.evaluations", "2000000000"]),
        (["run", *FAST, "--task.dimension", "2000000000"], ["task", "GB"]),
        (["run", *FAST, "--task.hidden", "2147483647", "--task.dimension", "2147483647"], ["task", "GB"]),
        (["run", *FAST, "--outer.lr", "1e39"], ["outer.lr", "single precision"]),
        (["run", *FAST, "--outer.lr", "-1e-3"], ["outer.lr", ">= 0", "-0.001"]),
        (["run", "--cluster.sec-per-step", "1", "2", "my.toml"], ["cluster.sec_per_step", "a file stands before"]),
        (["run", *FAST, "--out", ""], ["out", "folder"]),
        (["timeline", "--limit", "-1"], ["limit", "-1"]),
        (["timeline", "--seed", "3000000000"], ["seed", "3000000000"]),
        ([], ["COMMAND"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, parts, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    printed = capsys.readouterr()
    assert exit.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("toybench: error: ") and printed.err.count("\n") == 1
    for part in parts:
        assert part in printed.err


@pytest.mark.parametrize(
    "text, part",
    [
        ("[cluster\n", "not valid TOML"),
        ("[cluster]\ngracee = 1\n", "cluster.gracee"),
        ("[clusters]\ngrace = 1\n", "clusters.grace"),
        ("cluster = 3\n", "cluster"),
        ('[cluster]\ngrace = "soon"\n', "soon"),
        ("[cluster]\nsec_per_step = []\n", "empty"),
        ("[cluster]\nbarrier = 1\n", "true or false"),
        ('[outer]\nmethod = "sgd"\nmomentum = 0.5\n', "outer.momentum"),
        ('[outer]\nlr = "0.1"\n', "run.toml: outer.lr: expected a number, got '0.1'"),
        ("[outer]\nlr = [0.1]\n", "expected a number"),
        ("outer = 3\n", "expected a table, got 3"),
        ("[cluster]\nsec-per-step = [1.0]\n", "sec_per_step"),
        ("[clustre]\n", "clustre"),
        ("description = 5\n", "description"),
    ],
)
def test_a_bad_file_is_one_line_and_status_2(text, part, tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(SystemExit) as exit:
        main(["timeline", str(path)])
    printed = capsys.readouterr()
    assert exit.value.code == 2
    assert part in printed.err and printed.err.count("\n") == 1


def test_bytes_that_are_no_text_are_refused(tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SystemExit):
        main(["timeline", str(path)])
    assert "not UTF-8" in capsys.readouterr().err


def test_flags_lie_over_the_file_over_the_preset(tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text("[cluster]\nsec_per_step = [1.0, 1.0]\nlocal_steps = 7\n")
    main(["timeline", str(path), *FAST, "--cluster.local-steps", "3", "--json"])
    arrivals = json.loads(capsys.readouterr().out)["arrivals"]
    assert {a["num_steps"] for a in arrivals} == {3}
    assert {a["worker"] for a in arrivals} == {0, 1}
    assert set(arrivals[0]) == {"time", "worker", "shard", "num_steps", "first_step", "staleness"}


def test_the_activation_of_the_papers_table_4_is_a_warning(capsys):
    main(["timeline", *FAST, "--outer.method", "delayed_nesterov", "--outer.period", "16", "--outer.activation", "0.1"])
    assert "warning" in capsys.readouterr().err


def test_every_preset_can_be_printed_and_read_back(tmp_path, capsys):
    main(["presets", "--json"])
    names = [entry["preset"] for entry in json.loads(capsys.readouterr().out)["presets"]]
    assert names[0] == "default" and {"fast", "notebook", "notebook-small"} <= set(names)
    for name in names:
        main(["presets", name])
        (tmp_path / "p.toml").write_text(capsys.readouterr().out)
        main(["timeline", str(tmp_path / "p.toml"), "--preset", "fast", "--json"])
        from_file = capsys.readouterr().out
        main(["timeline", "--preset", name, "--json"])
        assert capsys.readouterr().out == from_file


def test_methods_lists_every_formula(capsys):
    main(["methods", "--json"])
    listed = {entry["method"]: entry for entry in json.loads(capsys.readouterr().out)["methods"]}
    assert set(listed) == set(METHODS)
    assert all(entry["formula"] and entry["source"] and entry["defaults"] for entry in listed.values())
    assert {name: entry["mark"] for name, entry in listed.items()} == {name: m.mark for name, m in METHODS.items()}


def test_the_table_of_methods_says_how_each_was_read(capsys):
    main(["methods"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"{mark}: {meaning}" in shown for mark, meaning in MARKS.items())


def test_help_names_every_field_and_loads_no_jax():
    code = (
        "import sys; from toybench.cli import main\n"
        "try: main(['run', '--help'])\nexcept SystemExit: pass\n"
        "assert 'jax' not in sys.modules"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    for flag in ("--cluster.sec-per-step", "--outer.activation", "--inner.reset", "--budget.rounds", "--task.noise"):
        assert flag in shown.stdout
    assert "[s]" in shown.stdout


def test_run_prints_one_json_document(tmp_path, capsys):
    main(["run", *FAST, "--seeds", "2", "--json", "--out", str(tmp_path / "deep" / "folder")])
    document = json.loads(capsys.readouterr().out)
    assert [entry["seed"] for entry in document["seeds"]] == [0, 1]
    for entry in document["seeds"]:
        assert entry["diverged"] is False
        assert entry["final"]["loss"] == entry["curves"]["loss"][-1] < entry["curves"]["loss"][0]
        assert len(entry["curves"]["local_steps"]) == len(entry["curves"]["time"]) == 7
    assert json.loads((tmp_path / "deep" / "folder" / "run.json").read_text()) == document


def test_a_diverged_run_is_reported_without_nan(capsys):
    main(["run", *FAST, "--seeds", "2", "--outer.lr", "1e38", "--json"])
    text = capsys.readouterr().out
    assert "NaN" not in text and "Infinity" not in text
    assert all(entry["diverged"] for entry in json.loads(text)["seeds"])
    main(["run", *FAST, "--seeds", "1", "--outer.lr", "1e38"])
    assert "diverged" in capsys.readouterr().out


def test_demo_prints_one_json_document_and_a_figure(tmp_path, capsys):
    main(["demo", *FAST, "--seeds", "3", "--out", str(tmp_path), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert [f["id"] for f in document["findings"]] == [f"F{i}" for i in range(1, 9)]
    assert {f["status"] for f in document["findings"]} <= {"holds", "does not hold", "undecided"}
    assert [m["method"] for m in document["methods"]] == list(ARMS)
    reference = document["methods"][0]
    assert reference["gap"] == 0 and reference["reached_sync_loss"] == 3
    assert reference["time_to_sync_loss"] <= reference["simulated_time"]
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "demo.json").read_text())["complete"] is True


def test_an_interrupted_demo_keeps_what_is_finished(tmp_path):
    """SIGINT after the first method: status 130, no traceback, the finished methods on disk and nothing else."""
    command = [sys.executable, "-m", "toybench", "demo", "--preset", "fast", "--seeds", "2", "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "demo.json").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    kept = json.loads((tmp_path / "demo.json").read_text())
    assert "Traceback" not in errors
    assert process.returncode == 130
    assert 1 <= len(kept["records"]) < len(ARMS) and kept["complete"] is False
    assert os.listdir(tmp_path) == ["demo.json"]


def test_output_into_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m toybench timeline --preset fast --json | head -n 1"
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert shown.stderr == ""


@pytest.mark.parametrize(
    "text, seeds", [(["3"], [0, 1, 2]), (["10:13"], [10, 11, 12]), (["5", "2"], [5, 2]), (["7:8"], [7])]
)
def test_seeds_are_a_count_a_range_or_themselves(text, seeds):
    assert read_seeds(text) == seeds


@pytest.mark.parametrize("text", [["0"], ["5:5"], ["-1"], ["1", "1"], ["a"], ["1:b"], ["1", "3000000000"]])
def test_seeds_that_cannot_be(text):
    with pytest.raises(ConfigError):
        read_seeds(text)


# What a machine can do to a command


def test_a_full_disk_is_one_line():
    for command in (["presets"], ["methods"], ["timeline", *FAST, "--json"]):
        with open("/dev/full", "w") as full:
            ended = subprocess.run(
                [sys.executable, "-m", "toybench", *command], stdout=full, stderr=subprocess.PIPE, text=True
            )
        assert ended.returncode == 2
        assert ended.stderr == "toybench: error: output: No space left on device\n"


def test_a_record_that_cannot_be_written_is_one_line_after_the_results(tmp_path):
    (tmp_path / "run.json").mkdir()
    ended = run_cli("run", *FAST, "--seeds", "1", "--out", tmp_path)
    assert ended.returncode == 2 and "final loss" in ended.stdout
    assert ended.stderr == f"toybench: error: {tmp_path / 'run.json'}: Is a directory\n"
    assert "Traceback" not in ended.stderr and [p.name for p in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("closed", ["1>&-", "2>&-"])
def test_a_closed_stream_is_no_traceback(closed, tmp_path):
    command = f"{sys.executable} -m toybench timeline --preset fast --json {closed}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stderr == ""
    assert closed == "1>&-" or json.loads(ended.stdout)


def test_a_table_into_a_closed_pipe_is_no_error():
    command = f"set -o pipefail; {sys.executable} -m toybench timeline --preset fast --limit 10000 | true"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stderr == ""


@pytest.mark.parametrize(
    "name, value",
    [
        ("JAX_PLATFORMS", "nonsense"),
        ("JAX_ENABLE_X64", "banana"),
        ("TOYBENCH_CACHE", "/dev/null/x"),
        ("TOYBENCH_CACHE", "/dev/null/~nobody"),
    ],
)
def test_an_environment_that_cannot_be_is_one_line(name, value, tmp_path):
    for command in (["run", *FAST, "--seeds", "1"], ["demo", *FAST, "--seeds", "2"]):
        ended = run_cli(*command, "--out", tmp_path / "out", env=os.environ | {name: value})
        assert ended.returncode == 2 and ended.stdout == ""
        assert ended.stderr.count("\n") == 1 and name in ended.stderr and value in ended.stderr
        assert not (tmp_path / "out").exists()


def test_warnings_stay_warnings_whatever_python_is_told():
    odd = ["timeline", *FAST, "--outer.method", "delayed_nesterov", "--outer.period", "16", "--outer.activation", "0.1"]
    for told in ("error", "ignore"):
        ended = run_cli(*odd, env=os.environ | {"PYTHONWARNINGS": told})
        assert ended.returncode == 0 and ended.stderr.startswith("toybench: warning: outer.activation")


def test_an_interrupt_waits_for_a_step_only_where_something_is_kept(monkeypatch):
    """jax runs Python in callbacks of the garbage collector, where an exception is printed and forgotten."""
    monkeypatch.setattr(INTERRUPT, "asked", False)
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with INTERRUPT.held(), progress_bar(1) as progress:
        progress("training", 0.1)
        INTERRUPT()
        assert ended == []
        with pytest.raises(KeyboardInterrupt):
            progress("training", 0.1)
        INTERRUPT()  # a second one
        assert ended == [130]
    monkeypatch.setattr(INTERRUPT, "asked", False)
    INTERRUPT()
    assert ended == [130, 130]


@pytest.mark.parametrize("after", [0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0])
def test_an_interrupt_at_any_moment_ends_with_130_and_nothing_by_halves(after, tmp_path):
    """While jax is imported, compiles and trains; while Python itself starts nobody can answer."""
    command = [
        sys.executable,
        "-c",
        "import sys; print('begun', file=sys.stderr, flush=True); from toybench.__main__ import main; main()",
        "run",
        *FAST,
        *("--seeds", "20", "--budget.rounds", "4000", "--budget.evaluations", "500"),  # longer than any wait here
        "--json",
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline() == "begun\n"
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    assert printed == "" and not [*tmp_path.rglob("*.json*")]  # nothing by halves, and it was not simply finished
