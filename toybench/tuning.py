"""Every method at its own best settings: rates tried densely on tuning seeds, wider where the best is on an edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toybench.config import Run
from toybench.curves import Curves

Make = Callable[[Mapping[str, Any]], Run]  # from tuned settings, dotted keys, to a configuration
Measure = Callable[[Sequence[Run], Sequence[int]], Sequence[Curves]]  # runs on seeds: trains them, or reads them

CLIMBS = 6  # the rates that a climb goes beyond its first three, at most
OCTAVES, STEPS = 3, 8  # of a dense range: so many octaves, so many rates to the octave
SCOUTS = tuple(float(f"{0.003 * 2**i:.3g}") for i in range(11))  # an octave apart, from 0.003 to 3
FINALISTS = 5  # of a runoff
MORE_OCTAVES = 5  # that a scout goes beyond an edge, at most twice: Adam's rates are far below the others'


@dataclass(frozen=True)
class Tuning:
    """Final losses over outer rates, on tuning seeds."""

    rates: tuple[float, ...]  # ascending
    losses: tuple[tuple[float, ...], ...]  # [rates][seeds]; a diverged run counts as the untrained model
    seeds: tuple[int, ...]
    settings: dict[str, Any]  # what else was tuned, and to what
    runoff: tuple[tuple[float, float], ...] = ()  # rates run on more seeds, and their mean losses over all

    @property
    def means(self) -> dict[float, float]:
        """Rate -> mean loss, of those that went into the runoff if there was one."""
        return dict(self.runoff) or dict(zip(self.rates, np.mean(self.losses, axis=1).tolist()))

    @property
    def loss(self) -> float:
        """The least mean loss."""
        return min(self.means.values())

    @property
    def best(self) -> float:
        """The rate of the least mean loss."""
        return min(self.means, key=lambda rate: self.means[rate])

    @property
    def on_edge(self) -> bool:
        """Whether the best rate is the least or the greatest tried."""
        return self.best in (self.rates[0], self.rates[-1])

    @property
    def changes(self) -> dict[str, Any]:
        """What the tuning chose, as dotted keys."""
        return {"outer.lr": self.best} | self.settings


def rounded(rate: float) -> float:
    """A rate to three digits."""
    return float(f"{rate:.3g}")


def dense(low: float) -> tuple[float, ...]:
    """Rates over `OCTAVES` octaves from `low` on, `STEPS` to the octave: the loss can have two valleys along the rate,
    a few steps apart, and a coarse range steps over one."""
    return tuple(rounded(low * 2 ** (i / STEPS)) for i in range(OCTAVES * STEPS + 1))


def scout(make: Make, seeds: Sequence[int], measure: Measure) -> tuple[float, ...]:
    """The dense range around the best of a few rates an octave apart; more octaves where the best is on an edge."""
    losses: dict[float, float] = {}

    def best_of(rates: Sequence[float]) -> float:
        results = measure([make({"outer.lr": rate}) for rate in rates], seeds)
        losses.update((rate, float(result.final_loss.mean())) for rate, result in zip(rates, results))
        return min(sorted(losses), key=lambda rate: losses[rate])

    best = best_of(SCOUTS)
    for _ in range(2):
        if best not in (min(losses), max(losses)):
            break
        down = best == min(losses)
        best = best_of([rounded(best * 2.0 ** (-i if down else i)) for i in range(1, MORE_OCTAVES + 1)])
    return dense(best * 2 ** (-OCTAVES / 2))


def tune(make: Make, rates: Sequence[float], seeds: Sequence[int], measure: Measure, also: Sequence[Mapping] = ({},)):
    """The best `Tuning` of `tune_each`."""
    return min(tune_each(make, rates, seeds, measure, also), key=lambda tuning: tuning.loss)


def tune_each(
    make: Make,
    rates: Sequence[float],
    seeds: Sequence[int],
    measure: Measure,
    also: Sequence[Mapping[str, Any]] = ({},),
) -> list[Tuning]:
    """Try outer rates at each of some other settings, and widen a range while its best lies on an edge.

    Args:
        make: from tuned settings to a configuration.
        rates: where to begin, ascending and evenly spaced in their logarithms.
        seeds: on which; report on others.
        measure: trains, or reads from a store.
        also: other settings to try the rates at, dotted keys.

    Returns:
        A `Tuning` for each of `also`.
    """
    return [_tune_rate(make, dict(other), rates, seeds, measure) for other in also]


def _tune_rate(make: Make, settings: dict, rates: Sequence[float], seeds: Sequence[int], measure: Measure) -> Tuning:
    """Try every rate, and widen the range by the grid's own factor while the best lies on an edge."""
    table: dict[float, tuple[float, ...]] = {}

    def tried(new: Sequence[float]) -> Tuning:
        results = measure([make({"outer.lr": rate} | settings) for rate in new], seeds)
        table.update((rate, tuple(map(float, result.final_loss))) for rate, result in zip(new, results))
        order = sorted(table)
        return Tuning(tuple(order), tuple(table[rate] for rate in order), tuple(seeds), settings)

    factor = sorted(rates)[1] / min(rates)
    tuning = tried(rates)
    for _ in range(4):
        if not tuning.on_edge:
            break
        sign = -1 if tuning.best == tuning.rates[0] else 1
        tuning = tried([rounded(tuning.best * factor ** (sign * i)) for i in range(1, 5)])
    return tuning


