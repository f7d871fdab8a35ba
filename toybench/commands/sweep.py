"""`toybench sweep`: thousands of runs over any settings, into a store, resumable at any moment."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toybench.arguments import (
    add_configuration,
    add_seeds,
    add_store,
    file_tables,
    flags,
    flatten,
    read_seeds,
    told_of_file,
)
from toybench.config import ConfigError, Run
from toybench.console import print_json, sweep_bar
from toybench.engines import DEVICES, add_devices, devices_of
from toybench.interrupt import INTERRUPT, INTERRUPTED
from toybench.presets import load_preset

if TYPE_CHECKING:
    from toybench.curves import Curves
    from toybench.search import Search
    from toybench.store import Plan, Store
    from toybench.sweep import Force

MOST_RUNS = 100_000  # without --yes


def add(parser: argparse.ArgumentParser, preset: Run) -> None:
    group = parser.add_argument_group("axes", "swept is their product; VALUES is a,b,c or log:LOW:HIGH:N or linear:…")
    group.add_argument("--grid", action="append", default=[], metavar="KEY=VALUES", help="an axis of one key")
    group.add_argument(
        "--zip", action="append", nargs="+", default=[], metavar="KEY=VALUES", help="keys moved together"
    )
    text = "a key drawn at random: a,b,c or log:LOW:HIGH or linear:LOW:HIGH"
    group.add_argument("--draw", action="append", default=[], metavar="KEY=RANGE", help=text)
    group.add_argument("--samples", type=int, metavar="N", help="how many draws")
    group.add_argument("--sobol", action="store_true", help="a scrambled Sobol sequence instead of random numbers")
    group.add_argument("--draw-seed", type=int, default=0, metavar="N", help="of the draws (default 0)")
    text = "propose the draws from what came of those before, in batches (needs the extra `search`)"
    group.add_argument("--search", choices=["tpe"], help=text)
    group.add_argument("--batch", type=int, default=16, metavar="N", help="proposals of a batch (default 16)")
    add_seeds(parser, "4")
    parser.add_argument(
        "--name", metavar="NAME", help="of the sweep in the store (default: the file's, or 'sweep', numbered)"
    )
    parser.add_argument("--resume", action="store_true", help="finish the sweep of that name, as it was planned")
    parser.add_argument("--yes", action="store_true", help=f"even if it is more than {MOST_RUNS:,} runs")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be run")
    add_store(parser)
    group = parser.add_argument_group("other processes, on this machine or many")
    text = "ray: calls are trained by actors of Ray, as many as fit (extra `ray`); the default is this process"
    group.add_argument("--engine", choices=("ray",), help=text)
    group.add_argument("--address", metavar="HOST:PORT", help="of a running Ray (default: one is started here)")
    add_devices(group)
    add_configuration(parser, preset)
    parser.set_defaults(untouched=vars(parser.parse_args([])))  # what --resume must leave as it is


def run(arguments: argparse.Namespace) -> int:
    from toybench.runtime import configure

    if arguments.resume:
        return resume(arguments)
    runs, seeds, search = wanted(arguments)
    configure()
    from toybench.store import Plan, Store
    from toybench.sweep import check_name, only_one, plan_calls

    if arguments.name is not None:
        check_name(arguments.name)
    plan = Plan("", runs, tuple(seeds), plan_calls(runs, seeds), search and search.document())
    if arguments.dry_run:
        return say_plan(plan, arguments.json)
    with Store(arguments.store) as store:
        name = free_name(store, arguments.file) if arguments.name is None else arguments.name
        with only_one(store, name), force_of(arguments) as force:
            store.begin(plan._replace(name=name), force.made_by)
            return carry_out(store, plan._replace(name=name), force, arguments.json)


@contextmanager
def force_of(arguments: argparse.Namespace) -> Iterator[Force]:
    """Who trains, as the flags ask for it."""
    given = ({} if arguments.address is None else {"address": arguments.address}) | devices_of(arguments)
    if arguments.engine is None:
        from toybench.sweep import here

        if given:
            raise ConfigError(next(iter(given)), "goes with --engine ray")
        yield here()
        return
    from toybench.transports.ray.force import force

    with force(**given) as found:
        yield found


def resume(arguments: argparse.Namespace) -> int:
    """Finish a sweep as it was planned."""
    from toybench.runtime import configure

    free = {"engine", "address", *DEVICES}
    planned = set(arguments.untouched) - {"resume", "name", "store", "json", "dry_run", "yes"} - free
    if said := [key for key in sorted(planned) if getattr(arguments, key) != arguments.untouched[key]]:
        raise ConfigError("resume", f"a sweep is resumed as it was planned; leave out {', '.join(said)}")
    if not arguments.name:
        raise ConfigError("resume", "--name says which sweep; `toybench records sweeps` lists them")
    configure()
    from toybench.store import Store
    from toybench.sweep import only_one, resumed

    with Store(arguments.store, make=False) as store:
        if arguments.dry_run:
            return say_plan(resumed(store, arguments.name), arguments.json)
        with only_one(store, arguments.name), force_of(arguments) as force:
            return carry_out(store, resumed(store, arguments.name, force), force, arguments.json)


def free_name(store: Store, file: str | None) -> str:
    """The file's name, or 'sweep', numbered where it is taken."""
    taken = {entry["sweep"] for entry in store.sweeps()}
    stem = re.sub(r"[^\w.-]", "-", Path(file).stem if file else "sweep")
    return next(name for name in (stem, *(f"{stem}-{i}" for i in range(2, len(taken) + 3))) if name not in taken)


