"""The cells of the paper's tables, trained or read, and the paper's statements about them: for `experiments.tables`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from lm.config import parameters
from lm.protocol import finetuning
from toybench.clusters import LEVELS, sec_per_step
from toybench.config import ConfigError, Run
from toybench.curves import Curves
from toybench.leaderboard import Contestant, Seeds, enter
from toybench.statistics import Interval, all_of, decide, interval, relative_gap
from toybench.study import ASYNC, DYLU, SYNC
from toybench.tuning import climb

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
        """[S] at the end; where a run diverged, the start's."""
        return np.exp(self.curves.final_loss)

    @property
    def diverged(self) -> int:
        """Of so many seeds."""
        return int(self.curves.diverged.sum())


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
        """Of the whole 95 % interval; nothing where runs diverged, or a best rate may lie beyond those tried."""
        if any(cell.diverged or cell.on_edge for cell in self.cells):
            return "undecided"
        status = all_of([decide(self.gap, ">", self.above), decide(self.gap, "<", self.below)])
        return {"holds": "agrees", "does not hold": "disagrees"}.get(status, status)


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
            return climb(make, start, seeds.tuning, measure)

        entry = enter(as_record(base), arm, Contestant(changes), self.seeds, measure, search)
        return Cell(entry.curves, entry.tuning.best, entry.tuning.on_edge)


def at(base: Run, workers: int, level: str) -> Run:
    """The run on so many workers of a level of heterogeneity, with as many tokens, to a whole round of theirs.

    Raises:
        ConfigError: that is no round, or the cluster cannot have so many workers.
    """
    cluster = replace(base.cluster, sec_per_step=tuple(sec_per_step(workers, level)))
    rounds = base.budget.rounds * base.cluster.workers // workers
    if not rounds:
        least = -(-workers // base.cluster.workers)
        raise ConfigError("rounds", f"must be {least} or more for a round of {workers} workers")
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
