"""From text to tokens and back: bytes, a SentencePiece model, or one trained on the data."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lm.config import BYTES
from lm.documents import Source
from toybench.config import ConfigError
from toybench.runtime import cores

TRAIN = "train:"  # on a command line, before the size of a vocabulary to be trained
SAMPLE = 20_000_000  # characters that a vocabulary is trained on
LINE = 1000  # characters of a sentence in training; SentencePiece leaves out what is longer than 4192 bytes


class Tokenizer(Protocol):
    """Text to token numbers and back."""

    vocabulary: int  # numbers are below it
    end: int  # the number that ends a document
    identity: str  # equal for tokenizers that give the same numbers
    model: bytes | None  # the file it is made from

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Token numbers of each text, without the end of the document."""
        ...

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of token numbers; ends of documents are left out."""
        ...


class Bytes:
    """A token is a byte of UTF-8; 256 ends a document."""

    vocabulary, end, identity = BYTES, BYTES - 1, "bytes"
    model: bytes | None = None

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode(), np.uint8).astype(np.uint16) for text in texts]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        ids = np.asarray(ids)
        return ids[ids != self.end].astype(np.uint8).tobytes().decode(errors="replace")


class SentencePiece:
    """A SentencePiece model; its `end` is the model's end of sentence unless another is stated.

    Raises:
        ConfigError: it is no such model, or has no end of sentence and none is stated.
    """

    def __init__(self, model: bytes, end: int | None = None):
        self.model: bytes | None = model
        self._pieces = _package().SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(model)
            self.vocabulary: int = self._pieces.get_piece_size()
        except RuntimeError:
            raise ConfigError("tokenizer", "is no SentencePiece model") from None
        self.end: int = self._pieces.eos_id() if end is None else end
        if not 0 <= self.end < self.vocabulary:
            said = "has no end of sentence; state a token that ends documents" if end is None else f"has no token {end}"
            raise ConfigError("tokenizer", f"the model {said}")
        self.identity = hashlib.sha256(model).hexdigest()

    @classmethod
    def load(cls, path: str | Path, end: int | None = None) -> SentencePiece:
        """The model in a file."""
        try:
            return cls(Path(path).read_bytes(), end)
        except OSError as error:
            raise ConfigError("tokenizer", f"{str(path)!r} cannot be read: {error.strerror}") from None

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        dtype = np.uint16 if self.vocabulary <= 2**16 else np.uint32
        return [np.array(ids, dtype) for ids in self._pieces.encode(texts, num_threads=1)]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        return self._pieces.decode([int(i) for i in ids if i != self.end])


def _package() -> Any:
    try:
        import sentencepiece
    except ImportError:
        raise ConfigError("tokenizer", "SentencePiece is not installed: pip install 'toybench[data]'") from None
    return sentencepiece


def train(
    sources: Sequence[Source], vocabulary: int, left_out: Callable[[str], bool], sample: int = SAMPLE
) -> SentencePiece:
    """A BPE model of so many tokens from the first of every source; what it cannot say it says in bytes, losslessly.

    Texts that are `left_out` are not learned from. Reads about `sample` characters, spread evenly over the sources.

    Raises:
        ConfigError: a source cannot be read, or has too little text for the vocabulary.
    """
    package, written = _package(), io.BytesIO()
    refused: list[ConfigError] = []
    try:
        package.SentencePieceTrainer.train(
            sentence_iterator=_sentences(sources, sample, left_out, refused),
            model_writer=written,
            model_type="bpe",
            vocab_size=vocabulary,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            num_threads=cores(),
            minloglevel=2,
        )
    except Exception as error:  # it wraps what its iterator raises
        if refused:
            raise refused[0] from None
        if not isinstance(error, (RuntimeError, OSError)):
            raise
        said = str(error).splitlines()[0].rpartition("] ")[2]
        raise ConfigError("tokenizer", f"cannot be trained with {vocabulary} tokens: {said}") from None
    return SentencePiece(written.getvalue())


def _sentences(
    sources: Sequence[Source], sample: int, left_out: Callable[[str], bool], refused: list[ConfigError]
) -> Iterator[str]:
    """The first lines of every source, long ones in pieces, none of a text that is left out; notes what it raises."""
    share = -(-sample // len(sources))
    try:
        for source in sources:
            room = share
            for document in source.documents():
                if left_out(document.text):
                    continue
                text = document.text[:room]
                for line in text.splitlines():
                    yield from (line[i : i + LINE] for i in range(0, len(line), LINE))
                if (room := room - len(text)) <= 0:
                    break
    except ConfigError as error:
        refused.append(error)
        raise


def find_tokenizer(word: str, end: int | None = None) -> Tokenizer:
    """The tokenizer of a command line: 'bytes', or the file of a SentencePiece model."""
    return Bytes() if word == Bytes.identity else SentencePiece.load(word, end)
