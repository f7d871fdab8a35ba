"""Does one contest's ranking predict another's? Kendall's tau over their methods, its interval and its null. No jax."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from toybench.config import ConfigError
from toybench.records import read_json
from toybench.statistics import Interval, interval, rank_intervals, relative_gap

REFERENCE, CONTROL = "sync nesterov", "control"
RATE = "outer.lr"
LEAST = 3  # methods, to speak of an order
RANKED = 5  # seeds, to speak of a rank's interval
DRAWS, PERMUTATIONS = 4000, 20_000
SPLITS = 200  # of the seeds into halves, at most


@dataclass(frozen=True)
class Side:
    """The methods of one contest on one cluster. M methods, S seeds."""

    title: str
    cluster: str
    names: tuple[str, ...]  # [M]
    losses: np.ndarray  # [M, S] final losses, each method at its own best settings
    searched: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict
    )  # best settings by method, where they are told

    def only(self, names: Sequence[str]) -> Side:
        """The side with these methods, in this order."""
        rows = [self.names.index(name) for name in names]
        return replace(self, names=tuple(names), losses=self.losses[rows])

    @property
    def gaps(self) -> list[Interval]:
        """Final losses above the reference's, per cent, paired by seed."""
        reference = self.losses[self.names.index(REFERENCE)]
        return [interval(relative_gap(loss, reference)) for loss in self.losses]


def read_contest(path: str) -> dict[str, Any]:
    """What `leaderboard` wrote.

    Raises:
        ConfigError: it is no such document, or of a version that did not keep the losses of every seed.
    """
    document = read_json(path)
    clusters = document.get("clusters") if isinstance(document, dict) else None
    if not isinstance(clusters, dict) or not all(isinstance(board, list) for board in clusters.values()):
        raise ConfigError(path, "is no leaderboard; expected a leaderboard.json")
    if not isinstance(document.get("changes", {}), dict):
        raise ConfigError(path, "is no leaderboard; expected changes of its preset by their keys")
    rows = [row for board in clusters.values() for row in board]
    if not all(isinstance(row, dict) and isinstance(row.get("name"), str) for row in rows):
        raise ConfigError(path, "is no leaderboard; expected a leaderboard.json")
    if not rows:
        raise ConfigError(path, "has no methods")
    if not all("losses" in row for row in rows):
        raise ConfigError(path, "lacks the losses of single seeds, as an earlier version wrote it; make it anew")
    for cluster, board in clusters.items():
        _check_board(path, cluster, board)
    return document


