"""The record of `experiments.tables`: JSON, a page for a reader, and the toy's numbers on the same clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.tables_cells import PAPER, REMEDY, STALE, SYNCHRONOUS, Cell, Claim, Lab, Table, claims, size
from lm.config import CHOICES
from toybench.compare import REFERENCE, Side
from toybench.config import Run
from toybench.records import provenance
from toybench.statistics import Interval, interval, relative_gap

# The toy beside it

ON_TOY = {STALE: "nesterov", REMEDY: "delayed_nesterov + DyLU"}  # as its leaderboard calls them


WORDS = {"agrees": "agree", "disagrees": "disagree", "undecided": "undecided"}  # of many


class Beside(NamedTuple):
    """An arm's final loss above DiLoCo's on one cluster: per cent, paired by seed."""

    arm: str
    cluster: str
    toy: Interval
    here: Interval


def beside(found: Mapping[str, Table], boards: Mapping[str, Side]) -> list[Beside]:
    """Where the toy's leaderboard has the cluster, the arm and its reference, and nothing diverged or lies on an edge.

    Args:
        found: tables of the language model.
        boards: of the toy, by cluster.
    """
    clusters = {f"{level}-4": cells for level, cells in found.get("heterogeneity", {}).items()}
    clusters |= {f"very-{column.removeprefix('k = ')}": cells for column, cells in found.get("workers", {}).items()}
    rows = []
    for arm, name in ON_TOY.items():
        for cluster, cells in clusters.items():
            if cluster not in boards or not {name, REFERENCE} <= {*boards[cluster].names}:
                continue
            if any(cells[one].diverged or cells[one].on_edge for one in (arm, SYNCHRONOUS)):
                continue
            side = boards[cluster].only([REFERENCE, name])
            here = relative_gap(cells[arm].curves.final_loss, cells[SYNCHRONOUS].curves.final_loss)
            rows.append(Beside(arm, cluster, side.gaps[1], interval(here)))
    return rows


# The record


def document(
    found: Mapping[str, Table], lab: Lab, bases: Sequence[Run], starts: Sequence[Any], toy: Sequence[Beside]
) -> dict[str, Any]:
    """As JSON can say it."""
    from toybench.loading import dump_run

    return {
        "seeds": {name: list(own) for name, own in lab.seeds._asdict().items()},
        "runs": [dump_run(base, CHOICES) | {"task": dump_run(base, CHOICES)["task"] | {"data": ""}} for base in bases],
        "starts": starts,
        "tables": {
            name: {
                "columns": {
                    column: {
                        arm: {
                            "perplexity": cell.perplexity,
                            "rate": cell.rate,
                            "on_edge": cell.on_edge,
                            "diverged": cell.diverged,
                        }
                        for arm, cell in cells.items()
                    }
                    for column, cells in table.items()
                },
                "claims": [as_told(claim) for claim in claims(name, table)],
            }
            for name, table in found.items()
        },
        "toy": [one._asdict() for one in toy],
        "provenance": provenance(),
    }


def as_told(claim: Claim) -> dict[str, Any]:
    """A claim and its verdict; its cells stand in the table."""
    told = claim._asdict() | {"verdict": claim.verdict}
    del told["cells"]
    return told


def page(found: Mapping[str, Table], lab: Lab, bases: Sequence[Run], started: bool, toy: Sequence[Beside]) -> str:
    """The record for a reader; `started`: from a shared start, not each seed from its own parameters."""
    told = (claim for name, table in found.items() for claim in claims(name, table))
    # Columns of tables may be the same runs. Runs with equal gaps need not be: all that diverged count as untrained.
    every = {(claim.statement, *map(id, claim.cells)): claim for claim in told}.values()
    tally = {verdict: sum(c.verdict == verdict for c in every) for verdict in WORDS}
    reported, tuned = len(lab.seeds.reported), len(lab.seeds.tuning)
    start = "a shared pretrained start" if started else "fresh parameters"
    lines = [
        "# The paper's tables on a small language model, on CPU",
        "",
        f"`python -m experiments.tables`: {'; '.join(map(_model, bases))}; from {start}. Held-out perplexity, mean of "
        f"{reported} seeds; outer rates ε by octaves, then half an octave beside the best, tuned on {tuned} other "
        f"seed{'s' * (tuned > 1)}; "
        "finetuning's inner rate is the model's and not tuned. In parentheses the paper's number for the column of "
        "that place; its models have 20, 60 and 150 million parameters, and train for far longer. Every run here has "
        "as many tokens, to a whole round; the paper's k workers have k/4 times as many.",
        "",
        f"{len(every)} statements: {', '.join(f'{tally[verdict]} {word}' for verdict, word in WORDS.items())}. One "
        "agrees if the whole 95 % t-interval of the gap, paired by seed, lies where it says, and disagrees if all of "
        "it lies outside; of runs that diverged or a rate on the edge of those tried nothing is said. Intervals are of "
        "the seeds alone, not of the tuning; not corrected for their number, and many share a cell. With equal speeds "
        "DN + DyLU is DiLoCo by an identity: that it is within 1 % is no evidence.",
        "",
    ]
    for name, table in found.items():
        lines += [f"## {name.capitalize()}", "", f"| | {' | '.join(table)} |", f"|---|{'---|' * len(table)}"]
        for arm, paper in PAPER[name].items():
            cells = (_told(cells[arm], paper[i]) for i, cells in enumerate(table.values()))
            lines.append(f"| {arm} | {' | '.join(cells)} |")
        lines += ["", "| the paper says | where | gap in perplexity (%) | verdict |", "|---|---|---|---|"]
        for c in claims(name, table):
            said = f"{c.gap.mean:+.2f} [{c.gap.low:+.2f}, {c.gap.high:+.2f}]"
            lines.append(f"| {c.statement} | {c.column} | {said} | **{c.verdict}** |")
        lines.append("")
    return "\n".join(lines + _toy_lines(toy))


def _toy_lines(toy: Sequence[Beside]) -> list[str]:
    if not toy:
        return []
    clusters = dict.fromkeys(one.cluster for one in toy)
    lines = [
        "## The toy on the same clusters",
        "",
        "Final loss above DiLoCo's, per cent, 95 % t-interval; the toy's from its leaderboard. Looked at when both "
        "were in: description, no evidence. With 8 and 16 workers the toy has twice and four times as many rounds.",
        "",
        f"| | {' | '.join(clusters)} |",
        f"|---|{'---|' * len(clusters)}",
    ]
    for arm in dict.fromkeys(one.arm for one in toy):
        for where in ("toy", "here"):
            gaps = {one.cluster: getattr(one, where) for one in toy if one.arm == arm}
            told = ("{:+.1f} [{:+.1f}, {:+.1f}]".format(*gaps[name]) if name in gaps else "" for name in clusters)
            lines.append(f"| {arm}, {'toy' if where == 'toy' else 'language model'} | {' | '.join(told)} |")
    return [*lines, ""]


def _model(base: Run) -> str:
    tokens = base.budget.total_steps(base.cluster) * base.task.batch * base.task.sequence  # type: ignore[attr-defined]
    return f"{size(base)} parameters, {tokens / 1e6:.2g} M tokens a run, inner rate {base.inner.lr:g}"


def _told(cell: Cell, paper: float) -> str:
    edge = " (edge)" if cell.on_edge else ""
    rate = "" if cell.rate is None else f", ε {cell.rate:g}{edge}"
    lost = f", {cell.diverged} diverged" if cell.diverged else ""
    return f"{cell.perplexity.mean():.1f}{rate}{lost} ({paper:.2f})"
