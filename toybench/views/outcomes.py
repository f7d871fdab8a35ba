"""What a stored sweep shows: its settings from the best, and the numbers of its figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from toybench.axes import log_spaced
from toybench.config import ConfigError, Run
from toybench.curves import Curves
from toybench.plots import heatmap, rates
from toybench.selection import Ranked, distinctions, keys_of, ranked, select, value_of
from toybench.store import Store
from toybench.views.jobs import Job

MOST_CELLS = 10_000  # of a heat map
MOST_POINTS = 3_000  # of the other figures
MOST_ROWS = 200  # of the table

Figure = Literal["lines", "heat map", "dots"]


class Swept(NamedTuple):
    """The keys that a sweep goes through, and where they lie, finished or not."""

    keys: list[str]
    numbers: list[str]  # those whose values are numbers
    values: dict[str, list[Any]]  # in order
    log: list[str]  # those that stand evenly in their logarithms

    def figures(self) -> list[Figure]:
        """The figures that such a sweep can have, the most telling first."""
        if not self.keys:
            return ["dots"]
        cells = len(self.keys) == 2 and len(self.values[self.keys[0]]) * len(self.values[self.keys[1]]) <= MOST_CELLS
        found: list[Figure] = ["lines"] if self.numbers else []
        if cells:
            found.insert(0 if len(self.numbers) != 1 else 1, "heat map")
        return found or ["dots"]

    def along(self) -> list[str]:
        """The keys that may lie along x, the outer rate first."""
        return sorted(self.numbers or self.keys, key=lambda key: key != rates.RATE)


class Outcome(NamedTuple):
    """A sweep as far as it is done."""

    swept: Swept
    done: int
    settings: int  # that have a run
    best: list[Ranked]  # no more than a table shows
    figure: Figure
    x: str
    drawn: dict[str, Any]  # the figure's numbers
    said: str  # why it is not the figure that was asked for


def swept_by(runs: Sequence[Run]) -> Swept:
    """What some settings, all of a sweep, differ in."""
    keys = keys_of(distinctions(runs))
    values = {key: heatmap.values_of(runs, key) for key in keys}
    numeric = [key for key in keys if all(type(value) in (int, float) for value in values[key])]
    return Swept(keys, numeric, values, [key for key in numeric if log_spaced(values[key])])


def read_outcome(store: Path, name: str, figure: Figure | None, x: str | None) -> Callable[[Job], Outcome | None]:
    """Work that reads a sweep; None if nothing of it is done.

    Args:
        store: its file.
        name: of the sweep.
        figure: which, if the sweep can have it.
        x: what lies along it, if it can.
    """

    def work(job: Job) -> Outcome | None:
        job.report(said="reading the runs")
        with Store(store, writable=False) as opened:
            plan, _ = opened.plan(name)
            if not opened.runs_of(name):
                return None
            settings = select(opened, sweep=name)
        job.report(said="putting them together")
        swept = swept_by(plan.runs)
        kinds, along = swept.figures(), swept.along()
        kind = figure if figure in kinds else kinds[0]
        key = x if x in along else along[0] if along else ""
        rows = ranked(settings, lambda runs: [{key: value_of(run, key) for key in swept.keys} for run in runs])
        done = sum(len(setting.seeds) for setting in settings)
        kind, drawn, said = _numbers(settings, rows, swept, kind, key)
        return Outcome(swept, done, len(settings), rows[:MOST_ROWS], kind, key, drawn, said)

    return work


def _numbers(
    settings: Sequence[Curves], rows: Sequence[Ranked], swept: Swept, kind: Figure, x: str
) -> tuple[Figure, dict[str, Any], str]:
    """The numbers of a figure; a dot for each setting where there can be no other."""
    said = ""
    try:
        if kind == "heat map":
            y = next(key for key in swept.keys if key != x)
            return kind, heatmap.cells(settings, x, y), ""
        if kind == "lines":
            return kind, _thinned(rates.numbers(settings, key=x, log=x in swept.log)), ""
    except ConfigError as error:  # too little is done, or no two settings lie on one line
        said = str(error)
    step = -(-len(rows) // MOST_POINTS)
    return "dots", {"rows": [row for i, row in enumerate(rows) if i % step == 0]}, said


def _thinned(drawn: dict[str, Any]) -> dict[str, Any]:
    """Lines of no more points than a page draws, their best among them."""
    lines = drawn["lines"]
    step = -(-sum(len(line["rates"]) for line in lines) // MOST_POINTS)
    columns = ("rates", "mean", "low", "high", "seeds", "diverged")
    for line in lines:
        kept = [i for i, rate in enumerate(line["rates"]) if i % step == 0 or rate == line["best"]["rate"]]
        line |= {name: [line[name][i] for i in kept] for name in columns}
    return drawn
