"""`replay` of a real run: its recorded arrivals once more, one after another, and how far off the parameters are."""

from __future__ import annotations

import argparse
from pathlib import Path

from toybench.config import Run
from toybench.console import print_json, progress_bar
from toybench.interrupt import INTERRUPT

TOLERANCE = 1e-3  # of what training changed; one visit in another order changes far more


def add(parser: argparse.ArgumentParser, preset: Run) -> None:
    parser.usage = f"{parser.prog} RECORD [--json]"
    parser.add_argument("record", metavar="RECORD", help="real.json, or the folder of the run")


def run(arguments: argparse.Namespace) -> int:
    from toybench.runtime import configure

    configure()
    from toybench.transports.replaying import replay_record

    with INTERRUPT.held(), progress_bar(1) as progress:
        found = replay_record(Path(arguments.record), lambda done, total: progress("replaying", 1 / total))
    agree = found.relative <= TOLERANCE
    if arguments.json:
        said = found._asdict() | {"departures": [one._asdict() for one in found.departures], "agree": agree}
        print_json(said)
        return 0 if agree else 1
    from toybench.report import departures_table, show

    show(
        f"{found.arrivals:,} arrivals replayed: parameters differ by {found.largest:.2g} at most, {found.relative:.2g} "
        f"of what training changed; held-out loss {found.loss:.6f}, replayed {found.loss_again:.6f}",
        departures_table([one._asdict() for one in found.departures]),
    )
    if found.first_departure is not None:
        show(f"another worker than predicted arrives first at arrival {found.first_departure}")
    if not found.same_code:
        show("the run was made by other sources than these")
    show("replay: the same parameters" if agree else f"replay: NOT the same parameters (tolerance {TOLERANCE:g})")
    return 0 if agree else 1
