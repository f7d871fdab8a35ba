"""The accelerator study: each part one command, whose results fit in a few small files.

Command:  python -m experiments.accelerator PART [--out DIR] [--seconds S] [--tokens FILE] [--small] ...
Duration: each part ends within --seconds (420 if left out) and a last unit's overrun; the same command goes on.
Writes:   DIR/PART.json after every unit of work, and what else the part says; `collect` merges DIR into
          experiments/records/accelerator.

Needs no network, and of packages jax, flax, optax, orbax, scipy, matplotlib, rich and filelock. `--small` is a test's
size, on any device.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from experiments.accelerator.bench import OutOfTime, aligned, made_with, open_bench
from toybench.arguments import Parser, fail
from toybench.config import ConfigError

PARTS = {  # by name: its module, and what it is of
    "ceilings": ("ceilings", "what the device does at best: matrix products, copies"),
    "toy-throughput": ("toy", "runs of the default preset a second, against how many run at once; a sweep of 10,000"),
    "notebook": ("notebook", "the published toy at 65,000 hidden units, against its curves and an eager PyTorch loop"),
    "lm-throughput": ("language", "tokens a second of 20m, 60m and 150m: attention, remat, batch, one worker and four"),
    "confirm-20m": ("confirm", "every outer method from one checkpoint of the 20m model, four workers"),
    "confirm-workers": ("confirm", "the methods that matter with 8 and 16 workers, 20m"),
    "confirm-60m": ("confirm", "the methods that matter on the 60m model, from a checkpoint and from scratch"),
    "confirm-150m": ("confirm", "the methods that matter on the 150m model, from a checkpoint and from scratch"),
}
OTHERS = {
    "transfer": ("transfer", "does the toy's order of methods predict a language model's?"),
    "collect": ("collecting", "merge a folder's results into experiments/records/accelerator"),
    "prepare": ("packing", "prepared tokens as one small file, and back"),
}
SECONDS = 420.0


def build_parser() -> Parser:
    """All parts and their options."""
    parser = Parser(prog="python -m experiments.accelerator", description="The accelerator study, a part a call.")
    chosen = parser.add_subparsers(dest="part", required=True, metavar="PART", parser_class=Parser)
    for name, (module, said) in PARTS.items():
        sub = chosen.add_parser(name, help=said, description=said)
        sub.add_argument("--out", type=Path, default=Path("results/accelerator"), metavar="DIR", help="for results")
        sub.add_argument("--scratch", type=Path, metavar="DIR", help="for what is large and can be made anew")
        sub.add_argument("--seconds", type=float, default=SECONDS, help=f"that this call may take ({SECONDS:g})")
        sub.add_argument("--small", action="store_true", help="a test's size")
        _room(module).add(sub)
    for name, (module, said) in OTHERS.items():
        _room(module).add(chosen.add_parser(name, help=said, description=said))
    return parser


def _room(module: str) -> Any:
    return importlib.import_module(f"experiments.accelerator.{module}")


def measure(options: argparse.Namespace) -> int:
    """A part, as far as its seconds go."""
    from toybench.records import writable_folder
    from toybench.runtime import configure

    if not 0 < options.seconds < 1e6:
        raise ConfigError("seconds", f"must be > 0 and < 1000000, got {options.seconds:g}")
    room = _room(PARTS[options.part][0])
    out = writable_folder(str(options.out))
    configure()
    scratch = options.scratch or Path(tempfile.gettempdir()) / "toybench-accelerator"
    settings = room.settings(options) if hasattr(room, "settings") else {}
    bench = open_bench(options.part, out, options.seconds, options.small, scratch, **settings)
    try:
        room.run(bench, options)
        status = "finished"
    except OutOfTime as stopped:
        status = f"stopped before {stopped}: the same command goes on"
    show(room, bench.document)
    print(f"{bench.part}: {len(bench.units)} units in {bench.path}; {status}")
    return 0


def show(room: Any, document: dict[str, Any]) -> None:
    """A part's table."""
    print(made_with(document))
    print(aligned(room.rows(document["units"])))


def main(argv: list[str] | None = None) -> int:
    options = build_parser().parse_known(sys.argv[1:] if argv is None else argv)
    try:
        if options.part in OTHERS:
            return _room(OTHERS[options.part][0]).run(options)
        return measure(options)
    except ConfigError as error:
        fail(error)


if __name__ == "__main__":
    sys.exit(main())
