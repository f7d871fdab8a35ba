"""`toybench leaderboard`: outer methods, each at its own best settings, on clusters of all kinds."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from toybench.arguments import add_preset, add_settings, add_store, flags, read_seeds
from toybench.config import ConfigError, Run
from toybench.console import print_json, progress_bar
from toybench.interrupt import INTERRUPT, INTERRUPTED

if TYPE_CHECKING:
    from toybench.leaderboard import Seeds


def add(parser: argparse.ArgumentParser, preset: Run) -> None:
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="only these, and the reference")
    parser.add_argument("--clusters", nargs="+", metavar="NAME", help="only these")
    add_contest(parser)
    parser.add_argument("--out", default="results/leaderboard", metavar="DIR", help="for the table and the figure")
    add_preset(parser)
    add_settings(parser, preset)
    parser.usage = f"{parser.prog} [METHOD ...] [--clusters NAME ...] [--SECTION.FIELD VALUE ...] ..."


def add_contest(parser: argparse.ArgumentParser) -> None:
    """What a tuning and its report need, for `leaderboard` and `tune`."""
    for flag, default, text in (
        ("tuning-seeds", "1000:1004", "rates are tried on"),
        ("runoff-seeds", "1004:1012", "the best five rates also on"),
        ("seeds", "200:212", "reported"),
    ):
        parser.add_argument(f"--{flag}", nargs="+", default=[default], metavar="N", help=f"{text} (default {default})")
    parser.add_argument("--spend", type=int, default=100_000, metavar="RUNS", help="refuse if it may take more")
    parser.add_argument("--dry-run", action="store_true", help="only say how many runs it may take")
    add_store(parser)


def read_contest(arguments: argparse.Namespace) -> Seeds:
    """The seeds of a contest.

    Raises:
        ConfigError: one is to serve twice, or there is a single reported seed.
    """
    from toybench.leaderboard import Seeds

    seeds = Seeds(*map(read_seeds, (arguments.tuning_seeds, arguments.runoff_seeds, arguments.seeds)))
    every = [seed for own in seeds for seed in own]
    if twice := sorted({seed for seed in every if every.count(seed) > 1}):
        raise ConfigError("seeds", f"{twice} are among the tuning, the runoff and the reported seeds more than once")
    if len(seeds.reported) < 2:
        raise ConfigError("seeds", f"must be two or more, got {seeds.reported}")
    return seeds


def may_spend(arguments: argparse.Namespace, most: int) -> bool:
    """Whether to go on: not where only a number was asked for.

    Raises:
        ConfigError: it may take more runs than allowed.
    """
    said = f"{most:,} runs at most, widened ranges included"
    if arguments.dry_run:
        print_json({"most_runs": most}) if arguments.json else print(said)
        return False
    if most > arguments.spend:
        raise ConfigError("spend", f"{said}, got {arguments.spend:,}")
    print(said, file=sys.stderr)
    return True


def run(arguments: argparse.Namespace) -> int:
    from toybench.clusters import CLUSTERS
    from toybench.leaderboard import check, contestants, planned_runs, with_reference
    from toybench.loading import overlay

    seeds = read_contest(arguments)
    who = with_reference(chosen("method", arguments.methods, contestants()))
    where = chosen("clusters", arguments.clusters, CLUSTERS)
    base, changes = changed_preset(arguments)
    for _, cluster in where.values():
        check(overlay(base, cluster), who)
    if not may_spend(arguments, len(where) * sum(planned_runs(one, seeds) for one in who.values())):
        return 0
    from toybench.runtime import configure

    configure()
    from toybench.leaderboard import board, save
    from toybench.records import writable_folder
    from toybench.store import Store
    from toybench.sweep import measure

    out, began = writable_folder(arguments.out), time.perf_counter()
    document: dict[str, Any] = {}
    try:
        with INTERRUPT.held(), Store(arguments.store) as store, contest_bar(len(who) * len(where)) as (say, step):
            for document in board(base, where, who, seeds, partial(measure, store=store, progress=step), say):
                told = {"preset": arguments.preset, "changes": changes, "seconds": time.perf_counter() - began}
                save(document | told, out)
    except KeyboardInterrupt:
        print(f"interrupted; the same command goes on from {arguments.store}", file=sys.stderr)
        return INTERRUPTED
    if arguments.json:
        print_json(document)
    else:
        from toybench.report import leaderboard_table, show

        show(*(leaderboard_table(title, rows) for title, rows in document["clusters"].items()))
    print(f"{out / 'leaderboard.md'}   {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return 0


def changed_preset(arguments: argparse.Namespace) -> tuple[Run, dict[str, Any]]:
    """The preset with the settings given, and these as dotted keys.

    Raises:
        ConfigError: a setting that the methods or the clusters differ by, or that is tuned; or one that cannot be.
    """
    from toybench.axes import differences
    from toybench.clusters import CLUSTERS
    from toybench.loading import overlay_text
    from toybench.presets import load_preset
    from toybench.study import ASYNC

    words = flags(arguments)
    clusters = {key for _, changes in CLUSTERS.values() for key in changes}
    if refused := sorted({"outer.method", "outer.lr", *ASYNC, *clusters} & {key.replace("-", "_") for key in words}):
        raise ConfigError(refused[0], "is what the methods or the clusters differ by, or what is tuned")
    preset = load_preset(arguments.preset)
    base = overlay_text(preset, words)
    return base, differences([preset, base])[1]


@contextmanager
def contest_bar(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[float, float | None], None]]]:
    """A bar of contestants: what names the one that begins, and what is told of its runs."""
    names: list[str] = []
    with progress_bar(total) as progress:

        def say(name: str) -> None:
            progress(name, 1 if names else 0)  # the one before is done
            names.append(name)

        yield say, lambda done, best: progress(names[-1], 0)


def chosen(field: str, names: list[str] | None, known: dict[str, Any]) -> dict[str, Any]:
    """Those of the names, or everything.

    Raises:
        ConfigError: an unknown name.
    """
    from toybench.loading import nearest

    for name in names or []:
        if name not in known:
            raise ConfigError(field, f"unknown {name!r}; {nearest(name, known)}")
    return {name: known[name] for name in names} if names else known
