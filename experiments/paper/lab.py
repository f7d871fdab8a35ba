"""What every question needs: methods at their own best settings, paired gaps, claims with a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np

from toybench.config import Run
from toybench.curves import Curves
from toybench.leaderboard import ALSO, Contestant, Seeds, enter
from toybench.statistics import Interval, Relation, decide, interval, relative_gap
from toybench.store import Call
from toybench.study import ASYNC, DYLU, SYNC, time_ratio, vary
from toybench.training import static_part
from toybench.tuning import SCOUTS, Measure, Tuning, tune

VERDICTS = {"holds": "agrees", "does not hold": "disagrees", "undecided": "undecided"}
QUICK_RATES = SCOUTS[2:10]  # 0.012 to 1.54; beyond them where the best is on an edge
SHAPE = (2, 4)  # seeds and settings of a quick call: compiling another shape takes longer than lanes that repeat
REMAINS = 0.1  # of async DiLoCo's gap, at most, where a remedy closes it; the paper's DN + DyLU leaves up to 0.09

SYNC_NESTEROV = {**SYNC, "outer.method": "nesterov"}
ASYNC_NESTEROV = {**ASYNC, "outer.method": "nesterov"}
SYNC_SGD = {**SYNC, "outer.method": "sgd"}
ASYNC_SGD = {**ASYNC, "outer.method": "sgd"}
DN = {**ASYNC, "outer.method": "delayed_nesterov"}
DN_DYLU = {**DYLU, "outer.method": "delayed_nesterov"}
SYNC_DYLU = {**SYNC, "cluster.dynamic_steps": True, "outer.method": "nesterov"}

T = TypeVar("T")


class Best(NamedTuple):
    """A configuration at its best settings."""

    tuning: Tuning
    curves: Curves  # on the reported seeds

    @property
    def loss(self) -> np.ndarray:
        """[S] final losses."""
        return self.curves.final_loss


class Claim(NamedTuple):
    """A statement, our number for it, and whether it holds: whether we agree with the paper, if it is the paper's."""

    statement: str
    ours: str  # what the number is
    value: Interval
    relation: Relation
    bound: float
    of_the_paper: bool = True

    @property
    def verdict(self) -> str:
        """Of the whole 95 % interval."""
        status = decide(self.value, self.relation, self.bound)
        return VERDICTS[status] if self.of_the_paper else status


def own(statement: str, ours: str, value: Interval, relation: Relation, bound: float) -> Claim:
    """A question of ours, put as a statement."""
    return Claim(statement, ours, value, relation, bound, of_the_paper=False)


Row = tuple[str, Best, Interval | None]  # label, result, gap to the question's reference (per cent)


class Answer(NamedTuple):
    """What a question came to."""

    title: str
    claims: list[Claim]
    rows: list[Row]
    notes: Sequence[str] = ()
    curves: Sequence[str] = ()  # labels of the rows to draw as curves; else the gaps are drawn, or
    against: tuple[str, Mapping[str, Mapping[float, Best]]] | None = None  # a setting, and methods at its values


@dataclass
class Lab:
    """A base configuration, the seeds, and what was made so far.

    A quick one tries `QUICK_RATES` without a runoff, and leaves out some of what a question goes through (`some`). What
    it reports together it also trains together, which moves the last bits.
    """

    base: Run
    seeds: Seeds
    measure: Measure
    quick: bool = False
    made: dict[str, Best] = field(default_factory=dict)

    def best(self, *arms: Mapping[str, Any]) -> list[Best]:
        """Changes of the base, each at its best outer rate, and at the best of what else of its method is tuned."""
        keys = [repr(sorted(arm.items())) for arm in arms]
        new = {key: Contestant(dict(arm), _also(arm)) for key, arm in zip(keys, arms) if key not in self.made}
        if self.quick:
            tunings = [self._coarse(who) for who in new.values()]
            curves = self.at(*({**who.changes, **tuning.changes} for who, tuning in zip(new.values(), tunings)))
            self.made |= zip(new, map(Best, tunings, curves))
        else:
            for key, who in new.items():
                entry = enter(self.base, key, who, self.seeds, self.measure)
                self.made[key] = Best(entry.tuning, entry.curves)
        return [self.made[key] for key in keys]

    def some(self, values: Sequence[T]) -> Sequence[T]:
        """All of what a question goes through; of a quick lab, every second."""
        return values[::2] if self.quick else values

    def _coarse(self, who: Contestant) -> Tuning:
        """A contestant's best of the quick rates."""

        def make(tuned: Mapping[str, Any]) -> Run:
            return vary(self.base, {**who.changes, **tuned})

        return tune(make, QUICK_RATES, self.seeds.tuning, self.measure, who.also)

    def at(self, *arms: Mapping[str, Any]) -> list[Curves]:
        """Changes of the base as they stand, on the reported seeds."""
        runs = [vary(self.base, arm) for arm in arms]
        together = [runs] if self.quick else [[run] for run in runs]
        return [curves for some in together for curves in self.measure(some, self.seeds.reported)]


def _also(arm: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    return ALSO.get(arm["outer.method"], ({},))


def quick_calls(runs: Sequence[Run], seeds: Sequence[int]) -> list[Call]:
    """Cut runs times seeds into calls of one `SHAPE`, so that few programs are compiled."""
    groups: dict[tuple, list[int]] = {}
    for i in sorted(range(len(runs)), key=lambda i: repr(runs[i].cluster)):  # lanes wait for each other's visits
        groups.setdefault(static_part(runs[i]), []).append(i)
    calls = []
    for s in range(0, len(seeds), SHAPE[0]):  # outermost: training keeps the data of the seeds that it had last
        for members in groups.values():
            pieces = (tuple(members[i : i + SHAPE[1]]) for i in range(0, len(members), SHAPE[1]))
            calls += [Call(piece, tuple(seeds[s : s + SHAPE[0]]), SHAPE[1]) for piece in pieces]
    return calls


def gap(one: Best, other: Best) -> Interval:
    """By how many per cent the final loss of one lies above the other's, paired by seed."""
    return interval(relative_gap(one.loss, other.loss))


def time_share(one: Best, reference: Best) -> Interval:
    """Simulated time to the reference's final loss, as a share of its time; 1 where it is never reached."""
    return interval(time_ratio(one.curves, reference.curves)[0])


def closes(who: str, remedy: Best, stale: Best, sync: Best) -> Claim:
    """The claim that a remedy closes async DiLoCo's gap, but for `REMAINS` of it at most."""
    above = remedy.loss - sync.loss - REMAINS * (stale.loss - sync.loss)
    ours = f"final loss above a point {REMAINS:.0%} up the gap, % of DiLoCo's"
    return Claim(f"{who} closes async DiLoCo's gap to DiLoCo", ours, interval(100 * above / sync.loss), "<", 0)
