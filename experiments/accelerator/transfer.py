"""Does the toy's order of outer methods predict a language model's? From finished leaderboards alone; trains nothing.

The verdict is Kendall's tau on the methods that are not among the findings F1-F8, for which the toy's preset was
searched, on the toy's board of the same cluster, which was fixed before any language model ran. Sync Nesterov is what
gaps are to, and is not ranked. Everything else is description: tau over all methods, on the toy's other clusters, and
which of these predicts best when it is chosen on half of the methods and judged on the other half.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toybench.compare import (
    LEAST,
    REFERENCE,
    Agreement,
    Side,
    agreement,
    read_contest,
    searched_apart,
    sides,
    taus,
)
from toybench.config import ConfigError
from toybench.leaderboard import contestants
from toybench.records import plain, write_json, write_whole
from toybench.statistics import Interval, rank_intervals
from toybench.study import ARMS, SEARCHED_FOR

RECORDS = Path(__file__).parent.parent / "records"
SPLITS, NULLS = 1000, 500  # of the methods into halves; random orders of the language model
SHUFFLES = 5000  # of its losses, among methods that a rule does not tell apart


def add(parser: argparse.ArgumentParser) -> None:
    toy, lm = RECORDS / "leaderboard.json", RECORDS / "bridge" / "leaderboard.json"
    text = "leaderboards of the toy, one or more (default: experiments/records/leaderboard.json)"
    parser.add_argument("--toy", nargs="+", default=[str(toy)], metavar="FILE", help=text)
    text = "leaderboards of language models (default: experiments/records/bridge/leaderboard.json)"
    parser.add_argument("--lm", nargs="+", default=[str(lm)], metavar="FILE", help=text)
    text = "what the language models are, a word for each (default: small language model on CPU)"
    parser.add_argument("--called", nargs="+", metavar="WORDS", help=text)
    text = "leaderboards of the same runs, some methods with other settings: these also in the place of theirs"
    parser.add_argument("--over", nargs="+", default=[], metavar="FILE", help=text)
    out = Path("results/transfer")
    parser.add_argument("--out", type=Path, default=out, metavar="DIR", help="for tables and figures")


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


def toy_boards(paths: Sequence[str]) -> dict[str, Side]:
    """Every cluster of every toy leaderboard, by preset and cluster."""
    found: dict[str, Side] = {}
    for path in paths:
        document = read_contest(path)
        for cluster, side in sides(document, "toy").items():
            name = f"{document.get('preset', Path(path).stem)}/{cluster}"
            if name in found:
                raise ConfigError("toy", f"{name} is in more than one of the leaderboards")
            found[name] = side
    return found


def own_board(boards: Mapping[str, Side], cluster: str) -> str:
    """The first board of a cluster: the one that was fixed beforehand.

    Raises:
        ConfigError: there is none.
    """
    for name in boards:
        if name.partition("/")[2] == cluster:
            return name
    raise ConfigError("toy", f"no leaderboard has the cluster {cluster!r}; they have {', '.join(boards)}")


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


def methods_of(boards: Mapping[str, Side], second: Side) -> list[str]:
    """The methods that are ranked: in all boards, without the reference."""
    return [n for n in second.names if n != REFERENCE and all(n in side.names for side in boards.values())]


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


def study(boards: Mapping[str, Side], second: Side, over: Sequence[Side] = ()) -> dict[str, Any]:
    """The toy against one board of a language model: verdict, description, and a row a method."""
    cluster = second.cluster.removesuffix("-scratch")
    own = own_board(boards, cluster)
    shared = methods_of(boards, second)
    outside = [name for name in shared if name not in searched_for()]
    if REFERENCE not in second.names or REFERENCE not in boards[own].names:
        raise ConfigError("methods", f"both must have {REFERENCE!r}, to which the gaps are")
    means = {name: side.only(outside).losses.mean(1) for name, side in boards.items()}
    verdict = predicted(own, boards[own], second, outside)
    return {
        "title": second.title,
        "cluster": second.cluster,
        "board": own,
        "seeds": [boards[own].losses.shape[1], second.losses.shape[1]],
        "verdict": verdict,
        "all": [predicted(name, side, second, shared) for name, side in boards.items()],
        "outside": [predicted(name, side, second, outside) for name, side in boards.items()],
        "rule": [against_rule(boards[own], second, methods) for methods in (outside, shared)],
        "halves": halves(means, own, second.only(outside).losses.mean(1)) if len(outside) >= 2 * LEAST else None,
        "searched_apart": searched_apart(boards[own].only(shared), second.only(shared)),
        "replaced": [replaced(boards, own, second, above) for above in over if same_runs(second, above)],
        "rows": method_rows(boards[own], second, shared),
    }


def method_rows(first: Side, second: Side, methods: Sequence[str]) -> list[dict[str, Any]]:
    """Gaps to the reference (per cent, 95 % t-interval) and ranks of each method on both sides."""
    gaps = [dict(zip(side.names, side.gaps)) for side in (first, second)]
    ranks = [rank_intervals(side.only(methods).losses) for side in (first, second)]
    found = [
        {
            "name": name,
            "searched_for": name in searched_for(),
            "gap": [gap[name] for gap in gaps],
            "rank": [rank[i] for rank in ranks],
        }
        for i, name in enumerate(methods)
    ]
    return sorted(found, key=lambda row: row["rank"][0].mean)


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


def sentence(found: Mapping[str, Any]) -> str:
    """The verdict."""
    verdict: Prediction = found["verdict"]
    a = verdict.agreement
    words = "better than chance" if a.tau > 0 else "the other way round, clearly"
    if a.chance >= 0.05:
        words = "not clearly better than chance"
    return (
        f"On the {len(verdict.methods)} methods outside F1-F8, the toy's {verdict.board} predicts the order of the "
        f"{found['title']} with Kendall's tau {a.tau:+.2f} [{a.low:+.2f}, {a.high:+.2f}], p = {a.chance:.2g} against "
        f"random orders: {words} (|tau| ≥ {a.needed:.2f} is needed for 5 %). Half of its own seeds against the other "
        f"half, at the same settings, the toy agrees with itself to {a.within[0]:+.2f}, the {found['title']} to "
        f"{a.within[1]:+.2f}. The best of them on the toy ends {a.behind:.2f} % above the best on the {found['title']}."
    )


def plain_study(found: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON can say it."""

    def told(p: Prediction) -> dict[str, Any]:
        return p._asdict() | {"agreement": asdict(p.agreement)}

    lists = {key: [told(p) for p in found[key]] for key in ("all", "outside")}
    lists["replaced"] = [r._asdict() | {"outside": told(r.outside), "every": told(r.every)} for r in found["replaced"]]
    lists["rule"] = [one and one._asdict() for one in found["rule"]]
    split = found["halves"] and found["halves"]._asdict()
    return plain({**found, **lists, "verdict": told(found["verdict"]), "halves": split})


