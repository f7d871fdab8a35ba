"""A command line around some commands: thin, every job done elsewhere. Help and bad input load no jax."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from toybench import __version__
from toybench.arguments import Parser, fail
from toybench.config import ConfigError, ConfigWarning, Run
from toybench.interrupt import INTERRUPT, INTERRUPTED

NO_MEMORY = "memory: not enough for this configuration; smaller task sizes, fewer seeds or evaluations take less"


class Shell(NamedTuple):
    """A program: its name, what it is for, its commands, and the configuration that their help shows."""

    name: str
    description: str
    commands: Mapping[str, ModuleType]  # each with `add(parser, preset)` and `run(arguments) -> exit status`
    preset: Callable[[Sequence[str]], Run]  # of a command line


def build_parser(shell: Shell, argv: Sequence[str] = ()) -> Parser:
    """All commands and their options."""
    preset = shell.preset(argv)
    parser = Parser(prog=shell.name, description=shell.description)
    parser.add_argument("--version", action="version", version=f"toybench {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, module in shell.commands.items():
        said = (module.__doc__ or "").split(": ", 1)[1].strip()
        said = said[0].upper() + said[1:]
        sub = subparsers.add_parser(name, help=said, description=said)
        sub.add_argument("--json", action="store_true", help="print one JSON document on standard output, nothing else")
        module.add(sub, preset)
    return parser


def leave(status: int) -> NoReturn:
    """End at once: an orderly end would wait for a running compilation, and may crash in it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _quiet(stream: Any) -> None:
    """What is still to be written to a stream that takes no more goes nowhere, at the end of the process too."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def answer(shell: Shell, argv: list[str] | None = None) -> int:
    """Do what a command line says; returns the exit status. Bad input raises SystemExit."""
    argv = sys.argv[1:] if argv is None else argv
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed; print() would take the other one
            setattr(sys, name, io.TextIOWrapper(io.BytesIO()))
        elif isinstance(stream, io.TextIOWrapper):  # a terminal that lacks Greek letters shows question marks
            stream.reconfigure(errors="replace")
    with warnings.catch_warnings():
        warnings.simplefilter("always", ConfigWarning)
        warnings.showwarning = lambda message, *rest, **more: print(f"toybench: warning: {message}", file=sys.stderr)
        return _answer(shell, argv)


def _answer(shell: Shell, argv: list[str]) -> int:
    try:
        arguments = build_parser(shell, argv).parse_known(argv)
        status = shell.commands[arguments.command].run(arguments)
        sys.stdout.flush()
        return INTERRUPTED if INTERRUPT.asked else status
    except ConfigError as error:
        fail(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone
        _quiet(sys.stdout)
        return 0
    except OSError as error:
        if error.filename is None:  # what we printed could not be written
            _quiet(sys.stdout)
        fail(f"{error.filename or 'output'}: {error.strerror or error}")
    except MemoryError:
        fail(NO_MEMORY)
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):  # jax's word for it
            raise
        fail(NO_MEMORY)
