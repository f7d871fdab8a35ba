"""Do the paper's tables come out alike on a small language model: heterogeneity, workers, model sizes, DN's c?

Command:  python -m experiments.tables experiments/c4_visits.toml experiments/c4_wider.toml --init DIR DIR
Duration: three and a half hours of one core; two commands with other `--only` may share the store.
Paper:    tables of final C4 perplexity (section 5 of its text, and its appendix on c): async DiLoCo behind DiLoCo
          throughout, DN + DyLU level with it, finetuning with k times the batch behind both but at k = 16.
Found:    nothing yet: it has run in tests only.

Every run has as many tokens, so that with k workers each makes 4/k of the steps; the paper keeps a worker's steps. What
finetuning gains from more workers there is tokens, so it is not compared between columns here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm.config import CHOICES, parameters
from lm.promote import read_run
from lm.protocol import finetuning
from toybench.arguments import read_seeds
from toybench.clusters import LEVELS, sec_per_step
from toybench.config import ConfigError, Run
from toybench.curves import Curves
from toybench.leaderboard import Contestant, Seeds, enter
from toybench.records import plain, provenance, writable_folder, write_json, write_whole
from toybench.statistics import Interval, interval, relative_gap
from toybench.study import ASYNC, DYLU, SYNC
from toybench.tuning import climb

OUT = Path(__file__).parent / "records" / "tables"
FINETUNE, SYNCHRONOUS, STALE, REMEDY, ACTIVE = "finetune, k× batch", "DiLoCo", "async DiLoCo", "DN + DyLU", "c = 0.1"
DN = {**DYLU, "outer.method": "delayed_nesterov"}
ARMS = {  # the outer method and its rules, and the rate in the middle of the first three
    SYNCHRONOUS: ({**SYNC, "outer.method": "nesterov"}, 0.4),
    STALE: ({**ASYNC, "outer.method": "nesterov"}, 0.05),
    REMEDY: (DN, 0.4),
    ACTIVE: (DN | {"outer.activation": 0.1}, 0.4),
}
WORKERS = (4, 8, 16)
PAPER = {  # final perplexities: none, slight, moderate, very; 4, 8, 16; 20M, 60M, 150M
    "heterogeneity": {
        FINETUNE: (42.47,) * 4,
        SYNCHRONOUS: (41.35,) * 4,
        STALE: (44.27, 44.38, 44.29, 44.27),
        REMEDY: (41.27, 41.27, 41.09, 41.13),
    },
    "workers": {
        FINETUNE: (42.47, 41.28, 40.60),
        SYNCHRONOUS: (41.35, 41.23, 41.25),
        STALE: (44.27, 44.23, 44.23),
        REMEDY: (41.13, 41.02, 40.98),
        ACTIVE: (41.16, 40.93, 41.04),
    },
    "sizes": {
        FINETUNE: (42.47, 24.80, 17.47),
        SYNCHRONOUS: (41.35, 24.55, 17.23),
        STALE: (44.27, 25.64, 18.08),
        REMEDY: (41.13, 24.53, 17.26),
        ACTIVE: (41.16, 24.69, 17.27),
    },
}
LEVEL = 1.0  # per cent of perplexity within which two are alike; the paper's DN + DyLU lies within 0.7 of DiLoCo


class Cell(NamedTuple):
    """An arm in a column, on the reported seeds."""

    curves: Curves
    rate: float | None  # the best outer rate; finetuning has none
    on_edge: bool

    @property
    def perplexity(self) -> np.ndarray:
        """[S] at the end."""
        return np.exp(self.curves.final_loss)


class Claim(NamedTuple):
    """A statement of the paper: a gap in perplexity (per cent, paired by seed) that must lie within two bounds."""

    statement: str
    column: str
    gap: Interval
    above: float
    below: float
    cells: tuple[Cell, ...]  # that it is about

    @property
    def verdict(self) -> str:
        """Of the whole 95 % interval."""
        if self.above <= self.gap.low and self.gap.high <= self.below:
            return "agrees"
        return "disagrees" if self.gap.high < self.above or self.below < self.gap.low else "undecided"


@dataclass
class Lab:
    """What all tables share.

    Args:
        measure: trains, or reads from a store; told of which model.
        seeds: tuned and reported on.
        made: cells by model, workers, level and arm.
    """

    measure: Callable[[int], Callable[[Sequence[Run], Sequence[int]], list[Curves]]]
    seeds: Seeds
    made: dict[tuple[int, int, str, str], Cell] = field(default_factory=dict)

    def cell(self, bases: Sequence[Run], model: int, workers: int, level: str, arm: str) -> Cell:
        """One cell. What does not depend on the workers' speeds is trained at "very"."""
        level = "very" if arm in (FINETUNE, SYNCHRONOUS) else level
        key = model, workers, level, arm
        if key not in self.made:
            self.made[key] = self._made(at(bases[model], workers, level), model, arm)
        return self.made[key]

    def _made(self, base: Run, model: int, arm: str) -> Cell:
        from lm.loop import as_record

        measure = self.measure(model)
        if arm == FINETUNE:
            [curves] = measure([as_record(finetuning(base, base.cluster.workers))], self.seeds.reported)
            return Cell(curves, None, False)
        changes, start = ARMS[arm]

        def search(make: Any, who: Contestant, seeds: Seeds, measure: Any) -> Any:
            return climb(make, start, seeds.tuning, measure, halves=False)

        entry = enter(as_record(base), arm, Contestant(changes), self.seeds, measure, search)
        return Cell(entry.curves, entry.tuning.best, entry.tuning.on_edge)


