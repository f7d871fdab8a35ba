"""How the toy's order of outer methods predicts a language model's: what is measured of finished boards.

On the methods outside F1-F8 and on all; on boards that change some settings; against a rule that knows nothing of the
toy; when the toy's board is chosen on half of the methods; and what two language models, or two toys, agree to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from toybench.compare import LEAST, REFERENCE, Agreement, Side, agreement, searched_apart, taus
from toybench.config import ConfigError
from toybench.leaderboard import contestants
from toybench.statistics import Interval
from toybench.study import ARMS, SEARCHED_FOR

SPLITS, NULLS = 1000, 500  # of the methods into halves; random orders of the language model
SHUFFLES = 5000  # of its losses, among methods that a rule does not tell apart


def searched_for() -> tuple[str, ...]:
    """The methods of F1-F8, as a leaderboard calls them; equal speeds are a cluster there, no method."""
    names = {_key(one.changes): name for name, one in contestants().items()}
    return tuple(dict.fromkeys(names[_key(ARMS[arm][1])] for arm in SEARCHED_FOR))


def _key(changes: Mapping[str, Any]) -> tuple:
    return tuple(sorted((key, str(value)) for key, value in changes.items()))


class Prediction(NamedTuple):
    """How a board of the toy predicts one of a language model, on some methods."""

    board: str  # of the toy: preset and cluster
    methods: tuple[str, ...]
    agreement: Agreement


def predicted(board: str, first: Side, second: Side, methods: Sequence[str]) -> Prediction:
    """See `Prediction`.

    Raises:
        ConfigError: too few methods for an order, or they all end alike.
    """
    if len(methods) < LEAST:
        said = f"an order needs {LEAST} or more that are in both, got {', '.join(methods) or 'none'}"
        raise ConfigError("methods", said)
    one, other = first.only(methods), second.only(methods)
    for side in (one, other):
        if not np.ptp(side.losses.mean(1)):
            raise ConfigError("methods", f"all end alike on {side.title}, {side.cluster}: there is no order")
    return Prediction(board, tuple(methods), agreement(one, other))


def own_board(boards: Mapping[str, Side], cluster: str) -> str:
    """The first board of a cluster: the one that was fixed beforehand.

    Raises:
        ConfigError: there is none.
    """
    for name in boards:
        if name.rpartition("/")[2] == cluster:
            return name
    raise ConfigError("toy", f"no leaderboard has the cluster {cluster!r}; they have {', '.join(boards)}")


def methods_of(boards: Mapping[str, Side], second: Side) -> list[str]:
    """The methods that are ranked: in all boards, without the reference."""
    return [n for n in second.names if n != REFERENCE and all(n in side.names for side in boards.values())]


class Halves(NamedTuple):
    """Which board of the toy predicts best, chosen on half of the methods and judged on the other half."""

    judged: float  # mean tau of the chosen board on the half that it was not chosen on
    spread: tuple[float, float]  # its 95 % range over the splits, which share methods: no confidence interval
    fixed: float  # mean tau, on the same halves, of the board of the language model's own cluster
    chance: float  # share of random orders of the language model with a mean as large: one-sided p-value
    chosen: dict[str, float]  # board -> share of the splits that chose it


def halves(boards: Mapping[str, np.ndarray], own: str, second: np.ndarray) -> Halves:
    """Choose and judge, over random splits, and as often on random orders.

    Args:
        boards: of the toy, by name: mean losses [M].
        own: the board of the language model's own cluster.
        second: mean losses [M] of the language model.
    """
    draw, names, count = np.random.default_rng(0), list(boards), len(second)
    weights = np.zeros((SPLITS, count))
    for row in weights:
        row[draw.permutation(count)[: count // 2]] = 1

    def table(y: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        return np.nan_to_num(np.stack([taus(boards[name], y, chosen) for name in names]))  # [boards, splits]

    def judge(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        seen, judged = table(y, weights), table(y, 1 - weights)
        best = seen.argmax(0)  # the first of equals
        return best, judged[best, np.arange(SPLITS)], judged[names.index(own)]

    best, taken, fixed = judge(second)
    null = np.array([judge(draw.permutation(second))[1].mean() for _ in range(NULLS)])
    share = {name: float((best == i).mean()) for i, name in enumerate(names)}
    low, high = np.quantile(taken, (0.025, 0.975))
    chance = float((1 + (null >= taken.mean() - 1e-9).sum()) / (1 + NULLS))
    return Halves(float(taken.mean()), (float(low), float(high)), float(fixed.mean()), chance, share)


class Rule(NamedTuple):
    """The toy beside a rule that knows nothing of it: methods with DyLU before those without. Pairs of methods."""

    methods: int
    ordered: int  # pairs, of one method with and one without
    by_rule: int  # of these, those that the language model has in the rule's order, less those in the other
    by_toy: int  # of these, likewise, in the toy's order
    others: int  # pairs of which the rule says nothing
    others_by_toy: int  # of these, as `by_toy`
    chance: float  # two-sided p-value of that, the language model's losses shuffled within those with and without


def against_rule(first: Side, second: Side, methods: Sequence[str]) -> Rule | None:
    """See `Rule`; None where all methods have DyLU, or none."""
    draw, dylu = np.random.default_rng(0), np.array([name.endswith("+ DyLU") for name in methods])
    if dylu.all() or not dylu.any():
        return None
    x, y = (side.only(methods).losses.mean(1) for side in (first, second))
    once = np.triu(np.ones((len(methods),) * 2, bool), 1)
    mixed = once & (dylu[:, None] ^ dylu)

    def net(a: np.ndarray, b: np.ndarray, pairs: np.ndarray) -> int:
        return int((np.sign(a[:, None] - a) * np.sign(b[:, None] - b))[pairs].sum())

    def shuffled() -> np.ndarray:
        z = y.copy()
        for group in (dylu, ~dylu):
            z[group] = draw.permutation(z[group])
        return z

    seen = net(x, y, once & ~mixed)
    null = [abs(net(x, shuffled(), once & ~mixed)) >= abs(seen) for _ in range(SHUFFLES)]
    chance = (1 + sum(null)) / (1 + SHUFFLES)
    ordered, others = int(mixed.sum()), int((once & ~mixed).sum())
    return Rule(len(methods), ordered, net(1.0 - dylu, y, mixed), net(x, y, mixed), others, seen, chance)


def same_runs(first: Side, second: Side) -> bool:
    """Whether two boards are of one model on one cluster and seeds: their references end alike, but for rounding."""
    if first.cluster != second.cluster or REFERENCE not in first.names or REFERENCE not in second.names:
        return False
    one, other = (side.only([REFERENCE]).losses for side in (first, second))
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-5, atol=0))


def laid_over(below: Side, above: Side) -> Side:
    """A board with the methods of another of the same runs in the place of those of the same name."""
    losses, searched = below.losses.copy(), {**below.searched}
    for name in above.names:
        if name in below.names and name != REFERENCE:
            losses[below.names.index(name)] = above.losses[above.names.index(name)]
            searched[name] = above.searched.get(name, {})
    return replace(below, losses=losses, searched=searched)


class Replaced(NamedTuple):
    """A prediction when some methods have other settings."""

    methods: tuple[str, ...]
    left_out: tuple[str, ...]  # of the other board, not on this one
    gaps: tuple[Interval, ...]  # of `methods`, to the reference, per cent
    outside: Prediction
    every: Prediction
    searched_apart: str


def replaced(boards: Mapping[str, Side], own: str, second: Side, above: Side) -> Replaced:
    """See `Replaced`; of the toy's own board, on the methods that all boards have."""
    new = laid_over(second, above)
    shared = methods_of(boards, second)
    outside = [name for name in shared if name not in searched_for()]
    methods = tuple(name for name in above.names if name in second.names and name != REFERENCE)
    return Replaced(
        methods,
        tuple(name for name in above.names if name not in second.names),
        tuple(new.gaps[new.names.index(name)] for name in methods),
        predicted(own, boards[own], new, outside),
        predicted(own, boards[own], new, shared),
        searched_apart(boards[own].only(shared), new.only(shared)),
    )


