"""Where text comes from: Python's own sources, local files, C4 over the network. Documents one by one, or one error."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm.config import PYTHON
from lm.documents import Document, Source, checked, host
from lm.files import KINDS, File
from toybench.config import ConfigError

C4 = "c4"  # the word for it on a command line; c4:8 is its first 8 files
C4_FILES, C4_BYTES = 1024, 320_000_000  # of C4's English part: its files, and about how large one is


def find_sources(words: Iterable[str | Path]) -> list[Source]:
    """What paths, folders, globs, 'python' and 'c4' or 'c4:FILES' name, each file once, folders and globs sorted.

    Raises:
        ConfigError: nothing is there, or a file is of no known kind.
    """
    found: dict[str, Source] = {}
    for word in map(str, words):
        for source in _named(word):
            key = str(source.path.resolve()) if isinstance(source, File) else source.name
            found.setdefault(key, source)
    if not found:
        raise ConfigError("source", "expected at least one file, folder or glob, 'python' or 'c4'")
    return list(found.values())


def _named(word: str) -> list[Any]:
    if word == PYTHON:
        return [Library()]
    if word == C4 or word.startswith(f"{C4}:"):
        return _c4(word)
    path = Path(os.path.expanduser(word))
    if path.is_dir():
        inside = (p for p in path.rglob("*") if p.name.endswith(KINDS) and p.name[0] != "." and p.is_file())
        paths = sorted(inside, key=lambda p: p.relative_to(path).as_posix())
    else:
        paths = [path] if path.is_file() else sorted(map(Path, glob.glob(str(path), recursive=True)))
        paths = [p for p in paths if p.is_file()]
        if unknown := [p for p in paths if not p.name.endswith(KINDS)]:
            raise ConfigError("source", f"{str(unknown[0])!r} is none of {', '.join(KINDS)}")
    if not paths:
        raise ConfigError("source", f"no file {word!r}, or a folder with none of {', '.join(KINDS)}")
    return [File(p) for p in paths]


def _c4(word: str) -> list[Any]:
    files = word.partition(":")[2] or str(C4_FILES)
    if not files.isascii() or not files.isdigit() or not 1 <= int(files) <= C4_FILES:
        raise ConfigError("source", f"expected c4, or c4:FILES with 1 to {C4_FILES} of its files, got {word!r}")
    return [Streamed(f"en/c4-train.{i:05d}-of-{C4_FILES:05d}.json.gz") for i in range(int(files))]


# The running Python's standard library


class Library:
    """The sources of the standard library, without its tests and what is installed beside it; a file is a document."""

    name = f"{PYTHON} {platform.python_version()}"
    changed = 0

    def __init__(self) -> None:
        self.folder = Path(sysconfig.get_path("stdlib"))
        paths = (p for p in self.folder.rglob("*.py") if self._wanted(p.relative_to(self.folder)))
        sized = {p: p.stat().st_size for p in sorted(paths, key=lambda p: p.relative_to(self.folder).as_posix())}
        self.sizes = {p: size for p, size in sized.items() if size}  # many an __init__.py is empty
        self.size = sum(self.sizes.values())
        if not self.sizes:
            raise ConfigError(PYTHON, f"the standard library has no sources in {str(self.folder)!r}")

    @staticmethod
    def _wanted(path: Path) -> bool:
        unwanted = {"test", "tests", "idle_test", "site-packages", "dist-packages"} & set(path.parts)
        return not unwanted and not path.name.startswith("_sysconfigdata")  # which is about the machine

    def documents(self) -> Iterator[Document]:
        at = 0
        for path, size in self.sizes.items():
            at += size
            try:
                with tokenize.open(path) as file:
                    text = file.read()
            except (OSError, SyntaxError, ValueError) as error:
                raise ConfigError(str(path), f"cannot be read: {error}") from None
            if not text.isspace():
                domain = path.relative_to(self.folder).parts[0].removesuffix(".py")
                yield Document(checked(text, str(path)), domain, at)

    def sha256(self) -> str:
        found = hashlib.sha256()
        for path in self.sizes:
            found.update(path.read_bytes())
        return found.hexdigest()

    def key(self) -> str:
        """Of the names and sizes of its files: another build of the same version has others."""
        listing = [(p.relative_to(self.folder).as_posix(), size) for p, size in self.sizes.items()]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:12]


# Over the network


@dataclass(frozen=True)
class Streamed:
    """A file of C4 (`allenai/c4`, English) as the `datasets` package streams it from Hugging Face."""

    file: str

    size, changed = C4_BYTES, 0

    @property
    def name(self) -> str:
        return f"allenai/c4/{self.file}"

    def documents(self) -> Iterator[Document]:
        try:
            import datasets
        except ImportError:
            raise ConfigError(C4, "streaming needs datasets: pip install 'toybench[data]'") from None
        number = 0
        try:
            features = datasets.Features({name: datasets.Value("string") for name in ("text", "timestamp", "url")})
            rows: Iterable[Any] = datasets.load_dataset(
                "allenai/c4", data_files=self.file, split="train", streaming=True, features=features
            )
            for row in rows:
                number += 1
                text = checked(row.get("text"), f"{self.name}, row {number}")
                yield Document(text, host(row.get("url"), self.name), min(number * 900, C4_BYTES))
        except ConfigError:
            raise
        except Exception as error:  # its network layers raise what they like
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(self.name, f"Hugging Face cannot be reached, or gave no data: {said}") from None

    def sha256(self) -> None:
        return None
