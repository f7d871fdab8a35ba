"""How well a trained model predicts text that it was not trained on."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np

from lm.data import Corpus
from lm.task import LanguageTask
from lm.trained import Trained
from toybench.config import ConfigError, ConfigWarning
from toybench.console import progress_bar


class Evaluated(NamedTuple):
    """A held-out loss, and of what."""

    loss: float  # nats a token
    perplexity: float
    bits_per_byte: float  # of the text, so that models with different tokenizers compare
    sequences: int
    of: int  # sequences that there are
    sequence: int  # tokens of each
    data: str  # their folder
    held_out: dict[str, Any]  # their tokens, documents, text_bytes and sha256
    in_training: float | None  # what the training found for the same parameters on the same sequences


def corpus_of(trained: Trained, folder: str | None) -> Corpus:
    """The data to evaluate on: those of the run, or prepared ones in another folder.

    Raises:
        ConfigError: they are not there, are of another tokenizer, or are not what the run was trained on.
    """
    named = trained.settings.data if folder is None else folder
    try:
        corpus = Corpus.open(named, trained.settings.vocabulary)
    except ConfigError as error:
        said = "; --data names another folder" if folder is None else ""
        raise ConfigError("data", f"{error.problem}{said}") from None
    own, there = trained.source["data"], corpus.note
    if own["tokenizer"] != there["tokenizer"]:
        raise ConfigError("data", f"{named!r} was prepared with another tokenizer than {trained.name!r} was trained on")
    if folder is None and own != there:
        said = f"{named!r} holds other text than {trained.name!r} was trained on"
        raise ConfigError("data", f"{said}; --data {named} evaluates on it all the same")
    if own["held_out_share"] < there["held_out_share"]:  # a document is held out by a digest of its text, below that
        said = f"{named!r} holds out more than the run's data; it may have been trained on some, if it is of such text"
        warnings.warn(said, ConfigWarning, stacklevel=2)
    return corpus


def evaluate(trained: Trained, corpus: Corpus, sequences: int | None) -> Evaluated:
    """Held-out loss on so many sequences, spread evenly over the data's, or on all.

    As many as in training are evaluated by training's own program, which gives the same loss, bit for bit, on the same
    machine; more of them by the same program, so many at a time.

    Raises:
        ConfigError: there are fewer.
    """
    s, held_out = trained.settings, corpus.note["held_out"]
    there = corpus.held_out_sequences(s.sequence)
    n = there if sequences is None else sequences
    if not 1 <= n <= there:
        said = f"must be 1 to {there}, the held-out sequences of {s.sequence} tokens in {str(corpus.folder)!r}, got {n}"
        raise ConfigError("sequences", said)
    token_NxL1 = corpus.held_out(n, s.sequence)
    compiled, params = jax.jit(LanguageTask(s, corpus).evaluate), jax.tree.map(jax.numpy.asarray, trained.params)
    total = 0.0
    with progress_bar(n) as progress:
        for start in range(0, n, s.held_out):
            piece = token_NxL1[start : start + s.held_out]
            total += float(compiled(params, (np.uint32(0), {"held_out": piece}))["loss"]) * len(piece)
            progress("evaluating", len(piece))
    loss = total / n
    source = trained.source
    same = held_out["sha256"] == source["data"]["held_out"]["sha256"] and n == s.held_out and not source["rounded"]
    return Evaluated(
        loss=loss,
        perplexity=_exp(loss),
        bits_per_byte=loss / math.log(2) * held_out["tokens"] / held_out["text_bytes"],
        sequences=n,
        of=there,
        sequence=s.sequence,
        data=str(corpus.folder),
        held_out=held_out,
        in_training=source["loss"] if same else None,
    )


def _exp(loss: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(loss))
