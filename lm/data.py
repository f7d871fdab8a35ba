"""Prepared tokens: opened, split into shards, and read as batches at random access."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lm.config import PYTHON
from lm.prepare import META, MODEL, SCHEMA, SIDES, is_whole, prepare
from lm.shards import Shards, Side, split
from lm.sources import Library
from lm.tokens import Bytes, SentencePiece, Tokenizer
from toybench.config import ConfigError
from toybench.records import read_json
from toybench.runtime import CACHE_SWITCH, user_cache

PYTHON_HELD_OUT = 0.05  # of the standard library's files, which are few


class Corpus:
    """A folder that `lm.prepare` made, memory-mapped."""

    def __init__(self, folder: Path, vocabulary: int | None = None):
        self.folder, self.meta = folder, _read_meta(folder)
        self.vocabulary: int = self.meta["tokenizer"]["vocabulary"]
        if vocabulary is not None and vocabulary < self.vocabulary:
            said = f"must be >= {self.vocabulary}, which is that of the data in {str(folder)!r}, got {vocabulary}"
            raise ConfigError("task.vocabulary", said)
        self._train, self._held_out = self._side("train"), self._side("held_out")

    @classmethod
    def open(cls, data: str | Path = PYTHON, vocabulary: int | None = None) -> Corpus:
        """The corpus in a folder; of 'python' that of the standard library, made first if need be.

        Raises:
            ConfigError: there is none, it is unfinished or damaged, or the model knows fewer tokens (`vocabulary`).
        """
        return cls(python_corpus() if str(data) == PYTHON else Path(os.path.expanduser(data)), vocabulary)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Corpus) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    @property
    def identity(self) -> str:
        """Equal for equal tokens, those held out too."""
        return hashlib.sha256("".join(self.meta[side]["sha256"] for side in SIDES).encode()).hexdigest()[:16]

    @property
    def note(self) -> dict[str, Any]:
        """What tells these data and their tokenizer from others: for what is made of them."""
        return {key: self.meta[key] for key in ("tokenizer", "held_out_share", *SIDES)}

    def tokenizer(self) -> Tokenizer:
        """What the tokens were made with."""
        said = self.meta["tokenizer"]
        return Bytes() if said["sha256"] == Bytes.identity else SentencePiece.load(self.folder / MODEL, said["end"])

    def split(self, shards: int, partition: str, seed: int) -> Shards:
        """The training documents, each in one of the shards, in an order drawn by the seed.

        'iid' deals them at random, evenly by tokens; 'domain' keeps those of a domain together, the largest domain
        first, each to the shard that has the fewest tokens.

        Raises:
            ConfigError: there are fewer documents, or domains, than shards.
        """
        return split(self._train, shards, partition, seed)

    def held_out(self, n: int, sequence: int) -> np.ndarray:
        """Sequences of held-out documents to evaluate on: int32 [n, sequence + 1], spread evenly, always the same.

        Raises:
            ConfigError: there are fewer.
        """
        tokens, there = self._held_out.tokens, self.held_out_sequences(sequence)
        if n > there:
            said = f"must be <= {there}, the held-out sequences of {sequence} tokens in {str(self.folder)!r}, got {n}"
            raise ConfigError("task.held_out", said)
        starts = np.arange(n, dtype=np.int64) * there // n * sequence
        return tokens[starts[:, None] + np.arange(sequence + 1)].astype(np.int32)

    def held_out_sequences(self, sequence: int) -> int:
        """How many there are."""
        return (len(self._held_out.tokens) - 1) // sequence

    def _side(self, name: str) -> Side:
        files = {"bin": self.meta["dtype"], "ends.bin": "<i8", "domains.bin": "<u4"}
        counts = {"bin": self.meta[name]["tokens"]}
        found = []
        for kind, dtype in files.items():
            path, count = self.folder / f"{name}.{kind}", counts.get(kind, self.meta[name]["documents"])
            size = path.stat().st_size if path.is_file() else None
            if size != count * np.dtype(dtype).itemsize:
                raise ConfigError("task.data", f"{str(path)!r} is damaged: it should have {count:,} numbers of {dtype}")
            found.append(np.asarray(np.memmap(path, dtype, "r")))
        return Side(*found)


def _read_meta(folder: Path) -> dict[str, Any]:
    if not is_whole(folder):
        said = "is not finished; the same `python -m lm data prepare` goes on" if folder.is_dir() else "is not there"
        raise ConfigError(
            "task.data",
            f"{str(folder)!r} {said}; expected a folder that `python -m lm data prepare` made, or {PYTHON!r}",
        )
    meta = read_json(folder / META)
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
        raise ConfigError("task.data", f"{str(folder)!r} is no data that this version reads; prepare it again")
    return meta


def python_corpus() -> Path:
    """The folder of the standard library's sources as bytes, made in the user's cache folder if it is not there.

    Made aside and renamed: of processes that make it at once, one wins, and all see it whole.

    Raises:
        ConfigError: the cache folder cannot be written.
    """
    library = Library()
    choice = os.environ.get(CACHE_SWITCH, "")
    off = choice.lower() in ("", "off", "0", "false", "no")  # which is about compiled programs only
    root = (user_cache() if off else Path(os.path.expanduser(choice))) / "corpora"
    folder = root / f"{library.name.replace(' ', '-')}-{SCHEMA}-{library.key()}"
    if is_whole(folder):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".making-") as aside:
            made = Path(aside) / "corpus"
            prepare([library], Bytes(), made, PYTHON_HELD_OUT)
            try:
                os.rename(made, folder)
            except OSError:
                if not is_whole(folder):  # else another process was faster
                    raise
    except OSError as error:
        said = f"cannot be kept in {str(root)!r}: {error.strerror}; the environment's {CACHE_SWITCH} names another"
        raise ConfigError("task.data", f"{PYTHON!r} {said} folder") from None
    return folder