def run(options: argparse.Namespace) -> int:
    """Read the records, and write ``transfer.json``, ``.md`` and a figure for each board of a language model."""
    from experiments.accelerator.transfer_report import figure, markdown
    from toybench.records import writable_folder

    called = options.called or ["small language model on CPU"] * len(options.lm)
    if len(called) != len(options.lm):
        raise ConfigError("called", f"must name each of {len(options.lm)} language models, got {len(called)}")
    boards = toy_boards(options.toy)
    targets = [side for path, title in zip(options.lm, called) for side in sides(read_contest(path), title).values()]
    over = [side for path in options.over for side in sides(read_contest(path), path).values()]
    for one in over:
        if not any(same_runs(one, side) for side in targets):
            raise ConfigError("over", f"{one.title!r}: no language model has the same runs of {REFERENCE}")
        if not any({*one.names} & {*side.names} - {REFERENCE} for side in targets if same_runs(one, side)):
            names = ", ".join(one.names)
            raise ConfigError("over", f"{one.title!r}: the language model has none of its methods, {names}")
    out = writable_folder(options.out)
    studies = [study(boards, side, over) for side in targets]
    sources = {"toy": [_shown(path) for path in options.toy], "lm": [_shown(path) for path in options.lm]}
    sources |= {"called": called} | ({"over": [_shown(path) for path in options.over]} if over else {})
    methods, between = yardsticks(boards, targets)
    rows = [y._asdict() | {"outside": asdict(y.outside), "every": asdict(y.every)} for y in between]
    told = {"sources": sources, "studies": [plain_study(found) for found in studies]}
    write_json(out / "transfer.json", told | {"yardsticks": {"methods": methods, "rows": plain(rows)}})
    write_whole(out / "transfer.md", markdown(studies, sources | {"out": [_shown(str(out))]}, methods, between))
    for number, found in enumerate(studies):
        name = "transfer.png" if number == 0 else f"transfer-{number + 1}.png"
        write_whole(out / name, figure(found))
    for found in studies:
        print(sentence(found))
    print(out / "transfer.md")
    return 0


def _shown(path: str) -> str:
    """A path as it is told: within the project from its root."""
    whole, root = Path(path).resolve(), RECORDS.parent.parent
    return str(whole.relative_to(root)) if whole.is_relative_to(root) else Path(path).name