def climb(
    make: Make,
    start: float,
    seeds: Sequence[int],
    measure: Measure,
    halves: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> Tuning:
    """The best of a few rates, where a run is dear: an octave apart from `start` to where both neighbours are worse,
    then half an octave to each side of the best, unless a run is so dear that an octave must do.

    Args:
        make: from tuned settings to a configuration.
        start: the rate in the middle of the first three.
        seeds: on which; report on others.
        measure: trains, or reads from a store.
        halves: go on to half octaves.
        settings: what else to set, dotted keys; the same at every rate.
    """
    table: dict[float, tuple[float, ...]] = {}
    settings = dict(settings or {})

    def tried(new: Sequence[float]) -> Tuning:
        results = measure([make({**settings, "outer.lr": rate}) for rate in new], seeds)
        table.update((rate, tuple(map(float, result.final_loss))) for rate, result in zip(new, results))
        order = sorted(table)
        return Tuning(tuple(order), tuple(table[rate] for rate in order), tuple(seeds), settings)

    tuning = tried([rounded(start * factor) for factor in (0.5, 1, 2)])
    for _ in range(CLIMBS):
        if not tuning.on_edge:
            break
        tuning = tried([rounded(tuning.best * (0.5 if tuning.best == tuning.rates[0] else 2))])
    return tried([rounded(tuning.best * 2**half) for half in (-0.5, 0.5)]) if halves else tuning


def run_off(make: Make, tunings: Sequence[Tuning], seeds: Sequence[int], measure: Measure) -> Tuning:
    """The best `FINALISTS` of all rates and settings tried, decided on more seeds: a few seeds pick a lucky one.

    Args:
        make: from tuned settings to a configuration.
        tunings: of one method, from `tune_each`.
        seeds: others than they were tuned on; report on still others.
        measure: trains, or reads from a store.

    Returns:
        The tuning with the winner, its finalists' mean losses over all seeds in `runoff`.
    """
    tried = [(loss, t, rate) for t, tuning in enumerate(tunings) for rate, loss in tuning.means.items()]
    finalists = sorted(tried)[:FINALISTS]
    results = measure([make({"outer.lr": rate} | tunings[t].settings) for _, t, rate in finalists], seeds)
    runoffs: dict[int, list[tuple[float, float]]] = {}
    for (loss, t, rate), result in zip(finalists, results):
        before = len(tunings[t].seeds)
        mean = (loss * before + float(result.final_loss.sum())) / (before + len(seeds))
        runoffs.setdefault(t, []).append((rate, mean))
    decided = [replace(tunings[t], runoff=tuple(sorted(runoff))) for t, runoff in runoffs.items()]
    return min(decided, key=lambda tuning: tuning.loss)


def most_runs(seeds: int, runoff_seeds: int, also: int = 1) -> int:
    """The runs that scouting, tuning with every widening, and a runoff may take at most."""
    rates = OCTAVES * STEPS + 1 + 16
    return seeds * (also * rates + len(SCOUTS) + 2 * MORE_OCTAVES) + FINALISTS * runoff_seeds
