"""What the README shows is run as it stands."""

import contextlib
import io
import json
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from experiments.readme import RECORD, with_tables
from toybench.arguments import configuration, read_seeds, read_where
from toybench.cli import build_parser
from toybench.commands.sweep import wanted
from toybench.loading import dump_run
from toybench.presets import load_preset, load_tuning, preset_names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MARKS = re.findall(r"^<!-- newcomer: (\w+) -->$", README, re.MULTILINE)


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


# Python


def run_block(number):
    """A block's namespace, and the lines that it printed."""
    namespace, printed = {"__name__": "__main__"}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(blocks("python")[number], f"README.md, block {number}", "exec"), namespace)
    return namespace, printed.getvalue().splitlines()


def numbers(text):
    return np.array([float(word) for word in re.findall(r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)", text)])


def test_there_are_two_blocks_of_python():
    assert len(blocks("python")) == README.count("```python") == 2


def test_a_task_of_ones_own():
    namespace, lines = run_block(0)
    assert len(lines) == 3
    for line, run in zip(lines, namespace["runs"]):
        rate, *losses = numbers(line)
        assert rate == run.outer.lr and len(losses) == 4
        assert np.isfinite(losses).all()
        # The loss printed for a run that diverged is that of the untrained model.
        assert (losses < 0.5 * namespace["result"].metrics["loss"][:, 0]).all()


def test_an_outer_method_of_ones_own():
    namespace, lines = run_block(1)
    untrained = namespace["result"].metrics["loss"][:, 0].mean()
    assert [line.split()[0] for line in lines] == ["mine", "adamw"]
    assert not namespace["result"].diverged.any()
    for line in lines:
        [loss] = numbers(line)
        assert 0 < loss < 0.95 * untrained  # which is what is printed for a run that diverged


# Commands


def commands():
    """Every `toybench` command of the shell blocks: comments, redirections and what comes before && left out."""
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    found = [" ".join(w[: w.index(">")] if ">" in w else w) for w in words if w and Path(w[0]).name == "toybench"]
    return found + re.findall(r"`(toybench \w[^`]*)`", README)


def test_there_are_commands():
    assert {command.split()[1] for command in commands()} == {
        "demo",
        "run",
        "timeline",
        "sweep",
        "records",
        "plot",
        "tune",
        "compare",
        "leaderboard",
        "methods",
        "presets",
        "scale",
    }


@pytest.mark.parametrize("command", commands())
def test_a_command_is_one(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my.toml").write_text(tomli_w.dumps(dump_run(load_preset("default"))))
    [spec] = blocks("toml")
    Path("my-sweep.toml").write_text(spec)
    arguments = command.split()[1:]
    if "--help" in arguments:
        with pytest.raises(SystemExit) as stopped:
            build_parser().parse_known(arguments)
        assert stopped.value.code == 0 and capsys.readouterr().out
        return
    parsed = build_parser().parse_known(arguments)
    assert parsed.command == arguments[0]
    if parsed.command in ("run", "timeline"):
        configuration(parsed)
    if parsed.command == "sweep" and not parsed.resume:
        runs, seeds, _ = wanted(parsed)
        assert len(runs) > 1 and len(seeds) > 1
    if "where" in parsed:
        read_where(parsed.where or [])
    if "seeds" in parsed:
        assert read_seeds(parsed.seeds)
    if "preset" in parsed:
        assert parsed.preset in preset_names()


def test_modules_run_by_python_are_there():
    modules = re.findall(r"python -m ([\w.]+)", README)
    assert modules
    for module in set(modules) - {"venv"}:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def test_the_presets_and_extras_named_are_those_there_are():
    [row] = re.findall(r"^\| `toybench/presets/` \| (.*) \|$", README, re.MULTILINE)
    assert sorted(re.findall(r"`([^`]+)`", row)) == sorted(preset_names())
    [extras] = re.findall(r"^Python 3.*Extras: ([^.]*)\.", README, re.MULTILINE | re.DOTALL)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(re.findall(r"`([^`]+)`", extras)) == set(project["optional-dependencies"])


def test_the_marks_of_newcomers_stand_before_one_line():
    assert MARKS == ["demo", "test"]
    for mark in MARKS:
        after = README.split(f"<!-- newcomer: {mark} -->\n")[1].splitlines()
        assert re.fullmatch(r"```\w*", after[0]) and after[2] == "```"
        assert after[1].strip() and not after[1].endswith("\\")


# What it points at


def links():
    targets = re.findall(r"\]\(([^)\s]+)\)", README)
    return [target.split("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]


def rooms():
    """Paths of the map: of its first column, later names beside the first; of its second, within the row's folder."""
    found = []
    for line in re.findall(r"^\| (`.*) \|$", README, re.MULTILINE):
        first, second = line.split(" | ", 1)
        names = re.findall(r"`([^`]+)`", first)
        folder = Path(names[0]) if names[0].endswith("/") else Path(names[0]).parent
        found += [names[0], *(str(folder / name) for name in names[1:])]
        found += [str(folder / name) for name in re.findall(r"`([^`]+(?:/|\.\w+))`", second)]
    return found


def test_the_map_is_found():
    assert len(links()) >= 3 and len(rooms()) > 20
    assert "toybench/timeline.py" in rooms() and "experiments/records" in rooms()


@pytest.mark.parametrize("path", dict.fromkeys(links()))
def test_a_link_resolves(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("path", dict.fromkeys(rooms()))
def test_a_room_of_the_map_is_there(path):
    assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).exists()


# The numbers that it shows


def test_the_tables_are_those_of_the_demo_on_record():
    document = json.loads(RECORD.read_text(encoding="utf-8"))
    assert with_tables(README, document) == README
    tuning = load_tuning("default")
    assert {m["method"]: m["lr"] for m in document["methods"]} == {
        arm: tuned["changes"]["outer.lr"] for arm, tuned in tuning["arms"].items()
    }
    assert not set(document["seeds"]) & {*tuning["seeds"], *tuning["chosen_on"]}
    assert read_seeds(build_parser().parse_known(["demo"]).seeds) == document["seeds"]
