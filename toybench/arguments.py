"""What a command line says, read strictly: dotted flags, files, presets, seeds. Loads no jax."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any, NoReturn

from toybench.config import ConfigError, Run, annotations_of, check_seeds, describe
from toybench.loading import CHOICES, PLAIN, Choices, dump_run, nearest, overlay_text, read_text, read_toml
from toybench.presets import load_preset, preset_names

MOST_SEEDS = 100_000
SECTIONS = [f.name for f in fields(Run)]


def fail(message: object) -> NoReturn:
    """One line on standard error, exit status 2."""
    with suppress(OSError):
        print(f"toybench: error: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
    raise SystemExit(2)


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line and hints for mistyped options."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self._negative_number_matcher = re.compile(r"-(\d|\.\d|inf|nan)")  # argparse's own knows no exponents

    def error(self, message: str) -> NoReturn:
        fail(message)

    def parse_known(self, argv: list[str]) -> argparse.Namespace:
        """Like `parse_args`, but an unknown option is answered with the nearest known one."""
        arguments, unknown = self.parse_known_args(argv)
        if unknown:
            command = self._chosen(arguments)
            options = [o for o in command._option_string_actions if o.startswith("--")]
            name = unknown[0].split("=")[0]
            close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"see {command.prog} --help"
            fail(f"{name}: {'unknown option' if name.startswith('-') else 'unexpected argument'}; {hint}")
        return arguments

    def _chosen(self, arguments: argparse.Namespace) -> argparse.ArgumentParser:
        """The parser of the command, and of its kind, that was asked for."""
        parser: argparse.ArgumentParser = self
        while parser._subparsers is not None:
            action = parser._subparsers._group_actions[0]
            if (name := getattr(arguments, action.dest)) is None:
                break
            parser = action.choices[name]  # type: ignore[index]
        return parser


def _default_text(value: Any) -> str:
    if value is None:
        return ""
    text = " ".join(map(str, value)) if isinstance(value, tuple) else value
    return f" (default {str(text).lower() if isinstance(text, bool) else text})"


def _section_fields(section: str, choices: Choices = CHOICES) -> dict[str, tuple[Any, Any, list[str]]]:
    """name -> (field, annotation, the choices that have it) over all settings classes of a section."""
    classes = choices[section][1] if section in choices else {"": PLAIN[section]}
    found: dict[str, tuple[Any, Any, list[str]]] = {}
    for name, cls in classes.items():
        for f in fields(cls):  # type: ignore[arg-type]
            found.setdefault(f.name, (f, annotations_of(cls)[f.name], []))[2].append(name)
    return found


def add_settings(parser: argparse.ArgumentParser, preset: Run, choices: Choices = CHOICES) -> None:
    """A dotted flag for every field of the configuration; its default is the preset's, or else its method's."""
    tables = dump_run(preset, choices)
    for section in (f.name for f in fields(Run)):
        group = parser.add_argument_group(section)
        if section in choices:
            tag, classes = choices[section]
            text = f"one of {', '.join(classes)}; another than the preset's starts from its own defaults"
            chosen = _default_text(tables[section][tag])
            group.add_argument(f"--{section}.{tag}", nargs=1, metavar="NAME", help=text + chosen)
        for name, (f, annotation, owners) in _section_fields(section, choices).items():
            kind = describe(annotation).replace(" or nothing", "")
            unit = f" [{f.metadata['unit']}]" if f.metadata["unit"] else ""
            every = section not in choices or len(owners) == len(choices[section][1])
            whose = "" if every else f"; only {', '.join(owners)}"
            default = _default_text(getattr(getattr(preset, section), name, f.default))
            text = f"{f.metadata['help']}{unit}; {kind}{whose}{default}".replace("%", "%%")
            options: dict[str, Any] = {"nargs": 1}
            if "list" in kind:
                options = {"nargs": "+"}
            elif annotation is bool:
                options = {"nargs": "?", "const": "true"}
            flag = f"--{section}.{name}"
            spellings = dict.fromkeys((flag.replace("_", "-"), flag))
            group.add_argument(*spellings, dest=f"{section}.{name}", metavar="VALUE", help=text, **options)


def check_seed(seed: int) -> int:
    """A seed, if it is a whole number from 0 to 2³¹ − 1.

    Raises:
        ConfigError: it is not.
    """
    try:
        return check_seeds([seed])[0]
    except ConfigError:
        raise ConfigError("seed", f"expected a whole number from 0 to 2^31 - 1, got {seed}") from None


def read_seeds(text: list[str]) -> list[int]:
    """``8`` is 0 … 7, ``10:14`` is 10 … 13, several numbers are themselves."""
    low, high, numbers = 0, 0, []
    try:
        if len(text) > 1:
            numbers = [int(item) for item in text]
        elif ":" in text[0]:
            low, high = map(int, text[0].split(":"))
        else:
            high = int(text[0])
    except ValueError:
        raise ConfigError("seeds", f"expected a count, LOW:HIGH or several numbers, got {' '.join(text)!r}") from None
    if max(high - low, len(numbers)) > MOST_SEEDS:
        raise ConfigError("seeds", f"expected at most {MOST_SEEDS}, got {' '.join(text)!r}")
    if not numbers and high <= low:
        raise ConfigError("seeds", f"expected at least one, got {' '.join(text)!r}")
    return list(check_seeds(numbers or range(low, high)))


def add_seeds(parser: argparse.ArgumentParser, default: str) -> None:
    """`--seeds`, for `read_seeds`."""
    text = f"a count from 0, LOW:HIGH, or several numbers (default {default})"
    parser.add_argument("--seeds", nargs="+", default=[default], metavar="N", help=text)


def add_store(parser: argparse.ArgumentParser, default: str = "results/runs.sqlite") -> None:
    """`--store`."""
    parser.add_argument("--store", default=default, metavar="FILE", help="of the runs (default results/runs.sqlite)")


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Which runs of the store: `--store`, `--sweep`, and `--where` for `read_where`."""
    add_store(parser)
    parser.add_argument("--sweep", metavar="NAME", help="only the runs of this sweep")
    text = "only runs of these settings, e.g. outer.method=sgd"
    parser.add_argument("--where", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=text)


