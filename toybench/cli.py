"""The `toybench` command."""

from __future__ import annotations

from collections.abc import Sequence

from toybench.arguments import Parser, preset_asked
from toybench.commands import (
    compare,
    demo,
    join,
    leaderboard,
    methods,
    plot,
    presets,
    records,
    replay,
    run,
    scale,
    sweep,
    timeline,
    tune,
)
from toybench.shell import Shell, answer
from toybench.shell import build_parser as parser_of

SHELL = Shell(
    "toybench",
    "Asynchronous local-SGD on a simulated cluster.",
    {
        "demo": demo,
        "run": run,
        "join": join,
        "replay": replay,
        "timeline": timeline,
        "scale": scale,
        "sweep": sweep,
        "tune": tune,
        "leaderboard": leaderboard,
        "compare": compare,
        "plot": plot,
        "records": records,
        "methods": methods,
        "presets": presets,
    },
    preset_asked,
)


def build_parser(argv: Sequence[str] = ()) -> Parser:
    """All commands and their options."""
    return parser_of(SHELL, argv)


def main(argv: list[str] | None = None) -> int:
    """Do what a command line says; returns the exit status. Bad input raises SystemExit."""
    return answer(SHELL, argv)


if __name__ == "__main__":
    raise SystemExit(main())
