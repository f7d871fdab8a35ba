"""`toybench timeline`: the simulated arrivals of a cluster, no training."""

from __future__ import annotations

import argparse
from typing import Any

from toybench.arguments import add_configuration, configuration, flags
from toybench.config import LARGEST, ConfigError, Run
from toybench.console import print_json

MOST_WORKERS = 1_000_000


def add(parser: argparse.ArgumentParser, preset: Run) -> None:
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the shard draws (default 0)")
    text = "so many workers, spread over speeds, instead of cluster.sec_per_step"
    parser.add_argument("--workers", type=int, metavar="K", help=text)
    text = "of these workers: none, slight, moderate or very (default very)"
    parser.add_argument("--heterogeneity", metavar="LEVEL", help=text)
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="arrivals to print (default 20)")
    add_configuration(parser, preset)


def run(arguments: argparse.Namespace) -> int:
    from toybench.timeline import play

    config = configuration(arguments, spread(arguments))
    if not 0 <= arguments.seed < LARGEST:
        raise ConfigError("seed", f"must be from 0 to 2^31 - 1, got {arguments.seed}")
    if arguments.limit < 0:
        raise ConfigError("limit", f"must be >= 0, got {arguments.limit}")
    played = play(config.cluster, config.budget, arguments.seed)
    timeline = played.timeline
    if arguments.json:
        names = ("time", "worker", "shard", "num_steps", "first_step", "staleness")
        columns = [getattr(timeline, name).tolist() for name in names]
        lost = {"visits": len(played.lost), "local_steps": played.lost_steps}
        print_json({"lost": lost, "arrivals": [dict(zip(names, row)) for row in zip(*columns)]})
        return 0
    from toybench.report import lost_summary, show, timeline_summary, timeline_table

    show(timeline_table(timeline, arguments.limit), timeline_summary(timeline, config.cluster), *lost_summary(played))
    return 0


def spread(arguments: argparse.Namespace) -> dict[str, Any]:
    """The cluster that `--workers` and `--heterogeneity` ask for, as dotted keys.

    Raises:
        ConfigError: no such cluster, or speeds that are given too.
    """
    from toybench.clusters import cluster

    if arguments.workers is None:
        if arguments.heterogeneity is not None:
            raise ConfigError("heterogeneity", f"needs --workers, got {arguments.heterogeneity!r} alone")
        return {}
    if "cluster.sec_per_step" in flags(arguments):
        raise ConfigError("workers", "stands for cluster.sec_per_step; give one of the two")
    if not 1 <= arguments.workers <= MOST_WORKERS:
        raise ConfigError("workers", f"must be from 1 to {MOST_WORKERS:,}, got {arguments.workers}")
    return cluster(arguments.workers, arguments.heterogeneity or "very")
