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
from typing import Any

from experiments.accelerator.orders import (
    Prediction,
    against_rule,
    halves,
    methods_of,
    own_board,
    predicted,
    replaced,
    same_runs,
    searched_for,
    yardsticks,
)
from toybench.compare import LEAST, REFERENCE, Side, read_contest, searched_apart, sides
from toybench.config import ConfigError
from toybench.leaderboard import changes_of
from toybench.records import plain, write_json, write_whole
from toybench.statistics import rank_intervals

RECORDS = Path(__file__).parent.parent / "records"


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


def toy_boards(paths: Sequence[str]) -> dict[str, Side]:
    """Every cluster of every toy leaderboard, by preset and cluster."""
    found: dict[str, Side] = {}
    for path in paths:
        document = read_contest(path)
        for cluster, side in sides(document, "toy").items():
            name = f"{', '.join([document.get('preset', Path(path).stem), *changes_of(document)])}/{cluster}"
            if name in found:
                raise ConfigError("toy", f"{name} is in more than one of the leaderboards")
            found[name] = side
    return found


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
