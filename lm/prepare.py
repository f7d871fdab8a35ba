"""Text to packed tokens in a folder: streamed, resumed where it was killed, whole only once `meta.json` is there.

Of each side (`train`, `held_out`) three plain little-endian files: `.bin`, the tokens, every document followed by the
tokenizer's end; `.ends.bin`, int64, where each document ends among them; `.domains.bin`, uint32, a digest of where
each comes from. `tokenizer.model` is the SentencePiece model, if one was used. `meta.json`, written last, says the
rest. Until then `progress.json` says how much of each file counts, and of which sources.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lm.documents import Document, Source
from lm.lock import alone
from lm.tokens import Tokenizer
from toybench.config import ConfigError
from toybench.records import read_json, writable_folder, write_json, write_whole
from toybench.runtime import cores

SCHEMA = 1
META, PROGRESS, MODEL = "meta.json", "progress.json", "tokenizer.model"
SIDES = ("train", "held_out")
SOURCES = "sources.jsonl"  # of the sources that are done, a line each; part of meta.json in the end
STREAMS = (*(f"{side}.{kind}" for side in SIDES for kind in ("bin", "ends.bin", "domains.bin")), SOURCES)
BATCH = 500_000  # characters that the tokenizer is given at once
COMMIT = 8_000_000  # tokens between two notes of progress, each of which waits for the disk

Progress = Callable[[str, float], None]  # what is said, and bytes of sources done since the last call


def is_whole(folder: Path) -> bool:
    """Whether the folder holds prepared tokens, finished."""
    return (folder / META).is_file()


def is_held_out(text: str, share: float) -> bool:
    """Whether a text is evaluated on: drawn by the text itself, so that the same one is never on both sides."""
    drawn = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(drawn, "little") < share * 2**64


def domain_number(domain: str) -> int:
    """Where a document comes from, as 32 bits: a table of all hosts would grow with the corpus."""
    return int.from_bytes(hashlib.blake2b(domain.encode(errors="replace"), digest_size=4).digest(), "little")


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Documents in batches of about `BATCH` characters."""
    batch, characters = [], 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= BATCH:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def encoded(
    found: Iterable[list[Document]], tokenizer: Tokenizer, threads: ThreadPoolExecutor
) -> Iterator[tuple[list[Document], list[np.ndarray]]]:
    """Batches with their tokens, in order; no more than two a core are held."""
    waiting: deque[tuple[list[Document], Future[list[np.ndarray]]]] = deque()
    for batch in found:
        waiting.append((batch, threads.submit(tokenizer.encode, [document.text for document in batch])))
        if len(waiting) >= 2 * cores():
            first, ids = waiting.popleft()
            yield first, ids.result()
    for first, ids in waiting:
        yield first, ids.result()


def prepare(
    sources: Sequence[Source],
    tokenizer: Tokenizer,
    out: str | Path,
    held_out_share: float = 0.01,
    progress: Progress = lambda said, amount: None,
) -> dict[str, Any]:
    """Write the documents of the sources as tokens to the folder `out`; returns its `meta.json`.

    Killed or failed, the same call goes on where it stopped, and makes the same bytes as one that was never stopped.
    Sources that were begun must not have changed since; the one that it stopped in may have, and is then read anew.

    Raises:
        ConfigError: a source cannot be read, the folder cannot be written or holds something else.
    """
    if not 0 < held_out_share < 1:
        raise ConfigError("held_out_share", f"must be > 0 and < 1, got {held_out_share}")
    folder = writable_folder(out)
    plan = {
        "schema": SCHEMA,
        "tokenizer": {"sha256": tokenizer.identity, "vocabulary": tokenizer.vocabulary, "end": tokenizer.end},
        "dtype": "<u2" if tokenizer.vocabulary <= 2**16 else "<u4",
        "held_out_share": held_out_share,
    }
    with alone(folder):
        if is_whole(folder):
            return _the_same(folder, plan, sources)
        try:
            return _Packing(folder, plan, sources, tokenizer, progress).run()
        except OSError as error:  # of readers it is a ConfigError already
            said = "; once there is room, the same command goes on" if error.errno == errno.ENOSPC else ""
            raise ConfigError("out", f"cannot write to {str(folder)!r}: {error.strerror or error}{said}") from None


