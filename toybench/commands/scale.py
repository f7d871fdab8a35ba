"""`toybench scale`: utilisation, goodput, staleness and bytes of rules of waiting, from ten workers to many."""

from __future__ import annotations

import argparse
import shlex
import sys

from toybench.arguments import add_configuration, configuration
from toybench.config import LARGEST, ConfigError, Run
from toybench.console import print_json, progress_bar

SIZES = (10, 100, 1000, 10_000, 100_000)
MOST_WORKERS = 1_000_000
GIVEN = ("sec_per_step", "shards", "barrier", "coalesce", "quorum", "grace", "dynamic_steps")


def add(parser: argparse.ArgumentParser, preset: Run) -> None:
    said = " ".join(map(str, SIZES))
    parser.add_argument("--workers", nargs="+", type=int, default=list(SIZES), metavar="K", help=f"(default {said})")
    parser.add_argument("--rules", nargs="+", metavar="RULE", help="of sync, async, grace, quorum, dylu (default all)")
    text = "of the workers: none, slight, moderate or very (default very)"
    parser.add_argument("--heterogeneity", default="very", metavar="LEVEL", help=text)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of shards and failures (default 0)")
    parser.add_argument("--out", metavar="DIR", help="also write scale.md, .json, .csv and .png there")
    add_configuration(parser, preset)


def run(arguments: argparse.Namespace) -> int:
    from toybench.commands.leaderboard import chosen
    from toybench.records import provenance, writable_folder
    from toybench.scale import COLUMNS, RULES, rows, save

    config = configuration(arguments)
    if not 0 <= arguments.seed < LARGEST:
        raise ConfigError("seed", f"must be from 0 to 2^31 - 1, got {arguments.seed}")
    if bad := [workers for workers in arguments.workers if not 1 <= workers <= MOST_WORKERS]:
        raise ConfigError("workers", f"must be from 1 to {MOST_WORKERS:,}, got {bad[0]}")
    for name in GIVEN:
        if getattr(arguments, f"cluster.{name}") is not None:
            raise ConfigError(f"cluster.{name}", "is what the sizes and rules choose here")
    rules = [*chosen("rules", arguments.rules, RULES)]
    out = None if arguments.out is None else writable_folder(arguments.out)
    found = []
    with progress_bar(len(arguments.workers) * len(rules)) as progress:
        for row in rows(
            config.cluster, config.budget, arguments.seed, arguments.workers, rules, arguments.heterogeneity
        ):
            found.append(row)
            progress(f"{row['workers']:,} workers, {row['rule']}", 1)
    document = {"command": shlex.join(["toybench", *sys.argv[1:]]), "columns": COLUMNS, "rows": found}
    if out is not None:
        save(document | {"provenance": provenance()}, out)
    if arguments.json:
        print_json(document)
    else:
        from toybench.report import scale_table, show

        show(scale_table(found))
    return 0
