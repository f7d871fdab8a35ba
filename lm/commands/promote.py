"""`python -m lm promote`: from a configuration of the toy to a language-model run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from lm.config import CHOICES, SIZES
from lm.promote import ACCELERATORS, UTILISATION, Change, Estimate, changes, estimate, promote, read_run, write_toml
from toybench.arguments import add_store, flatten
from toybench.config import ConfigError, Run
from toybench.console import print_json
from toybench.loading import load_run, overlay, read_toml
from toybench.presets import load_preset


def add(parser: argparse.ArgumentParser, preset: Run) -> None:
    parser.add_argument(
        "source",
        metavar="RECORD|RUN.toml",
        help="the number of a stored run, or a file: of the toy or of a language model",
    )
    parser.add_argument("--size", required=True, metavar="NAME", help=f"one of {', '.join(SIZES)}")
    parser.add_argument("--data", metavar="FOLDER", help="of prepared tokens, instead of the size's own")
    parser.add_argument("-o", "--out", metavar="FILE", help="the run file (default: standard output)")
    text = f"what the hours are of: one of {', '.join(ACCELERATORS)} (default h100)"
    parser.add_argument("--accelerator", default="h100", metavar="NAME", help=text)
    text = f"share of its peak that is reached (default {UTILISATION}, assumed)"
    parser.add_argument("--utilisation", type=float, default=UTILISATION, metavar="SHARE", help=text)
    add_store(parser)


def run(arguments: argparse.Namespace) -> int:
    from toybench.records import write_whole

    before, source = source_of(arguments)
    after = promote(before, arguments.size, arguments.data)
    taken, changed = estimate(after, arguments.accelerator, arguments.utilisation), changes(before, after)
    text = write_toml(after, source, arguments.size)
    if arguments.out is not None:
        write_whole(Path(arguments.out), text)
    if arguments.json:
        rows = [change._asdict() for change in changed]
        print_json({"source": source, "run": text, "changes": rows, "estimate": document(taken)})
        return 0
    if arguments.out is None:
        print(text, end="")
    print("\n".join([f"promoted from {source}", *said(changed), *told(taken)]), file=sys.stderr)
    return 0


def source_of(arguments: argparse.Namespace) -> tuple[Run, str]:
    """The configuration to promote, and how to say where it comes from.

    Raises:
        ConfigError: there is no such run or file, or it is none that can be read.
    """
    if arguments.source.isdecimal():
        from toybench.store import Store

        number = arguments.source.lstrip("0") or "0"
        with Store(arguments.store, writable=False) as store:
            if len(number) > 18:  # more than the store counts
                raise ConfigError("run", f"there is no run {number} in {str(arguments.store)!r}")
            tables = store.describe(int(number))["configuration"]
        before = load_run(tables, CHOICES) if is_text(tables) else load_run(tables)
        return before, f"run {number} of {arguments.store}"
    tables = read_toml(arguments.source)
    if is_text(tables):
        return read_run(arguments.source)[0], arguments.source
    # As `toybench run` does: a file is laid over the default preset.
    return overlay(load_preset(), flatten(tables)), arguments.source


def is_text(tables: dict[str, Any]) -> bool:
    """Whether a run's tables are those of a language model."""
    task = tables.get("task")
    return isinstance(task, dict) and task.get("kind") == "language_model"


def said(changed: list[Change]) -> list[str]:
    """What changes, a line a setting."""
    lines = [f"  {key}: {'–' if old is None else old} → {'–' if new is None else new}" for key, old, new in changed]
    return ["cluster and outer settings are kept; these change:", *lines]


def told(taken: Estimate) -> list[str]:
    """The estimate in lines."""
    by_part = ", ".join(f"{name} {part.each * part.times:,}" for name, part in taken.parts.items())
    return [
        f"parameters: {taken.parameters:,} ({by_part})",
        f"tokens: {taken.tokens:,}; floating point operations: {taken.operations:.3g}",
        f"memory of one device, a visit at a time: {taken.memory / 1e9:.3g} GB ({taken.footprint.told})"
        + ("" if taken.fits else f"; more than one {taken.accelerator.name} has"),
        f"hours of one {taken.accelerator.name} at {100 * taken.utilisation:.0f} % of its peak: {taken.hours:.3g}",
    ]


def document(taken: Estimate) -> dict:
    """The estimate as JSON."""
    return {
        "parameters": taken.parameters,
        "parts": {name: part.each * part.times for name, part in taken.parts.items()},
        "tokens": taken.tokens,
        "operations": taken.operations,
        "memory": taken.memory,
        "memory_parts": taken.footprint._asdict(),
        "accelerator": taken.accelerator.name,
        "utilisation": taken.utilisation,
        "hours": taken.hours,
        "fits": taken.fits,
    }