def at(base: Run, workers: int, level: str) -> Run:
    """The run on so many workers of a level of heterogeneity, with as many tokens, to a whole round of theirs."""
    cluster = replace(base.cluster, sec_per_step=tuple(sec_per_step(workers, level)))
    rounds = max(1, base.budget.rounds * base.cluster.workers // workers)
    return replace(base, cluster=cluster, budget=replace(base.budget, rounds=rounds))


Table = dict[str, dict[str, Cell]]  # column -> arm -> cell


def tables(lab: Lab, bases: Sequence[Run], only: Sequence[str]) -> Iterator[tuple[str, Table]]:
    """Each table, when all of it is there."""
    columns = {
        "heterogeneity": {level: (0, 4, level) for level in LEVELS},
        "workers": {f"k = {workers}": (0, workers, "very") for workers in WORKERS},
        "sizes": {size(base): (model, 4, "very") for model, base in enumerate(bases)},
    }
    for name in only:
        yield (
            name,
            {
                column: {arm: lab.cell(bases, *where, arm) for arm in PAPER[name]}
                for column, where in columns[name].items()
            },
        )


def size(base: Run) -> str:
    """A model's parameters."""
    return f"{parameters(base.task) / 1e6:.2f} M"  # type: ignore[arg-type]


# What the paper says


def gap(one: Cell, other: Cell) -> Interval:
    """By how many per cent the perplexity of one lies above the other's, paired by seed."""
    return interval(relative_gap(one.perplexity, other.perplexity))


def claims(name: str, table: Table) -> list[Claim]:
    """The paper's statements about a table."""
    infinite, found = float("inf"), []
    for column, cells in table.items():

        def claim(statement: str, one: str, other: str, above: float, below: float, column=column, cells=cells) -> None:
            both = cells[one], cells[other]
            found.append(Claim(statement, column, gap(*both), above, below, both))

        claim("async DiLoCo is behind DiLoCo", STALE, SYNCHRONOUS, 0, infinite)
        claim("DN + DyLU is ahead of async DiLoCo", REMEDY, STALE, -infinite, 0)
        claim(f"DN + DyLU is within {LEVEL:g} % of DiLoCo, or ahead", REMEDY, SYNCHRONOUS, -infinite, LEVEL)
        if column == "k = 16":
            claim("DiLoCo is behind finetuning with 16 times the batch", SYNCHRONOUS, FINETUNE, 0, infinite)
        elif column != "k = 8":
            claim("DiLoCo is ahead of finetuning with 4 times the batch", SYNCHRONOUS, FINETUNE, -infinite, 0)
        if ACTIVE in cells:
            claim(f"c = 0.1 is within {LEVEL:g} % of c = 0", ACTIVE, REMEDY, -LEVEL, LEVEL)
    if name == "heterogeneity":
        both = table["very"][STALE], table["none"][STALE]
        found.append(
            Claim("async DiLoCo does not feel heterogeneity", "very against none", gap(*both), -LEVEL, LEVEL, both)
        )
    if name == "sizes" and len(table) > 1:
        four = tuple(cells[arm] for cells in ends(table) for arm in (STALE, SYNCHRONOUS))
        small, large = (relative_gap(four[i].perplexity, four[i + 1].perplexity) for i in (0, 2))
        statement = "async DiLoCo's gap is smaller with the larger model"
        found.append(Claim(statement, "last less first", interval(large - small), -infinite, 0, four))
    return found


def ends(table: Table) -> tuple[dict[str, Cell], dict[str, Cell]]:
    """The first and the last column."""
    columns = [*table.values()]
    return columns[0], columns[-1]


# The record


def document(found: Mapping[str, Table], lab: Lab, bases: Sequence[Run], starts: Sequence[Any]) -> dict[str, Any]:
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
                        arm: {"perplexity": cell.perplexity, "rate": cell.rate, "on_edge": cell.on_edge}
                        for arm, cell in cells.items()
                    }
                    for column, cells in table.items()
                },
                "claims": [as_told(claim) for claim in claims(name, table)],
            }
            for name, table in found.items()
        },
        "provenance": provenance(),
    }


def as_told(claim: Claim) -> dict[str, Any]:
    """A claim and its verdict; its cells stand in the table."""
    told = claim._asdict() | {"verdict": claim.verdict}
    del told["cells"]
    return told


