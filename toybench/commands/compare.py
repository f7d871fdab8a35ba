"""`toybench compare`: two contests side by side: does the order of methods on one predict that on the other?"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from toybench.config import ConfigError, Run
from toybench.console import print_json
from toybench.loading import nearest

if TYPE_CHECKING:
    from toybench.compare import Side


def add(parser: argparse.ArgumentParser, preset: Run) -> None:
    text = "a leaderboard.json of `toybench leaderboard` or of `python -m lm leaderboard`"
    parser.add_argument("first", metavar="FIRST.json", help=text)
    parser.add_argument("second", metavar="SECOND.json", help="another")
    text = "which cluster of each; FIRST:SECOND where they are called otherwise (default: those that both have)"
    parser.add_argument("--clusters", nargs="+", metavar="NAME", help=text)
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="only these, and the reference")
    text = "what they are called (default: toy, language model, with what a board changes of its preset)"
    parser.add_argument("--titles", nargs=2, metavar="TITLE", help=text)
    parser.add_argument("--out", metavar="DIR", help="for the table and the figures")


def run(arguments: argparse.Namespace) -> int:
    from toybench.compare import compare, read_contest, sentence, sides
    from toybench.leaderboard import changes_of

    boards = [read_contest(path) for path in (arguments.first, arguments.second)]
    usual = [", ".join([title, *changes_of(board)]) for title, board in zip(("toy", "language model"), boards)]
    both = [sides(board, title) for board, title in zip(boards, arguments.titles or usual)]
    documents = [compare(*pair, arguments.methods) for pair in pairs(both[0], both[1], arguments.clusters)]
    if arguments.out is not None:
        save(documents, arguments.out)
    if arguments.json:
        print_json([plain_agreement(document) for document in documents])
        return 0
    from toybench.report import compare_table, show

    for document in documents:
        show(compare_table(document))
        print(sentence(document))
    return 0


def pairs(first: dict[str, Side], second: dict[str, Side], names: list[str] | None) -> list[tuple[Side, Side]]:
    """The clusters to compare.

    Raises:
        ConfigError: an unknown name, or none that both have.
    """
    if names is None:
        names = [name for name in first if name in second]
        if not names:
            said = f"none is in both: {', '.join(first)}; {', '.join(second)}; FIRST:SECOND pairs two"
            raise ConfigError("clusters", said)
    found = []
    for name in names:
        one, _, other = name.partition(":")
        chosen = []
        for side, own in ((first, one), (second, other or one)):
            if own not in side:
                raise ConfigError("clusters", f"unknown {own!r}; {nearest(own, side)}")
            chosen.append(side[own])
        found.append((chosen[0], chosen[1]))
    return found


def plain_agreement(document: dict[str, Any]) -> dict[str, Any]:
    """As JSON."""
    from dataclasses import asdict

    return document | {"agreement": asdict(document["agreement"])}


def save(documents: list[dict[str, Any]], folder: str) -> None:
    """``compare.json``, ``.md`` and a figure for each pair of clusters."""
    from toybench.compare import markdown
    from toybench.plots.compare import draw
    from toybench.plots.style import SIZES, rendered, styled
    from toybench.records import plain, writable_folder, write_json, write_whole

    out = writable_folder(folder)
    write_json(out / "compare.json", plain([plain_agreement(document) for document in documents]))
    write_whole(out / "compare.md", markdown(documents))
    for document in documents:
        name = "-".join(dict.fromkeys(document["clusters"]))
        path = out / f"compare-{name}.png"
        with styled(SIZES["screen"]):
            write_whole(path, rendered(draw(document), path))
        print(path, file=sys.stderr)
