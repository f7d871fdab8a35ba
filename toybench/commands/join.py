"""`join`: more workers for a run that is being made over Ray; they leave when this process ends."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from toybench.config import ConfigError, Run
from toybench.engines import add_devices, devices_of
from toybench.interrupt import INTERRUPT, INTERRUPTED, TERMINATED, terminated


def add(parser: argparse.ArgumentParser, preset: Run) -> None:
    parser.usage = f"{parser.prog} FOLDER [--workers N] ..."
    parser.add_argument("folder", metavar="FOLDER", help="of the run, or a copy of its server/ray.json in one")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="to add (default 1)")
    add_devices(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.json:
        raise ConfigError("json", "there is nothing to say in JSON; the run's own folder has it")
    from toybench.runtime import configure

    configure()
    from toybench.transports.ray import join_ray
    from toybench.transports.ray.site import key_of
    from toybench.transports.results import LEDGER
    from toybench.transports.show import shown

    folder = Path(arguments.folder)
    key = key_of(folder / LEDGER if (folder / LEDGER).is_dir() else folder)
    with terminated() as stop, shown("join") as report:
        whole = join_ray(key, workers=arguments.workers, report=report, stop=stop, **devices_of(arguments))
    if stop():
        return INTERRUPTED if INTERRUPT.asked else TERMINATED
    print("the run is over" if whole else "the run has ended before its end", file=sys.stderr)
    return 0 if whole else 1
