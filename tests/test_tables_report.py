"""The record of the paper's tables: JSON, page, the toy beside it; and the committed one."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.tables_cells import (
    ACTIVE,
    FINETUNE,
    LEVEL,
    PAPER,
    REMEDY,
    STALE,
    SYNCHRONOUS,
    Lab,
    claims,
    size,
    tables,
)
from experiments.tables_report import beside, document, page
from tests.test_tables import BASE, BEHIND, COLUMNS, LARGER, SEEDS, C, cell, made_up, table
from toybench.compare import REFERENCE, Side
from toybench.config import InnerAdamW
from toybench.records import plain

RECORD = Path(__file__).parent.parent / "experiments" / "records" / "tables"


@pytest.fixture
def lab():
    return Lab(made_up(), SEEDS)


def test_the_same_runs_in_two_tables_are_counted_once(lab):
    found = dict(tables(lab, [BASE], ["heterogeneity", "workers", "sizes"]))
    told = {name: claims(name, one) for name, one in found.items()}
    assert sum(map(len, told.values())) == 17 + 14 + 5
    # "very" of the first is "k = 4" of the second but for c, and the only size; DiLoCo feels no speeds.
    assert "\n24 statements: " in page(found, lab, [BASE], True, [])


def test_equal_gaps_of_different_runs_are_both_counted(lab):
    """As of runs that diverged in two columns, and count as the untrained model."""
    found = {"workers": table(("k = 4", "k = 8"), PAPER["workers"])}
    assert "\n9 statements: " in page(found, lab, [BASE], True, [])


def test_a_record_is_json_and_holds_no_path(lab):
    bases = [BASE, LARGER]
    found = dict(tables(lab, bases, [*PAPER]))
    told = json.loads(json.dumps(plain(document(found, lab, bases, ["0123abcd", None], [])), allow_nan=False))
    text = json.dumps(told) + page(found, lab, bases, True, [])
    assert "somewhere" not in text and [run["task"]["data"] for run in told["runs"]] == ["", ""]
    assert told["starts"] == ["0123abcd", None] and told["seeds"]["reported"] == [200, 201, 202]
    sizes = told["tables"]["sizes"]
    assert [*sizes["columns"]] == [size(BASE), size(LARGER)]
    one = sizes["columns"][size(BASE)][REMEDY]
    assert len(one["perplexity"]) == 3 and one["rate"] == 0.4 and one["on_edge"] is False and one["diverged"] == 0
    assert [claim["verdict"] for claim in sizes["claims"]] == [c.verdict for c in claims("sizes", found["sizes"])]


def test_a_page_says_what_lies_on_the_edge_of_the_rates(lab):
    cells = {arm: cell(50, 51, 52, on_edge=arm == STALE) for arm in PAPER["sizes"]}
    cells[FINETUNE] = cell(50, 51, 52, rate=None)
    cells[REMEDY] = cell(50, float("nan"), 52)
    said = page({"sizes": {"1 M": cells}}, lab, [BASE], True, [])
    assert f"| {STALE} | 51.0, ε 0.4 (edge) (44.27) |" in said
    assert f"| {FINETUNE} | 51.0 (42.47) |" in said
    assert "ε 0.4, 1 diverged (41.13) |" in said
    assert f"within {LEVEL:g} %" in said


def test_a_page_says_what_the_runs_were(lab):
    found = {"sizes": table((size(BASE), size(LARGER)), PAPER["sizes"])}
    said = page(found, lab, [BASE, replace(LARGER, inner=InnerAdamW(lr=3e-3))], True, [])
    assert f"{size(BASE)} parameters, " in said and "inner rate 0.01; " in said and "inner rate 0.003; " in said
    assert "shared pretrained start" in said and "fresh parameters" not in said
    assert "fresh parameters" in page(found, lab, [BASE, LARGER], False, [])


def test_the_toy_is_set_beside_on_the_same_clusters(lab):
    found = {name: table(columns, PAPER[name]) for name, columns in COLUMNS.items()}
    found["heterogeneity"]["none"][STALE] = cell(*np.exp([1.1, 1.2, 1.3]))
    found["heterogeneity"]["none"][SYNCHRONOUS] = cell(*np.exp([1.0, 1.0, 1.0]))
    losses = np.array([[2.0, 4.0], [3.0, 6.0], [1.0, 2.0]])
    names = (REFERENCE, "nesterov", "delayed_nesterov + DyLU")
    boards = {name: Side("toy", name, names, losses) for name in ("none-4", "very-16", "elsewhere")}
    boards["very-4"] = Side("toy", "very-4", names[:2], losses[:2])
    rows = {(one.arm, one.cluster): one for one in beside(found, boards)}
    assert [*rows] == [
        *((STALE, name) for name in ("none-4", "very-4", "very-16")),
        *((REMEDY, name) for name in ("none-4", "very-16")),
    ]
    np.testing.assert_allclose(rows[STALE, "none-4"].toy, (50, 50, 50))
    np.testing.assert_allclose(rows[REMEDY, "very-16"].toy, (-50, -50, -50))
    assert rows[STALE, "none-4"].here.mean == pytest.approx(20)
    said = page(found, lab, [BASE], True, [*rows.values()])
    assert "| async DiLoCo, toy | +50.0 [+50.0, +50.0] | +50.0" in said
    assert "| DN + DyLU, toy | -50.0 [-50.0, -50.0] |  | -50.0" in said
    assert "The toy" not in page(found, lab, [BASE], True, [])


def test_what_diverged_is_not_set_beside_the_toy():
    found = {"heterogeneity": table(["none"], PAPER["heterogeneity"])}
    boards = {"none-4": Side("toy", "none-4", (REFERENCE, "nesterov"), np.array([[1.0, 2], [3, 4]]))}
    assert [one.arm for one in beside(found, boards)] == [STALE]
    found["heterogeneity"]["none"][STALE] = cell(5, float("nan"), 7)
    assert beside(found, boards) == []


# The committed record


def test_the_readme_says_what_the_record_says():
    readme = (RECORD.parent.parent.parent / "README.md").read_text()
    told, said = json.loads((RECORD / "tables.json").read_text()), (RECORD / "tables.md").read_text()
    rows = [line for line in said.splitlines() if line.startswith(("| async DiLoCo, ", "| DN + DyLU, "))]
    assert len(rows) == 4 and all(f"{row}\n" in readme for row in rows)
    text = " ".join(readme.split())
    costs = [c["gap"] for c in told["tables"]["workers"]["claims"] if c["statement"] == C and c["column"] != "k = 4"]
    assert len(costs) == 2
    for mean, low, high in costs:
        assert f"{mean:.1f} % [{low:+.1f}, {high:+.1f}]" in text
    loss = {
        column: {arm: np.log(one["perplexity"]) for arm, one in arms.items()}
        for column, arms in told["tables"]["workers"]["columns"].items()
    }
    cost = [np.mean(100 * (loss[k][ACTIVE] / loss[k][REMEDY] - 1)) for k in ("k = 8", "k = 16")]
    assert f"({cost[0]:.1f} and {cost[1]:.1f} % of loss, on the toy 8 and 17)" in text
    [equal] = [
        claim["gap"]
        for claim in told["tables"]["heterogeneity"]["claims"]
        if claim["statement"] == BEHIND and claim["column"] == "none"
    ]
    mean, low, high = equal
    assert f"ahead of DiLoCo, by {-mean:.1f} % [{-high:+.1f}, {-low:+.1f}] of perplexity" in text
    best = [
        1
        - np.mean(arms[FINETUNE]["perplexity"])
        / min(np.mean(arms[arm]["perplexity"]) for arm in arms if arm != FINETUNE)
        for table in told["tables"].values()
        for arms in table["columns"].values()
    ]
    assert f"by {100 * min(best):.0f} to {100 * max(best):.0f} % of the best other perplexity" in text
    larger = [claim for claim in told["tables"]["sizes"]["claims"] if claim["column"] == "2.15 M"]
    gaps = {claim["statement"]: claim["gap"] for claim in larger}
    mean, low, high = gaps[BEHIND]
    assert f"async DiLoCo is {mean:.1f} % [{low:+.1f}, {high:+.1f}] of perplexity behind DiLoCo" in text
    [(mean, low, high)] = [gap for said, gap in gaps.items() if said.startswith("DN + DyLU is within")]
    assert f"DN + DyLU {-mean:.1f} % [{-high:+.1f}, {-low:+.1f}] ahead" in text
    mean, low, high = told["tables"]["sizes"]["claims"][-1]["gap"]
    assert f"changes by {mean:+.1f} % [{low:+.1f}, {high:+.1f}] from one size to the other" in text
    count = re.search(r"(\d+) statements: (\d+) agree, (\d+) disagree, (\d+) undecided", said)
    words = "Of {} statements {} agree, {} disagree and {} stay undecided".format(*count.groups())
    assert words in text


def test_the_records_verdicts_follow_from_its_perplexities():
    told, text = json.loads((RECORD / "tables.json").read_text()), (RECORD / "tables.md").read_text()
    for name, one in told["tables"].items():
        cells = {
            column: {
                arm: cell(*found["perplexity"], rate=found["rate"], on_edge=found["on_edge"])
                for arm, found in arms.items()
            }
            for column, arms in one["columns"].items()
        }
        assert not any(found["diverged"] for arms in one["columns"].values() for found in arms.values())
        again = claims(name, cells)
        assert len(again) == len(one["claims"]) > 10
        for claim, kept in zip(again, one["claims"]):
            assert (claim.statement, claim.column, claim.verdict) == (
                kept["statement"],
                kept["column"],
                kept["verdict"],
            )
            np.testing.assert_allclose(claim.gap, kept["gap"], atol=1e-6)
            said = f"{claim.gap.mean:+.2f} [{claim.gap.low:+.2f}, {claim.gap.high:+.2f}]"
            assert f"| {claim.statement} | {claim.column} | {said} | **{claim.verdict}** |" in text