def page(found: Mapping[str, Table], lab: Lab, bases: Sequence[Run]) -> str:
    """The record for a reader."""
    told = (claim for name, table in found.items() for claim in claims(name, table))
    # Columns of tables may be the same runs. Runs with equal gaps need not be: all that diverged count as untrained.
    every = {(claim.statement, *map(id, claim.cells)): claim for claim in told}.values()
    tally = {verdict: sum(c.verdict == verdict for c in every) for verdict in ("agrees", "disagrees", "undecided")}
    reported, tuned = len(lab.seeds.reported), len(lab.seeds.tuning)
    tokens = [base.budget.total_steps(base.cluster) * base.task.batch * base.task.sequence for base in bases]  # type: ignore
    sizes = ", ".join(f"{size(base)} parameters on {count / 1e6:.2f} M tokens" for base, count in zip(bases, tokens))
    lines = [
        "# The paper's tables on a small language model, on CPU",
        "",
        f"`python -m experiments.tables`: {sizes} a run, from a shared pretrained start. Held-out perplexity, mean of "
        f"{reported} seeds; outer rates an octave apart, tuned on {tuned} other seed{'s' * (tuned > 1)}. In "
        "parentheses the paper's number for the column of that place, of models 20 to 150 times as large and of runs "
        "tens of thousands of times as long. Every run here has as many tokens, to a whole round; the paper's k "
        "workers have k/4 times as many.",
        "",
        f"{len(every)} statements: {', '.join(f'{number} {verdict}' for verdict, number in tally.items())}.",
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
    return "\n".join(lines)


def _told(cell: Cell, paper: float) -> str:
    edge = " (edge)" if cell.on_edge else ""
    rate = "" if cell.rate is None else f", ε {cell.rate:g}{edge}"
    return f"{cell.perplexity.mean():.1f}{rate} ({paper:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN.toml", help="the model of all tables, then others for the sizes"
    )
    parser.add_argument("--init", nargs="+", metavar="DIR", help="what each starts from: the folder of a run")
    parser.add_argument("--rounds", type=int, help="of four workers (default: the file's)")
    parser.add_argument("--only", nargs="+", choices=[*PAPER], default=[*PAPER], metavar="TABLE")
    parser.add_argument("--tuning-seeds", nargs="+", default=["1000:1001"], metavar="N")
    parser.add_argument("--seeds", nargs="+", default=["200:206"], metavar="N", help="reported (default 200:206)")
    parser.add_argument("--store", default="results/runs.sqlite", metavar="FILE", help="of the runs")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR")
    try:
        carry_out(parser.parse_args())
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


def carry_out(options: argparse.Namespace) -> None:
    """Train what is not in the store; write the record.

    Raises:
        ConfigError: runs that cannot be or are alike, a start of another model, or too few seeds.
    """
    from toybench.runtime import configure

    configure()
    from lm.assemble import corpus_of
    from lm.contest import Contest
    from lm.start import read_start
    from lm.task import LanguageTask
    from toybench.store import Store

    seeds = Seeds(read_seeds(options.tuning_seeds), (), read_seeds(options.seeds))
    if set(seeds.tuning) & set(seeds.reported) or len(seeds.reported) < 2:
        raise ConfigError("seeds", "must be two or more, and none that rates are tuned on")
    bases = [read_run(path)[0] for path in options.runs]
    if options.rounds is not None:
        bases = [replace(base, budget=replace(base.budget, rounds=options.rounds)) for base in bases]
    if len({*map(size, bases)}) < len(bases) or len(bases) > len(PAPER["sizes"][STALE]):
        raise ConfigError("runs", "must be one to three models of different sizes")
    if options.init is not None and len(options.init) != len(bases):
        raise ConfigError("init", f"must name as many folders as runs, {len(bases)}, got {len(options.init)}")
    folders = options.init or [None] * len(bases)
    starts = [
        (None, {}) if folder is None else read_start(folder, LanguageTask(base.task, corpus_of(base)))
        for base, folder in zip(bases, folders)
    ]
    out = writable_folder(options.out)
    with Store(options.store) as store:
        contests = [Contest(store, None, start=params) for params, _ in starts]
        lab = Lab(lambda model: told(contests[model]), seeds)
        found: dict[str, Table] = {}
        for name, table in tables(lab, bases, options.only):
            found[name] = table
            write_json(
                out / "tables.json", plain(document(found, lab, bases, [s.get("parameters") for _, s in starts]))
            )
            write_whole(out / "tables.md", page(found, lab, bases))
    print(page(found, lab, bases))


def told(contest: Any) -> Callable[[Sequence[Run], Sequence[int]], list[Curves]]:
    """`Contest.measure`, with a line for every run."""

    def measure(runs: Sequence[Run], seeds: Sequence[int]) -> list[Curves]:
        found = contest.measure(runs, seeds)
        for one, curves in zip(runs, found):
            rate = one.outer.lr  # type: ignore[attr-defined] every method has one
            means = f"{curves.final_loss.mean():.4f} on {len(seeds)} seeds"
            said = f"{one.cluster.workers} workers, {type(one.outer).__name__}, rate {rate:g}: {means}"
            print(said, file=sys.stderr, flush=True)
        return found

    return measure


if __name__ == "__main__":
    main()