def _check_board(path: str, cluster: str, board: Sequence[Mapping[str, Any]]) -> None:
    names, counts = [row["name"] for row in board], set()
    if not re.fullmatch(r"\w[\w.-]*", cluster):
        raise ConfigError(path, f"has a cluster of an odd name, {cluster!r}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(path, f"has {twice[0]!r} more than once on {cluster}")
    for row in board:
        losses = row["losses"]
        if not isinstance(losses, list) or not all(type(x) in (int, float) and 0 < x < math.inf for x in losses):
            raise ConfigError(path, f"{row['name']} on {cluster}: expected losses that are positive numbers")
        counts.add(len(losses))
    if len(counts) > 1 or min(counts, default=2) < 2:
        raise ConfigError(path, f"expected the losses of the same seeds, two or more, of every method on {cluster}")


def sides(document: Mapping[str, Any], title: str) -> dict[str, Side]:
    """The clusters of a contest; the negative control, which is another method under its own name, left out."""
    found = {}
    for cluster, rows in document["clusters"].items():
        kept = [row for row in rows if row["name"] != CONTROL]
        losses = np.array([row["losses"] for row in kept], float)
        searched = {row["name"]: settings for row in kept if isinstance(settings := row.get("settings"), dict)}
        found[cluster] = Side(title, cluster, tuple(row["name"] for row in kept), losses, searched)
    return found


def searched_apart(first: Side, second: Side) -> str:
    """Which methods had more settings than the outer rate searched on one side alone: a sentence, or nothing."""
    said = []
    for side, other in ((first, second), (second, first)):
        methods = []
        for name in side.names:
            if name not in other.names or name not in side.searched or name not in other.searched:
                continue
            own, others = side.searched[name], other.searched[name]
            found = [f"{key.removeprefix('outer.')} {own[key]}" for key in own if key not in others and key != RATE]
            if found:
                methods.append(f"{name} ({', '.join(found)})")
        if methods:
            searched = f"On the {side.title} more than the outer rate was searched for {', '.join(methods)}"
            said.append(f"{searched}; not so on the {other.title}.")
    return " ".join(said)


def kendall(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Kendall's tau-b: the share of pairs in the same order less that in the other; nan where one side is all ties.

    Args:
        x: [M] numbers.
        y: [M] numbers.
        weight: [M] how often each is there; pairs of one with itself are no pairs. Once each if left out.
    """
    weight = np.ones(len(x)) if weight is None else weight
    pair = weight[:, None] * weight
    of_x, of_y = (np.sign(v[:, None] - v) for v in (x, y))
    ties = float(np.sqrt((pair * of_x**2).sum() * (pair * of_y**2).sum()))
    return float((pair * of_x * of_y).sum()) / ties if ties else float("nan")


def taus(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`kendall` of the same two orders on many choices of methods at once.

    Args:
        x: [M] numbers.
        y: [M] numbers.
        weights: [N, M] how often each method is in each choice.

    Returns:
        [N] tau-b of each; nan where a choice is all ties on one side.
    """
    of_x, of_y = (np.sign(v[:, None] - v) for v in (x, y))

    def total(pair: np.ndarray) -> np.ndarray:
        return np.sum((weights @ pair) * weights, axis=1)

    ties = np.sqrt(total(of_x**2) * total(of_y**2))
    return np.divide(total(of_x * of_y), ties, out=np.full(len(weights), np.nan), where=ties > 0)


@dataclass(frozen=True)
class Agreement:
    """How one order predicts another."""

    tau: float
    low: float  # 95 % bootstrap interval, over methods and over the seeds of each side
    high: float
    chance: float  # the share of random orders with a |tau| as large: the two-sided p-value
    needed: float  # the least |tau| that fewer than 5 % of random orders reach
    within: tuple[float, float]  # tau of each side's order with its own on other seeds at the same settings, by halves
    behind: float  # by how many per cent of loss the first side's best method is behind the best, on the second


def agreement(first: Side, second: Side) -> Agreement:
    """How the first side's order of methods predicts the second's; both have the same methods, in one order."""
    draw = np.random.default_rng(0)
    x, y = first.losses.mean(1), second.losses.mean(1)
    tau, count = kendall(x, y), len(x)
    drawn = []
    for _ in range(DRAWS):
        weight = np.bincount(draw.integers(count, size=count), minlength=count)
        a, b = (_redrawn(side.losses, draw) for side in (first, second))
        drawn.append(kendall(a, b, weight))
    low, high = np.nanquantile(drawn, (0.025, 0.975))  # nan: methods drawn that are all alike
    null = np.abs([kendall(x, draw.permutation(y)) for _ in range(PERMUTATIONS)])
    behind = 100 * (y[int(np.argmin(x))] / y.min() - 1)
    within = (_within(first.losses), _within(second.losses))
    return Agreement(tau, float(low), float(high), _share_beyond(null, abs(tau)), _needed(null), within, float(behind))


def _share_beyond(null: np.ndarray, tau: float) -> float:
    return (1 + int((null >= tau - 1e-9).sum())) / (1 + len(null))


def _needed(null: np.ndarray) -> float:
    """The least |tau| that fewer than 5 % of random orders reach: they come in steps."""
    return next((float(tau) for tau in np.unique(null.round(9)) if _share_beyond(null, tau) < 0.05), math.inf)


def _redrawn(losses: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    seeds = losses.shape[1]
    return losses[:, draw.integers(seeds, size=seeds)].mean(1)


def _within(losses: np.ndarray) -> float:
    """Mean tau between the orders on two halves of the seeds: noise of the data alone, for nothing is searched anew."""
    seeds, draw = losses.shape[1], np.random.default_rng(0)
    if seeds < 2:
        return float("nan")
    halves = list(combinations(range(seeds), seeds // 2)) if seeds <= 10 else None
    taus = []
    for i in range(min(SPLITS, len(halves)) if halves else SPLITS):
        one = np.array(halves[i]) if halves else draw.permutation(seeds)[: seeds // 2]
        other = np.setdiff1d(np.arange(seeds), one)
        taus.append(kendall(losses[:, one].mean(1), losses[:, other].mean(1)))
    return float(np.nanmean(taus))


def compare(first: Side, second: Side, methods: Sequence[str] | None = None) -> dict[str, Any]:
    """Two contests side by side, as a document: a row for each method of both, and how the orders agree.

    Raises:
        ConfigError: they share fewer than three methods, or a method asked for is not in both, or the reference is not.
    """
    shared = [name for name in first.names if name in second.names]
    for name in methods or ():
        if name not in shared:
            raise ConfigError("method", f"{name!r} is not in both; they share {', '.join(shared) or 'none'}")
    names = [name for name in shared if not methods or name in methods or name == REFERENCE]
    if REFERENCE not in names:
        raise ConfigError("methods", f"both must have {REFERENCE!r}, to which the gaps are")
    if len(names) < LEAST:
        raise ConfigError("methods", f"an order needs {LEAST} or more that are in both, got {', '.join(names)}")
    a, b = first.only(names), second.only(names)
    for side in (a, b):
        if not np.ptp(side.losses.mean(1)):
            raise ConfigError("methods", f"all end alike on {side.title}, {side.cluster}: there is no order")
    columns = {"gap": (a.gaps, b.gaps), "rank": (rank_intervals(a.losses), rank_intervals(b.losses))}
    rows = [
        {"name": name, **{what: [pair[0][i], pair[1][i]] for what, pair in columns.items()}}
        for i, name in enumerate(names)
    ]
    seeds = [a.losses.shape[1], b.losses.shape[1]]
    return {
        "titles": [a.title, b.title],
        "clusters": [a.cluster, b.cluster],
        "seeds": seeds,
        "searched_apart": searched_apart(a, b),
        "rows": sorted(rows, key=lambda row: row["rank"][0].mean),
        "agreement": agreement(a, b),
    }


def sentence(document: Mapping[str, Any]) -> str:
    """What came out, in a sentence or two."""
    found: Agreement = document["agreement"]
    count, (first, second) = len(document["rows"]), document["titles"]
    if found.chance >= 0.05:
        said = "not clearly better than chance"
    else:
        said = "better than chance" if found.tau > 0 else "the other way round, clearly"
    best = document["rows"][0]["name"]
    return (
        f"The order of {count} methods on the {first} predicts that on the {second} with a Kendall's tau of "
        f"{found.tau:+.2f} [{found.low:+.2f}, {found.high:+.2f}], p = {found.chance:.2g}: {said} (|tau| ≥ "
        f"{found.needed:.2f} is needed for 5 %). Half of the seeds against the other half, at the same settings, the "
        f"{first} agrees with itself to {found.within[0]:+.2f}, the {second} to {found.within[1]:+.2f}. The best on "
        f"the {first}, {best}, ends {found.behind:.2f} % above the best on the {second}."
    )


def markdown(documents: Sequence[Mapping[str, Any]]) -> str:
    """The comparison as Markdown, a section for each pair of clusters."""
    lines = []
    for document in documents:
        first, second = document["titles"]
        lines += [f"# {first} and {second}: {_clusters(document)}", "", sentence(document), ""]
        lines += [
            "Gap: final loss above sync Nesterov's, per cent, each method at the outer rate that its side's search "
            f"found, paired by seed, 95 % t-interval ({document['seeds'][0]} and {document['seeds'][1]} seeds). Rank: "
            f"with its 95 % bootstrap interval where there are {RANKED} seeds or more. The interval of tau: bootstrap "
            "over methods, as if they were drawn independently, and over the seeds of each side.",
            "",
            *([document["searched_apart"], ""] if document["searched_apart"] else []),
            f"| method | gap, {first} | gap, {second} | rank, {first} | rank, {second} |",
            "|---|---|---|---|---|",
        ]
        for row in document["rows"]:
            gaps = ["{:+.1f} [{:+.1f}, {:+.1f}]".format(*gap) for gap in row["gap"]]
            ranks = rank_words(row["rank"], document["seeds"])
            lines.append(f"| {' | '.join([row['name'], *gaps, *ranks])} |")
        lines.append("")
    return "\n".join(lines)


def rank_words(ranks: Sequence[Interval], seeds: Sequence[int]) -> list[str]:
    """Ranks on both sides; an interval only where there are seeds enough to draw from."""
    return [
        "{:g} [{:g}, {:g}]".format(*rank) if count >= RANKED else f"{rank[0]:g}" for rank, count in zip(ranks, seeds)
    ]


def _clusters(document: Mapping[str, Any]) -> str:
    first, second = document["clusters"]
    return first if first == second else f"{first}, {second}"