def wanted(arguments: argparse.Namespace) -> tuple[list[Run], list[int], Search | None]:
    """The runs and seeds that the file and the flags ask for; of a search no runs, but what it proposes them from."""
    if arguments.search is not None:
        return [], read_seeds(arguments.seeds), wanted_search(arguments)
    from toybench.axes import Axes, axes_of_file, axes_of_words

    tables, seeds = file_tables(arguments), read_seeds(arguments.seeds)
    spec, typed = tables.pop("sweep", {}), flatten(tables)
    if not arguments.draw and "draw" not in spec and (arguments.sobol or arguments.draw_seed):
        raise ConfigError("sobol" if arguments.sobol else "draw-seed", "is of --draw, which is not given")
    chosen = arguments.grid, arguments.zip, arguments.draw, arguments.samples
    words = axes_of_words(*chosen, sobol=arguments.sobol, seed=arguments.draw_seed)
    try:
        axes = Axes(axes_of_file(spec), words)
        total = axes.count * len(seeds)
        if total > MOST_RUNS and not arguments.yes:
            said = f"{axes.count:,} settings on {len(seeds)} seeds are {total:,} runs"
            raise ConfigError("runs", f"{said}; --yes means it")
        return axes.runs(load_preset(arguments.preset), typed, flags(arguments)), seeds, None
    except ConfigError as error:
        raise told_of_file(error, arguments, typed) from None


def wanted_search(arguments: argparse.Namespace) -> Search:
    """The search that the flags ask for."""
    from toybench.axes import read_draws
    from toybench.search import new_search

    tables = file_tables(arguments)
    if tables.pop("sweep", {}) or arguments.grid or arguments.zip or arguments.sobol:
        raise ConfigError("search", "takes its keys from --draw; leave out other axes")
    if not arguments.draw or arguments.samples is None:
        raise ConfigError("search", "needs --draw KEY=RANGE and --samples N")
    said, seeds = f"{arguments.samples:,} settings", len(read_seeds(arguments.seeds))
    if arguments.samples * seeds > MOST_RUNS and not arguments.yes:
        raise ConfigError("runs", f"{said} on {seeds} seeds are {arguments.samples * seeds:,} runs; --yes means it")
    chosen = {"samples": arguments.samples, "batch": arguments.batch, "seed": arguments.draw_seed}
    typed = flatten(tables)
    try:
        return new_search(load_preset(arguments.preset), typed, flags(arguments), read_draws(arguments.draw), **chosen)
    except ConfigError as error:
        raise told_of_file(error, arguments, typed) from None


def say_plan(plan: Plan, as_json: bool) -> int:
    """What would be run."""
    settings = plan.search["samples"] if plan.search else len(plan.runs)
    runs = settings * len(plan.seeds)
    if as_json:
        print_json({"settings": settings, "seeds": len(plan.seeds), "calls": len(plan.calls), "runs": runs})
    else:
        calls = "batches" if plan.search else f"{len(plan.calls):,} calls"
        print(f"{settings:,} settings on {len(plan.seeds)} seeds: {runs:,} runs in {calls}")
    return 0


def carry_out(store: Store, plan: Plan, force: Force, as_json: bool) -> int:
    """Make what is lacking of a sweep, and say what came of it."""
    from toybench.sweep import measure, searched

    settings = plan.search["samples"] if plan.search else len(plan.runs)
    total, began = settings * len(plan.seeds), time.perf_counter()
    try:
        with INTERRUPT.held(), sweep_bar(total) as progress:
            if plan.search:
                results = searched(plan, store, progress, force)
            else:
                results = measure(plan.runs, plan.seeds, store, calls=plan.calls, progress=progress, force=force)
    except KeyboardInterrupt:
        there = next(entry["done"] for entry in store.sweeps() if entry["sweep"] == plan.name)
        again = f"toybench sweep --name {plan.name} --store {shlex.quote(str(store.path))} --resume"
        print(f"interrupted; {there:,} of {total:,} runs are kept; `{again}` makes the rest", file=sys.stderr)
        return INTERRUPTED
    seconds = time.perf_counter() - began
    rows = best_first(results)
    if as_json:
        print_json({"sweep": plan.name, "store": str(store.path), "runs": total, "seconds": seconds, "settings": rows})
    else:
        from toybench.report import show, sweep_table

        show(sweep_table(rows[:20], len(plan.seeds)))
        print(f"{total:,} runs in {store.path}, sweep {plan.name}: {seconds:.1f} s", file=sys.stderr)
    return 0


def best_first(results: list[Curves]) -> list[dict[str, Any]]:
    """The settings of a sweep, the least mean final loss first: what they differ in, and what came of it."""
    from toybench.axes import differences
    from toybench.selection import ranked

    rows = []
    for row in ranked(results, differences):
        said = {"loss": row.loss, "interval": row.interval and [row.interval.low, row.interval.high]}
        rows.append({"settings": row.settings, **said, "diverged": row.diverged})
    return rows
