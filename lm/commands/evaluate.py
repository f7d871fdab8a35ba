"""`python -m lm eval`: held-out loss, perplexity and bits per byte of a trained model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from toybench.config import ConfigError, Run
from toybench.console import print_json

if TYPE_CHECKING:
    from lm.evaluate import Evaluated
    from lm.trained import Trained

ALL = "all"


def add(parser: argparse.ArgumentParser, preset: Run) -> None:
    parser.add_argument("model", metavar="RUN_FOLDER", help="what `train` left of a run; or an export, or its folder")
    text = "of prepared tokens, made with the same tokenizer (default: what the run was trained on)"
    parser.add_argument("--data", metavar="FOLDER", help=text)
    text = "held-out sequences, spread evenly, or all there are (default: as many as in training)"
    parser.add_argument("--sequences", metavar=f"N|{ALL}", help=text)


def run(arguments: argparse.Namespace) -> int:
    from toybench.runtime import configure

    configure()
    from lm.evaluate import corpus_of, evaluate
    from lm.runs import open_trained

    trained = open_trained(arguments.model)
    sequences = wanted(arguments.sequences, trained.settings.held_out)
    found = evaluate(trained, corpus_of(trained, arguments.data), sequences)
    if arguments.json:
        print_json({"model": trained.name} | found._asdict() | {"source": trained.source})
    else:
        print(said(trained, found, arguments.data))
    return 0


def wanted(word: str | None, otherwise: int) -> int | None:
    """How many sequences; None are all.

    Raises:
        ConfigError: no such number.
    """
    if word is None or word == ALL:
        return otherwise if word is None else None
    if not word.isascii() or not word.isdecimal():
        raise ConfigError("sequences", f"expected a whole number or {ALL!r}, got {word!r}")
    return int(word[:18])


def said(trained: Trained, found: Evaluated, named: str | None) -> str:
    """The numbers, of what and on what, in a line each."""
    loss = f"held-out loss {found.loss:.4f} nats a token, perplexity {found.perplexity:.2f}"
    source = trained.source
    of = f"{trained.name}: seed {source['seed']}, after {source['local_steps']:,} local steps"
    if source["local_steps"] < source["total_steps"]:
        of += f" of {source['total_steps']:,}"
    text = found.held_out
    on = f"{found.sequences:,} of {found.of:,} sequences of {found.sequence} tokens"
    on += f", held out of {named or trained.settings.data} ({text['documents']:,} documents, {text['sha256'][:12]})"
    if found.in_training is not None:
        on += f"; in training {found.in_training:.4f}"
    return "\n".join([f"{loss}, {found.bits_per_byte:.4f} bits a byte", f"  of {of}", f"  on {on}"])
