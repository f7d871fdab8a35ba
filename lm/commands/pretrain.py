"""`python -m lm pretrain`: plain training of so many steps, whose parameters `train --init` starts from."""

from __future__ import annotations

import argparse

from lm.commands.train import add_training, chosen, train_all
from lm.protocol import pretraining
from toybench.config import Run


def add(parser: argparse.ArgumentParser, preset: Run) -> None:
    parser.usage = f"{parser.prog} [RUN.toml] --steps N [--SECTION.FIELD VALUE ...] [--resume] [--json] ..."
    text = "the run to come: its model, data and inner optimizer are pretrained, by one worker"
    parser.add_argument("file", nargs="?", metavar="RUN.toml", help=text)
    text = "of the inner optimizer (paper: 24000); many that nothing divides are rounded down to whole visits, and said"
    parser.add_argument("--steps", type=int, required=True, metavar="N", help=text)
    add_training(parser, preset, "results/pretrained")


def run(arguments: argparse.Namespace) -> int:
    base, note = chosen(arguments)
    return train_all({"run": pretraining(base, arguments.steps)}, note, arguments)
