"""Does the toy's order of outer methods predict a language model's? From finished leaderboards alone; trains nothing.

The verdict is Kendall's tau on the methods that are not among the findings F1-F8, for which the toy's preset was
searched, on the toy's board of the same cluster, which was fixed before any language model ran. Sync Nesterov is what
gaps are to, and is not ranked. Everything else is description: tau over all methods, on the toy's other clusters, and
which of these predicts best when it is chosen on half of the methods and judged on the other half.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toybench.compare import LEAST, REFERENCE, Agreement, Side, agreement, read_contest, sides, taus
from toybench.config import ConfigError
from toybench.leaderboard import contestants
from toybench.records import plain, write_json, write_whole
from toybench.statistics import rank_intervals
from toybench.study import ARMS, SEARCHED_FOR

RECORDS = Path(__file__).parent.parent / "records"
SPLITS, NULLS = 1000, 500  # of the methods into halves; random orders of the language model


def add(parser: argparse.ArgumentParser) -> None:
    toy, lm = RECORDS / "leaderboard.json", RECORDS / "bridge" / "leaderboard.json"
    text = "leaderboards of the toy, one or more (default: experiments/records/leaderboard.json)"
    parser.add_argument("--toy", nargs="+", default=[str(toy)], metavar="FILE", help=text)
    text = "leaderboards of language models (default: experiments/records/bridge/leaderboard.json)"
    parser.add_argument("--lm", nargs="+", default=[str(lm)], metavar="FILE", help=text)
    text = "what the language models are, a word for each (default: small language model on CPU)"
    parser.add_argument("--called", nargs="+", metavar="WORDS", help=text)
    parser.add_argument("--out", type=Path, default=RECORDS / "transfer", metavar="DIR", help="for table and figure")


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


def study(boards: Mapping[str, Side], second: Side) -> dict[str, Any]:
    """The toy against one board of a language model: verdict, description, and a row a method."""
    cluster = second.cluster.removesuffix("-scratch")
    own = own_board(boards, cluster)
    shared = [n for n in second.names if n != REFERENCE and all(n in side.names for side in boards.values())]
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
        "halves": halves(means, own, second.only(outside).losses.mean(1)) if len(outside) >= 2 * LEAST else None,
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
        f"half the toy agrees with itself to {a.within[0]:+.2f}, the {found['title']} to {a.within[1]:+.2f}. The best "
        f"of them on the toy ends {a.behind:.2f} % above the best on the {found['title']}."
    )


def plain_study(found: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON can say it."""

    def told(p: Prediction) -> dict[str, Any]:
        return p._asdict() | {"agreement": asdict(p.agreement)}

    lists = {key: [told(p) for p in found[key]] for key in ("all", "outside")}
    split = found["halves"] and found["halves"]._asdict()
    return plain({**found, **lists, "verdict": told(found["verdict"]), "halves": split})


def run(options: argparse.Namespace) -> int:
    """Read the records, and write ``transfer.json``, ``.md`` and a figure for each board of a language model."""
    from experiments.accelerator.transfer_report import figure, markdown
    from toybench.records import writable_folder

    called = options.called or ["small language model on CPU"] * len(options.lm)
    if len(called) != len(options.lm):
        raise ConfigError("called", f"must name each of {len(options.lm)} language models, got {len(called)}")
    boards, out = toy_boards(options.toy), writable_folder(options.out)
    targets = [side for path, title in zip(options.lm, called) for side in sides(read_contest(path), title).values()]
    studies = [study(boards, side) for side in targets]
    sources = {"toy": [_shown(path) for path in options.toy], "lm": [_shown(path) for path in options.lm]}
    write_json(out / "transfer.json", {"sources": sources, "studies": [plain_study(found) for found in studies]})
    write_whole(out / "transfer.md", markdown(studies, sources))
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
