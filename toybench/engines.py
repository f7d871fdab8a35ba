"""Real workers on the command line: `--engine` and what belongs to it, for `toybench run` and `lm train`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toybench.config import ConfigError
from toybench.console import print_json
from toybench.interrupt import INTERRUPT, INTERRUPTED, TERMINATED, terminated

if TYPE_CHECKING:
    from toybench.transports.drive import Engine
    from toybench.transports.work import Recipe

DEVICES = ("cpus_per_worker", "gpus_per_worker", "resources_per_worker")
NEEDED = ("pace", "compress", "address", *DEVICES, "deadline")  # an engine


def add_engine(parser: argparse.ArgumentParser) -> None:
    """`--engine` and its settings."""
    group = parser.add_argument_group("real workers instead of simulated ones")
    text = "threads: of this process; ray: processes, on this machine or many (extra `ray`)"
    group.add_argument("--engine", choices=("threads", "ray"), help=text)
    text = "slow workers down to the cluster's speeds: seconds that one of its seconds lasts at least"
    group.add_argument("--pace", type=float, metavar="SECONDS", help=text)
    text = "how pseudo-gradients travel: none (default), bfloat16 or int8, both with error feedback"
    group.add_argument("--compress", metavar="CODEC", help=text)
    group.add_argument("--address", metavar="HOST:PORT", help="join this Ray cluster (default: one is started here)")
    add_devices(group)
    text = "a worker is given up that takes so many times longer than it should (default 4)"
    group.add_argument("--deadline", type=float, metavar="FACTOR", help=text)


def add_devices(parser: Any) -> None:
    """What of Ray's resources a worker takes."""
    parser.add_argument("--cpus-per-worker", type=float, metavar="N", help="of Ray's resources (default 1)")
    text = "likewise (default 0); parts of one are possible, and of several a worker uses all"
    parser.add_argument("--gpus-per-worker", type=float, metavar="N", help=text)
    text = "others by the name that the cluster has for them, as TPU=4; may be given again"
    parser.add_argument("--resources-per-worker", action="append", metavar="NAME=NUMBER", help=text)


def devices_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the flags of `add_devices` ask for, where they do.

    Raises:
        ConfigError: a resource that is not NAME=NUMBER.
    """
    given = {name: getattr(arguments, name, None) for name in DEVICES}
    given = {name: value for name, value in given.items() if value is not None}
    if "resources_per_worker" in given:
        given["resources_per_worker"] = dict(map(_resource, given["resources_per_worker"]))
    return given


def _resource(told: str) -> tuple[str, float]:
    name, _, number = told.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise ConfigError("resources-per-worker", f"expected NAME=NUMBER, as TPU=4, got {told!r}") from None


def engine_of(arguments: argparse.Namespace) -> Engine | None:
    """What the flags ask for; None for the simulated cluster.

    Raises:
        ConfigError: a value out of bounds, or a setting of real workers without any.
    """
    given = {name: getattr(arguments, name, None) for name in NEEDED}
    given = {name: value for name, value in given.items() if value is not None} | devices_of(arguments)
    if arguments.engine is None:
        if given:
            raise ConfigError(next(iter(given)), "is for real workers: it goes with --engine threads or ray")
        return None
    from toybench.transports.drive import Engine
    from toybench.transports.messages import Rules

    names = {"compress": "codec", "deadline": "factor", "pace": "pace"}
    rules = Rules(**{names[name]: value for name, value in given.items() if name in names})
    return Engine(arguments.engine, rules, **{name: value for name, value in given.items() if name not in names})


def carry_out_all(recipes: Mapping[str, Recipe], engine: Engine, arguments: argparse.Namespace) -> int:
    """Carry runs out one after another, each in a folder of its name; returns the exit status."""
    from toybench.records import writable_folder
    from toybench.transports.drive import carry_out
    from toybench.transports.show import shown

    out, found = writable_folder(arguments.out), {}
    with terminated() as stop:
        for name, recipe in recipes.items():
            folder = writable_folder(out / name)
            with shown(name) as report:
                document = carry_out(recipe, engine, folder, resume=arguments.resume, report=report, stop=stop)
            if document is None:
                print(f"stopped; the same command with --resume goes on from {str(folder)!r}", file=sys.stderr)
                return INTERRUPTED if INTERRUPT.asked else TERMINATED
            found[name] = document
    if arguments.json:
        print_json(found)
    else:
        for name, document in found.items():
            say(name, document, out)
    return 0


def say(name: str, document: dict[str, Any], out: Path) -> None:
    """What came of a real run, beside what the cluster model says."""
    from toybench.report import departures_table, show

    first, last = document["points"][0]["metrics"], document["points"][-1]["metrics"]
    counts = document["counts"]
    refused = f", {counts['refused']} refused" if counts.get("refused") else ""
    show(
        f"{name}: held-out loss {first['loss']:.4f} → {last['loss']:.4f} in {document['seconds']:.1f} s; "
        f"{counts.get('applied', 0):,} pushes applied{refused}, {document['lost']} visits lost",
        departures_table(document["predicted"]),
    )
    print(out / name / "real.json", file=sys.stderr)