class Yardstick(NamedTuple):
    """How well one board's order predicts another's, on the methods that all boards have."""

    first: str
    second: str
    outside: Agreement  # on those outside F1-F8
    every: Agreement


def yardsticks(boards: Mapping[str, Side], targets: Sequence[Side]) -> tuple[list[str], list[Yardstick]]:
    """What a tau of toy and language model is to be held against: that of two language models, and of two toys.

    Args:
        boards: of the toy, by name.
        targets: of language models.

    Returns:
        The methods, and a row for each pair of two language models, then one for the toy's own board with each of
        them, then one for that board with each other of the toy's. Nothing where there is one language model, or fewer
        than three methods outside F1-F8 are in all.
    """
    shared = [n for n in targets[0].names if n != REFERENCE and all(n in s.names for s in (*boards.values(), *targets))]
    outside = [name for name in shared if name not in searched_for()]
    if len(targets) < 2 or len(outside) < LEAST:
        return [], []
    own = own_board(boards, targets[0].cluster.removesuffix("-scratch"))
    models = [(f"{side.title}, {side.cluster}", side) for side in targets]
    first = (f"toy, {own}", boards[own])
    toys = [(f"toy, {name}", side) for name, side in boards.items() if name != own]
    pairs = [*combinations(models, 2), *((first, other) for other in (*models, *toys))]

    def agree(one: Side, other: Side, methods: Sequence[str]) -> Agreement:
        return agreement(one.only(methods), other.only(methods))

    return shared, [Yardstick(a, b, agree(x, y, outside), agree(x, y, shared)) for (a, x), (b, y) in pairs]