def read_where(items: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` as dotted key -> value of the field's type, as `dump_run` has it; several words are a list.

    Raises:
        ConfigError: not of this form, an unknown key, or a value that does not read as its type.
    """
    found: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not text.split():
            raise ConfigError("where", f"expected KEY=VALUE, got {item!r}")
        key = known_key(key.strip())
        if key in found:
            raise ConfigError("where", f"{key} is given twice")
        found[key] = _value_of(key, text.split())
    return found


def known_key(key: str) -> str:
    """A dotted key of the configuration, dashes and all.

    Raises:
        ConfigError: no section has it.
    """
    key = key.replace("-", "_")
    section = key.partition(".")[0]
    sections = [f.name for f in fields(Run)]
    if section not in sections:
        raise ConfigError(key, f"unknown key; sections: {', '.join(sections)}")
    known = [f"{section}.{name}" for name in _section_fields(section)]
    known += [f"{section}.{CHOICES[section][0]}"] if section in CHOICES else []
    if key not in known:
        raise ConfigError(key, f"unknown key; {nearest(key, known)}")
    return key


def _value_of(key: str, words: list[str]) -> Any:
    section, _, name = key.partition(".")
    if words == ["none"]:  # where it is not set
        return None
    if section in CHOICES and name == CHOICES[section][0]:
        if len(words) > 1 or words[0] not in CHOICES[section][1]:
            raise ConfigError(key, f"unknown {' '.join(words)!r}; {nearest(' '.join(words), CHOICES[section][1])}")
        return words[0]
    value = read_text(key, _section_fields(section)[name][1], words[0] if len(words) == 1 else words)
    return list(value) if isinstance(value, tuple) else value


def add_preset(parser: argparse.ArgumentParser, help: str = "where to start (default: default)") -> None:
    """`--preset`."""
    parser.add_argument("--preset", default="default", metavar="NAME", help=help)


def add_configuration(parser: argparse.ArgumentParser, preset: Run) -> None:
    """A file, a preset and all dotted flags, for `configuration`."""
    parser.usage = f"{parser.prog} [FILE.toml] [--preset NAME] [--SECTION.FIELD VALUE ...] [--json] ..."
    parser.add_argument("file", nargs="?", metavar="FILE.toml", help="a configuration, laid over the preset")
    add_preset(parser)
    add_settings(parser, preset)


def preset_asked(argv: Sequence[str]) -> Run:
    """The preset that a command line names, whose values its help shows; the default where it names none or no such."""
    finder = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    finder.add_argument("--preset")
    try:
        name = finder.parse_known_args([*argv])[0].preset
    except argparse.ArgumentError:
        name = None
    return load_preset(name if name in preset_names() else "default")


def file_tables(arguments: argparse.Namespace) -> dict[str, Any]:
    """The tables of the file on the command line, if there is one."""
    return {} if arguments.file is None else read_toml(arguments.file)


def flags(arguments: argparse.Namespace) -> dict[str, Any]:
    """The dotted flags that were given, in words."""
    return {key: value for key, value in vars(arguments).items() if "." in key and value is not None}


def configuration(arguments: argparse.Namespace, changes: Mapping[str, Any] | None = None) -> Run:
    """The preset, and over it the file, dotted `changes` and the flags; what comes later counts."""
    tables = flatten(file_tables(arguments)) | dict(changes or {})
    try:
        return overlay_text(load_preset(arguments.preset), flags(arguments), tables)
    except ConfigError as error:
        raise told_of_file(error, arguments, tables) from None


def told_of_file(error: ConfigError, arguments: argparse.Namespace, tables: dict[str, Any]) -> ConfigError:
    """The error, with the file's name where it is about what the file says."""
    if error.name not in tables or error.name in flags(arguments):
        return error
    return ConfigError(f"{arguments.file}: {error.name}", error.problem)


def flatten(tables: dict[str, Any]) -> dict[str, Any]:
    """Nested tables as dotted keys; what is no setting is left for `overlay` to refuse."""
    dotted: dict[str, Any] = {}
    for section, table in tables.items():
        if isinstance(table, dict) and (table or section in SECTIONS):
            dotted |= {f"{section}.{key}": value for key, value in table.items()}
        elif section != "description" or not isinstance(table, str):
            dotted[section] = table
    return dotted
