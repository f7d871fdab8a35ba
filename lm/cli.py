"""The command `python -m lm`."""

from __future__ import annotations

from lm.commands import data, evaluate, export, leaderboard, pretrain, promote, sample, train
from lm.config import default_arms
from toybench.commands import replay
from toybench.shell import Shell, answer

SHELL = Shell(
    "python -m lm",
    "Language models on a simulated cluster, trained by the toy's scheduler and outer optimizers.",
    {
        "train": train,
        "pretrain": pretrain,
        "replay": replay,
        "promote": promote,
        "data": data,
        "eval": evaluate,
        "sample": sample,
        "export": export,
        "leaderboard": leaderboard,
    },
    lambda argv: default_arms()["dn_dylu"],
)


def main(argv: list[str] | None = None) -> int:
    """Do what a command line says; returns the exit status. Bad input raises SystemExit."""
    return answer(SHELL, argv)