def _the_same(folder: Path, plan: dict[str, Any], sources: Sequence[Source]) -> dict[str, Any]:
    """What a finished folder holds, if it is what is asked for."""
    meta = read_json(folder / META)
    listed = [_identity(source) for source in meta["sources"]]
    if {key: meta.get(key) for key in plan} != plan or listed != [_identity(_told(s)) for s in sources]:
        raise ConfigError("out", f"{str(folder)!r} holds tokens of other sources or settings; name another folder")
    return meta


def _told(source: Source) -> dict[str, Any]:
    return {"name": source.name, "size": source.size, "changed": source.changed}


def _identity(told: dict[str, Any]) -> tuple[Any, ...]:
    return told["name"], told["size"], told["changed"]


class _Packing:
    """One preparation, from where it stopped to its end."""

    def __init__(
        self, folder: Path, plan: dict[str, Any], sources: Sequence[Source], tokenizer: Tokenizer, progress: Progress
    ):
        self.folder, self.plan, self.sources, self.progress = folder, plan, sources, progress
        self.tokenizer, self.dtype = tokenizer, np.dtype(plan["dtype"])
        self.files: dict[str, BinaryIO] = {}
        self.source, self.documents = 0, 0  # the source that is read, and its documents that are written
        self.text_bytes: dict[str, int] = dict.fromkeys(SIDES, 0)
        self.committed = 0  # tokens
        self.begun = self._mark()  # where the source that is read began

    def run(self) -> dict[str, Any]:
        start = self._noted() if (self.folder / PROGRESS).exists() else self._first()
        if self.tokenizer.model is not None:
            write_whole(self.folder / MODEL, self.tokenizer.model)
        with ExitStack() as stack:
            for name in STREAMS:
                path = self.folder / name
                path.touch()
                self.files[name] = stack.enter_context(open(path, "r+b"))
            self._go_back(start)
            self.threads = stack.enter_context(ThreadPoolExecutor(cores()))
            self.began, self.at_start = time.perf_counter(), self._tokens()
            for source in self.sources[self.source :]:
                self._pack(source)
            self._commit()
        return self._finish()

    # Where it stopped

    def _first(self) -> dict[str, Any]:
        """The mark to start from, noted before there is any other file."""
        if there := [name for name in (*STREAMS, MODEL) if (self.folder / name).exists()]:
            said = f"{str(self.folder)!r} has a {there[0]} that is of no preparation; name another folder"
            raise ConfigError("out", said)
        self._commit()
        return self.begun

    def _noted(self) -> dict[str, Any]:
        """The mark to go on from."""
        noted = read_json(self.folder / PROGRESS)
        try:
            if noted["plan"] != self.plan:
                raise ConfigError("out", f"{str(self.folder)!r} was begun with other settings; name another folder")
            self.begun, now = noted["begun"], noted["now"]
            self._check_sources(self._done(self.begun["lengths"][SOURCES]))
            return now if noted["reading"] == self._reading() else self.begun
        except (KeyError, TypeError, ValueError, FileNotFoundError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError("out", f"{str(self.folder / PROGRESS)!r} is damaged; remove the folder") from None

    def _check_sources(self, done: list[dict[str, Any]]) -> None:
        for i, told in enumerate(done):
            now = _told(self.sources[i]) if i < len(self.sources) else None
            if now is None or _identity(told) != _identity(now):
                said = f"{str(self.folder)!r} was begun with {told['name']!r} as source {i + 1}, which has changed"
                raise ConfigError("out", f"{said} or is not asked for; name another folder")

    def _go_back(self, mark: dict[str, Any]) -> None:
        """Forget what was written after the mark."""
        for name, file in self.files.items():
            if file.seek(0, os.SEEK_END) < mark["lengths"][name]:
                raise ConfigError("out", f"{str(self.folder / name)!r} is shorter than it was; remove the folder")
            file.truncate(mark["lengths"][name])
            file.seek(mark["lengths"][name])
        self.source, self.documents = mark["source"], mark["documents"]
        self.text_bytes = dict(mark["text_bytes"])
        self.progress("reading", float(sum(source.size for source in self.sources[: self.source])))

    def _mark(self) -> dict[str, Any]:
        lengths = {name: self._length(name) for name in STREAMS}
        counts = {"source": self.source, "documents": self.documents, "text_bytes": dict(self.text_bytes)}
        return counts | {"lengths": lengths}

    def _length(self, name: str) -> int:
        """Bytes of a file so far."""
        return self.files[name].tell() if self.files else 0

    def _done(self, length: int) -> list[dict[str, Any]]:
        """What is noted of the sources that are done."""
        path = self.folder / SOURCES
        return [json.loads(line) for line in path.read_bytes()[:length].splitlines()] if length else []

    def _reading(self) -> dict[str, Any] | None:
        """The source that is read."""
        number = self.begun["source"]
        return _told(self.sources[number]) if number < len(self.sources) else None

    def _commit(self) -> None:
        """Note how far it is; what is noted is on the disk."""
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        note = {"plan": self.plan, "begun": self.begun, "now": self._mark(), "reading": self._reading()}
        write_json(self.folder / PROGRESS, note)
        self.committed = self._tokens()

    # The work

    def _tokens(self) -> int:
        return sum(self._length(f"{side}.bin") for side in SIDES) // self.dtype.itemsize

    def _pack(self, source: Source) -> None:
        """One source, from the document where it stopped: read here, while other threads encode what was read."""
        told, at = _told(source), 0
        documents = islice(source.documents(), self.documents, None)
        for batch, ids in encoded(batches(documents), self.tokenizer, self.threads):
            at = self._write(batch, ids, at)
            if self._tokens() - self.committed >= COMMIT:
                self._commit()
        line = json.dumps(told | {"documents": self.documents, "sha256": source.sha256()}) + "\n"
        self.files[SOURCES].write(line.encode())
        self.source, self.documents = self.source + 1, 0
        self.begun = self._mark()
        self.progress(self._said(), max(source.size - at, 0))
        if self._tokens() - self.committed >= COMMIT:
            self._commit()

    def _write(self, batch: list[Document], ids: list[np.ndarray], before: int) -> int:
        """Tokens of a batch of documents, each to its side; returns the bytes of the source that are done."""
        end = np.array([self.tokenizer.end], self.dtype)
        rows: dict[str, list[tuple[Document, np.ndarray]]] = {side: [] for side in SIDES}
        for document, tokens in zip(batch, ids):
            rows[SIDES[is_held_out(document.text, self.plan["held_out_share"])]].append((document, tokens))
        for side, documents in rows.items():
            if not documents:
                continue
            file = self.files[f"{side}.bin"]
            ends = file.tell() // self.dtype.itemsize + np.cumsum([len(ids) + 1 for _, ids in documents])
            domains = np.array([domain_number(document.domain) for document, _ in documents], "<u4")
            tokens = np.concatenate([part for _, ids in documents for part in (ids, end)])
            file.write(tokens.astype(self.dtype, copy=False).tobytes())
            self.files[f"{side}.ends.bin"].write(ends.astype("<i8").tobytes())
            self.files[f"{side}.domains.bin"].write(domains.tobytes())
            self.text_bytes[side] += sum(len(document.text.encode()) for document, _ in documents)
        self.documents += len(batch)
        self.progress(self._said(), batch[-1].at - before)
        return batch[-1].at

    def _said(self) -> str:
        tokens = self._tokens()
        rate = (tokens - self.at_start) / max(time.perf_counter() - self.began, 1e-9)
        return f"{tokens / 1e6:,.1f} M tokens, {rate / 1e6:.2f} M/s"

    def _finish(self) -> dict[str, Any]:
        """Make the folder whole."""
        sides = {side: self._counts(side) for side in SIDES}
        for side, counts in sides.items():
            if not counts["documents"]:
                purpose = "train on" if side == "train" else "hold out"
                said = f"{self.plan['held_out_share']} of so few documents leaves none to {purpose}"
                raise ConfigError("held_out_share", said)
        listed = self._done((self.folder / SOURCES).stat().st_size)
        meta = self.plan | sides | {"sources": listed, "date": datetime.now(UTC).isoformat(timespec="seconds")}
        write_json(self.folder / META, meta)
        for name in (PROGRESS, SOURCES):
            (self.folder / name).unlink(missing_ok=True)
        return meta

    def _counts(self, side: str) -> dict[str, Any]:
        path = self.folder / f"{side}.bin"
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {
            "tokens": path.stat().st_size // self.dtype.itemsize,
            "documents": (self.folder / f"{side}.domains.bin").stat().st_size // 4,
            "text_bytes": self.text_bytes[side],
            "sha256": sha256,
        }
