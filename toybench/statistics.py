"""Honest comparisons: differences paired by seed, t-intervals, and a rule for when a statement holds."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy import special

Status = Literal["holds", "does not hold", "undecided"]
Relation = Literal[">", "<"]


class Interval(NamedTuple):
    """A mean and its two-sided t-interval."""

    mean: float
    low: float
    high: float


def interval(samples: np.ndarray, level: float = 0.95) -> Interval:
    """Student's t-interval of the mean of independent samples [S], S >= 2."""
    mean, low, high = band(samples, level)
    return Interval(float(mean), float(low), float(high))


def band(samples: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The intervals of many means: samples [S, ...], S >= 2, to mean, low and high, each [...]."""
    samples = np.asarray(samples, float)
    mean, spread = samples.mean(0), samples.std(0, ddof=1) / len(samples) ** 0.5
    margin = spread * special.stdtrit(len(samples) - 1, (1 + level) / 2)  # Student's t, without the load of scipy.stats
    return mean, mean - margin, mean + margin


def relative_gap(loss: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """[S] by how many per cent each seed's loss lies above the same seed's reference."""
    return 100 * (loss / reference - 1)


def decide(value: Interval, relation: Relation, bound: float) -> Status:
    """Whether a mean lies beyond a bound: only if its whole interval does, and not only if its whole interval does not.

    An interval that touches the bound decides nothing, so a method is undecided against itself.
    """
    if relation == "<":
        value, bound = Interval(-value.mean, -value.high, -value.low), -bound
    if value.low > bound:
        return "holds"
    return "does not hold" if value.high < bound else "undecided"


def all_of(statuses: list[Status]) -> Status:
    """A statement made of parts: it holds if all hold, and does not if one does not."""
    if "does not hold" in statuses:
        return "does not hold"
    return "undecided" if "undecided" in statuses else "holds"


def time_to_target(loss: np.ndarray, time: np.ndarray, target: float) -> float:
    """When a loss curve [n + 1] first comes down to a target, in the unit of `time`, linear between points.

    Returns:
        infinity if it never does: a censored time, not a large one.
    """
    below = np.flatnonzero(loss <= target)
    if not len(below):
        return float("inf")
    i = int(below[0])
    if i == 0 or not np.isfinite(loss[i - 1]):
        return float(time[i])
    share = (loss[i - 1] - target) / (loss[i - 1] - loss[i])
    return float(time[i - 1] + share * (time[i] - time[i - 1]))


def rank_intervals(losses: np.ndarray, draws: int = 4000) -> list[Interval]:
    """Ranks by mean loss, 1 the least, with 95 % bootstrap intervals over the seeds.

    Args:
        losses: [M, S] of M methods on the same S seeds, which are drawn together.
        draws: bootstrap samples; their generator is fixed, equal losses give equal intervals.
    """
    from scipy import stats

    picks = np.random.default_rng(0).integers(0, losses.shape[1], (draws, losses.shape[1]))
    ranks = stats.rankdata(losses[:, picks].mean(-1), axis=0)  # [M, draws]; ties share their mean rank
    low, high = np.quantile(ranks, (0.025, 0.975), axis=1)
    return [Interval(*map(float, row)) for row in zip(stats.rankdata(losses.mean(1)), low, high)]
