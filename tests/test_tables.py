"""The paper's tables on a small language model: cells, claims, and one tiny run of all of it."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("flax")
from experiments import tables as room
from experiments.tables_cells import (
    ACTIVE,
    ARMS,
    FINETUNE,
    PAPER,
    REMEDY,
    STALE,
    SYNCHRONOUS,
    WORKERS,
    Cell,
    Claim,
    Lab,
    at,
    claims,
    gap,
    tables,
)
from lm.config import TWIN
from tests.corpora import SMALL, refused
from toybench.clusters import LEVELS
from toybench.config import Budget, Cluster, InnerAdamW, Run
from toybench.curves import Curves
from toybench.leaderboard import Seeds
from toybench.outer import METHODS
from toybench.statistics import Interval

BASE = Run(
    replace(TWIN, data="/somewhere/of/ones/own"),
    Cluster(sec_per_step=(0.58, 0.75, 1.51, 3.33), local_steps=6),
    InnerAdamW(lr=1e-2),
    METHODS["nesterov"].settings(lr=0.5),
    Budget(rounds=8, evaluations=2),
)
LARGER = replace(BASE, task=replace(BASE.task, width=32))
SEEDS = Seeds((1000,), (), (200, 201, 202))
INFINITE = float("inf")


def curves(*losses):
    """Curves of which only the ends matter."""
    ends = np.array(losses, float)
    grid = np.tile(np.arange(2.0), (len(ends), 1))
    return Curves(BASE, tuple(range(len(ends))), grid.astype(int), grid, {"loss": np.stack([ends + 1, ends], 1)})


COLUMNS = {"heterogeneity": [*LEVELS], "workers": [f"k = {w}" for w in WORKERS]}


def cell(*perplexities, rate=0.4, on_edge=False):
    """Of a nan the run diverged."""
    return Cell(curves(*np.log(perplexities)), rate, on_edge)


def made_up(asked=None):
    """A measure: the loss of a run follows from its settings, its rate and the seed."""

    def measure(runs, seeds):
        found = []
        for run in runs:
            if asked is not None:
                asked.append((run, tuple(seeds)))
            off = abs(np.log2(run.outer.lr / 0.4)) / 50 + 0.01 * run.cluster.dynamic_steps
            found.append(curves(*(1.5 + off + 0.1 * (seed % 7) for seed in seeds)))
        return found

    return lambda model: measure


# Cells


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("workers", (1, 2, *WORKERS))
def test_every_column_has_as_many_tokens(workers, level):
    one = at(BASE, workers, level)
    assert one.cluster.workers == workers
    assert one.budget.total_steps(one.cluster) == BASE.budget.total_steps(BASE.cluster)
    assert replace(one, cluster=BASE.cluster, budget=BASE.budget) == BASE


@pytest.mark.parametrize("workers", WORKERS)
def test_tokens_are_as_many_to_a_whole_round(workers):
    base = replace(BASE, budget=replace(BASE.budget, rounds=33))
    one = at(base, workers, "very")
    less = base.budget.total_steps(base.cluster) - one.budget.total_steps(one.cluster)
    assert 0 <= less < workers * base.cluster.local_steps


def test_a_run_too_short_for_a_round_of_so_many_workers_is_refused():
    """It had a round, and so more tokens than the others."""
    short = replace(BASE, budget=replace(BASE.budget, rounds=3))
    assert at(short, 8, "very").budget.rounds == 1
    refused(lambda: at(short, 16, "very"), "rounds: must be 4 or more for a round of 16 workers")


def test_what_does_not_feel_speeds_is_trained_once():
    asked = []
    lab = Lab(made_up(asked), SEEDS)
    found = dict(tables(lab, [BASE], ["heterogeneity", "workers"]))
    columns = found["heterogeneity"]
    assert [*columns] == [*LEVELS] and [*found["workers"]] == [f"k = {w}" for w in WORKERS]
    for arm in PAPER["heterogeneity"]:
        alike = {id(cells[arm]) for cells in columns.values()}
        assert len(alike) == (1 if arm in (FINETUNE, SYNCHRONOUS) else len(LEVELS))
    assert columns["very"][STALE] is found["workers"]["k = 4"][STALE]
    reported = [run for run, seeds in asked if seeds == SEEDS.reported]
    assert len(reported) == len(lab.made) == 2 + 2 * 4 + 1 + 2 * len(PAPER["workers"])
    assert {seeds for _, seeds in asked} == {SEEDS.tuning, SEEDS.reported}


def test_a_cell_has_the_rules_of_its_arm_and_its_best_rate():
    asked = []
    lab = Lab(made_up(asked), SEEDS)
    for arm in (*ARMS, FINETUNE):
        asked.clear()
        cell = lab.cell([BASE], 0, 4, "very", arm)
        run, seeds = asked[-1]
        assert seeds == SEEDS.reported and cell.perplexity.shape == (3,)
        assert run.cluster.barrier == (arm == SYNCHRONOUS) and run.cluster.dynamic_steps == (arm in (REMEDY, ACTIVE))
        if arm == FINETUNE:
            assert (cell.rate, cell.on_edge, len(asked)) == (None, False, 1)
            assert dict(run.task.values)["batch"] == 4 * BASE.task.batch
        else:
            assert cell.rate == run.outer.lr == 0.4 and not cell.on_edge
        if arm == ACTIVE:
            assert run.outer.activation == 0.1


# Claims


@pytest.mark.parametrize(
    ("low", "high", "above", "below", "said"),
    [
        (-0.9, 0.9, -1.0, 1.0, "agrees"),
        (-1.0, 0.9, -1.0, 1.0, "undecided"),  # it touches
        (0.01, 1.0, 0.0, INFINITE, "agrees"),
        (0.0, 1.0, 0.0, INFINITE, "undecided"),
        (0.0, 0.0, 0.0, INFINITE, "undecided"),  # of a cell with itself
        (-2.0, -0.01, 0.0, INFINITE, "disagrees"),
        (-2.0, 0.0, 0.0, INFINITE, "undecided"),  # it touches
        (1.01, 2.0, -1.0, 1.0, "disagrees"),
        (1.0, 2.0, -1.0, 1.0, "undecided"),
        (-2.0, 2.0, -1.0, 1.0, "undecided"),  # it holds all that would agree
        (-INFINITE, INFINITE, -INFINITE, 0.0, "undecided"),
        (float("nan"), float("nan"), -INFINITE, 0.0, "undecided"),
    ],
)
def test_a_verdict_is_of_the_whole_interval(low, high, above, below, said):
    assert Claim("", "", Interval((low + high) / 2, low, high), above, below, ()).verdict == said


@pytest.mark.parametrize("odd", (cell(1, float("nan"), 3), cell(1, 2, 3, on_edge=True)))
def test_nothing_is_said_of_what_diverged_or_lies_on_the_edge(odd):
    for cells in ((cell(1, 2, 3), odd), (odd, cell(1, 2, 3))):
        assert Claim("", "", Interval(1, 1, 1), 0, INFINITE, cells).verdict == "undecided"
    assert Claim("", "", Interval(1, 1, 1), 0, INFINITE, (cell(1, 2, 3), cell(1, 2, 3))).verdict == "agrees"


def test_cells_that_are_alike_are_neither_ahead_nor_behind():
    """Every claim agreed, that DiLoCo is ahead of finetuning and that it is behind."""
    found = claims("workers", table(("k = 4", "k = 16"), PAPER["workers"]))
    assert {c.statement for c in found if c.verdict == "agrees"} == {C, WITHIN}
    assert {c.verdict for c in found} == {"agrees", "undecided"}


def table(columns, arms):
    return {column: {arm: cell(5, 6, 7) for arm in arms} for column in columns}


def statements(name, columns):
    found = claims(name, table(columns, PAPER[name]))
    return {column: [c.statement for c in found if c.column == column] for column in {c.column: None for c in found}}


BEHIND = "async DiLoCo is behind DiLoCo"
AHEAD = "DN + DyLU is ahead of async DiLoCo"
WITHIN = "DN + DyLU is within 1 % of DiLoCo, or ahead"
FINE = "DiLoCo is ahead of finetuning with 4 times the batch"
SIXTEEN = "DiLoCo is behind finetuning with 16 times the batch"
C = "c = 0.1 is within 1 % of c = 0"


def test_the_claims_of_a_table_are_the_papers():
    each = [BEHIND, AHEAD, WITHIN]
    assert statements("heterogeneity", LEVELS) == {
        **{level: [*each, FINE] for level in LEVELS},
        "very against none": ["async DiLoCo does not feel heterogeneity"],
    }
    assert statements("workers", ("k = 4", "k = 8", "k = 16")) == {
        "k = 4": [*each, FINE, C],
        "k = 8": [*each, C],
        "k = 16": [*each, SIXTEEN, C],
    }
    assert statements("sizes", ("1 M",)) == {"1 M": [*each, FINE, C]}
    assert statements("sizes", ("1 M", "2 M")) == {
        **{column: [*each, FINE, C] for column in ("1 M", "2 M")},
        "last less first": ["async DiLoCo's gap is smaller with the larger model"],
    }


def test_the_papers_own_numbers_agree_with_its_claims():
    """Each of its perplexities on seeds that differ a little: whatever is claimed of them must be so."""
    names = COLUMNS | {"sizes": ["20M", "60M", "150M"]}
    small = np.array([0.9999, 1.0, 1.0001])
    for name, columns in names.items():
        found = claims(
            name,
            {
                column: {arm: cell(*(paper[i] * small)) for arm, paper in PAPER[name].items()}
                for i, column in enumerate(columns)
            },
        )
        assert {(c.statement, c.column): c.verdict for c in found if c.verdict != "agrees"} == {}


def test_a_gap_is_in_per_cent_of_perplexity_and_paired():
    np.testing.assert_allclose(gap(cell(11, 22, 33), cell(10, 20, 30)), (10, 10, 10))


# The command


def command(monkeypatch, folder, *words):
    (folder / "run.toml").write_text(SMALL)
    own = ["--out", str(folder / "out"), "--store", str(folder / "runs.sqlite")]
    monkeypatch.setattr(sys, "argv", ["tables", str(folder / "run.toml"), *words, *own])
    room.main()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "sizes", "--init", "one", "two"], "init: must name as many folders as runs, 1, got 2"),
        (["--seeds", "200:201"], "seeds: must be two or more"),
        (["--seeds", "999:1002"], "none that rates are tuned on"),
        (["--seeds", "x"], "seeds"),
        (["--rounds", "0"], "rounds"),
        (["--only", "sizes", "--toy", "nowhere.json"], "nowhere.json: cannot be read"),
        (["--rounds", "3"], "rounds: must be 4 or more for a round of 16 workers"),
        (["--only", "sizes", "--init", "nowhere"], "holds no checkpoints"),
        (["--only", "size"], "--only"),
    ],
)
def test_bad_input_is_a_line(tmp_path, monkeypatch, capsys, words, said):
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, tmp_path, *words)
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and said in lines[-1]
    assert len(lines) == 1 or lines[0].startswith("usage:")
    assert [one.name for one in tmp_path.iterdir()] == ["run.toml"]


@pytest.mark.parametrize("widths", [(16, 16), (32, 16), (16, 32, 64, 128)])
def test_models_that_have_no_column_of_their_own_are_a_line(tmp_path, monkeypatch, capsys, widths):
    """A fourth has no column in the paper: it was found out when all was trained. "Last less first" needs an order."""
    for i, width in enumerate(widths):
        (tmp_path / f"{i}.toml").write_text(SMALL.replace("width = 16", f"width = {width}"))
    names = [str(tmp_path / f"{i}.toml") for i in range(len(widths))]
    monkeypatch.setattr(sys, "argv", ["tables", *names, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        room.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said == "runs: must be one to three models, each larger than the one before\n"
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_not_there_is_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tables", str(tmp_path / "none.toml")])
    with pytest.raises(SystemExit) as ended:
        room.main()
    assert ended.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_a_tiny_model_goes_through_all_of_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("toybench.tuning.CLIMBS", 0)  # three rates will do
    words = ("--only", "sizes", "--rounds", "2", "--seeds", "200:202")
    command(monkeypatch, tmp_path, *words)
    said = capsys.readouterr()
    told = json.loads((tmp_path / "out" / "tables.json").read_text())
    assert said.out.strip() == (tmp_path / "out" / "tables.md").read_text().strip()
    assert "4 workers, Nesterov, rate 0.4: " in said.err
    [column] = told["tables"]["sizes"]["columns"].values()
    assert [*column] == [*PAPER["sizes"]] and len(told["tables"]["sizes"]["claims"]) == 5
    assert all(1 < number < 400 for one in column.values() for number in one["perplexity"])
    monkeypatch.setattr("lm.contest.carry_out", None)  # all is in the store
    command(monkeypatch, tmp_path, *words)
    again = json.loads((tmp_path / "out" / "tables.json").read_text())
    assert again["tables"] == told["tables"]
