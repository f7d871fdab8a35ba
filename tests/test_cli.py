"""The command line: what it prints, what it refuses, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from toybench.cli import main, read_seeds
from toybench.config import ConfigError
from toybench.outer import METHODS
from toybench.study import ARMS

FAST = ["--preset", "fast"]


def run_cli(*arguments, **options):
    command = [sys.executable, "-m", "toybench.cli", *map(str, arguments)]
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
    command = [sys.executable, "-m", "toybench.cli", "demo", "--preset", "fast", "--seeds", "2", "--out", str(tmp_path)]
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
    command = f"{sys.executable} -m toybench.cli timeline --preset fast --json | head -n 1"
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
