"""`toybench run`: train one configuration on some seeds."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from toybench.arguments import add_configuration, add_seeds, configuration, read_seeds
from toybench.config import ConfigError, Run
from toybench.console import print_json, progress_bar
from toybench.engines import add_engine, carry_out_all, engine_of
from toybench.interrupt import INTERRUPT

if TYPE_CHECKING:
    from toybench.training import Result
    from toybench.transports.drive import Engine


def add(parser: argparse.ArgumentParser, preset: Run) -> None:
    add_seeds(parser, "4")
    parser.add_argument("--out", metavar="DIR", help="write run.json there")
    text = "watch the first seed arrival by arrival: momentum, pseudo-gradients, workers; takes one slow run more"
    parser.add_argument("--probe", action="store_true", help=text)
    parser.add_argument("--resume", action="store_true", help="of real workers: go on with what is in the folder")
    add_engine(parser)
    add_configuration(parser, preset)


def run(arguments: argparse.Namespace) -> int:
    engine = engine_of(arguments)
    return simulated(arguments) if engine is None else real(arguments, engine)


def real(arguments: argparse.Namespace, engine: Engine) -> int:
    """A run by real workers, on one seed."""
    config, seeds = configuration(arguments), read_seeds(arguments.seeds)
    if arguments.seeds == ["4"]:  # left out
        seeds = seeds[:1]
    if len(seeds) > 1 or arguments.probe:
        raise ConfigError("seeds, probe", "real workers train one seed, and are not watched: --seeds 0:1")
    from toybench.runtime import configure

    configure()
    from toybench.transports.work import toy_recipe

    arguments.out = arguments.out or "results/real"
    return carry_out_all({"run": toy_recipe(config, seeds[0])}, engine, arguments)


def simulated(arguments: argparse.Namespace) -> int:
    """A run on the simulated cluster, on some seeds."""
    if arguments.resume:
        raise ConfigError("resume", "is for real workers: it goes with --engine threads or ray")
    from toybench.records import record, writable_folder, write_json
    from toybench.runtime import configure

    config, seeds = configuration(arguments), read_seeds(arguments.seeds)
    configure()
    from toybench.training import check_memory, train

    check_memory(config, len(seeds), len(seeds))
    out = writable_folder(arguments.out) if arguments.out is not None else None
    with INTERRUPT.held():
        with progress_bar(len(seeds)) as progress:
            result = train(config, seeds, progress=lambda runs: progress("training", runs))[0]
        document, said = record(result), ""
        if arguments.probe:
            document["probes"], said = watch(config, seeds[0])
        try:
            if out is not None:
                write_json(out / "run.json", document)
        finally:  # a full disk is no reason not to show it
            print_json(document) if arguments.json else say(result, said)
    return 0


def say(result: Result, more: str) -> None:
    """What came of it, as tables."""
    from toybench.report import mean_and_spread, run_table, settings_line, show, timeline_summary

    seeds = len(result.seeds)
    show(settings_line(result.run), run_table(result), timeline_summary(result.timelines[0], result.run.cluster))
    ended = result.final_loss[~result.diverged]
    if len(ended):
        show(f"final loss {mean_and_spread(ended)} (mean ± standard deviation) over {len(ended)} seeds")
    if result.diverged.any():
        show(f"{result.diverged.sum()} of {seeds} seeds diverged")
    if more:
        show(more)


def watch(config: Run, seed: int) -> tuple[dict[str, Any], str]:
    """The probes of one seed as JSON, and as a line."""
    from toybench.probes import probe, record_probes, summary

    began = time.perf_counter()
    with progress_bar(1) as progress:
        probes = probe(config, seed, progress=lambda share: progress(f"watching seed {seed}", share))
    print(f"watched seed {seed}: {time.perf_counter() - began:.1f} s", file=sys.stderr)
    return record_probes(probes), summary(probes)
