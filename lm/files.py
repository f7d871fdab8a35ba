"""Local files of documents: C4's JSON lines, Parquet, plain text."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm.documents import LONGEST, Document, checked, host
from toybench.config import ConfigError

LINES, PARQUET, TEXT = (".json.gz", ".jsonl.gz", ".json", ".jsonl"), ".parquet", ".txt"
KINDS = (*LINES, PARQUET, TEXT)


class File:
    """C4's JSON lines (`text`, and `url` for the domain), plain or gzipped; Parquet with such columns; or one text."""

    def __init__(self, path: Path):
        self.path, self.name = path, str(path)
        try:
            told = path.stat()
        except OSError as error:
            raise ConfigError(self.name, f"cannot be read: {error.strerror}") from None
        self.size, self.changed = told.st_size, told.st_mtime_ns

    def documents(self) -> Iterator[Document]:
        read = _of_text if self.name.endswith(TEXT) else _of_parquet if self.name.endswith(PARQUET) else _of_lines
        empty = True
        try:
            for document in read(self.path):
                empty = False
                yield document
        except OSError as error:
            raise ConfigError(self.name, f"cannot be read: {error.strerror or error}") from None
        if empty:
            raise ConfigError(self.name, "holds no documents")

    def sha256(self) -> str:
        try:
            with open(self.path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ConfigError(self.name, f"cannot be read: {error.strerror}") from None


def _of_text(path: Path) -> Iterator[Document]:
    if (size := path.stat().st_size) > 4 * LONGEST:
        raise ConfigError(str(path), f"a document of more than {LONGEST:,} characters; split it")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"not UTF-8: {error.reason} at byte {error.start}") from None
    yield Document(checked(text, str(path)), path.resolve().parent.name, size)


def _of_lines(path: Path) -> Iterator[Document]:
    for number, line, at in _lines(path):
        where = f"{path}, line {number}"
        if len(line) > 8 * LONGEST:
            raise ConfigError(where, f"a document of more than {LONGEST:,} characters; split it")
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(where, f"not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ConfigError(where, "expected a JSON object a line, with a field 'text'")
        yield Document(checked(row.get("text"), where), host(row.get("url"), path.name), at)


def _lines(path: Path) -> Iterator[tuple[int, bytes, int]]:
    """Lines with their numbers and the bytes of the file read so far."""
    with open(path, "rb") as raw:
        file: Any = gzip.GzipFile(fileobj=raw) if path.name.endswith(".gz") else raw
        number = 1
        while True:
            try:
                line = file.readline(8 * LONGEST + 1)  # a line without end must not fill the memory
            except EOFError:
                raise ConfigError(f"{path}, line {number}", "truncated: the compressed data ends early") from None
            except (gzip.BadGzipFile, zlib.error) as error:
                raise ConfigError(f"{path}, line {number}", f"not gzip, or damaged: {error}") from None
            if not line:
                return
            yield number, line, raw.tell()
            number += 1


def _of_parquet(path: Path) -> Iterator[Document]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigError(str(path), "Parquet needs pyarrow: pip install 'toybench[parquet]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            if "text" not in file.schema_arrow.names:
                raise ConfigError(str(path), f"no column 'text'; there: {', '.join(file.schema_arrow.names)}")
            columns = [name for name in ("text", "url") if name in file.schema_arrow.names]
            number, rows, size = 0, max(file.metadata.num_rows, 1), path.stat().st_size
            for batch in file.iter_batches(batch_size=1024, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    text = checked(row["text"], f"{path}, row {number}")
                    yield Document(text, host(row.get("url"), path.name), size * number // rows)
    except pyarrow.ArrowException as error:
        raise ConfigError(str(path), f"not Parquet, or damaged: {str(error).splitlines()[0]}") from None
