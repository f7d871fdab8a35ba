"""`python -m lm data`: text to tokens: files, Python's own sources or C4, packed for training."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toybench.arguments import Parser
from toybench.config import ConfigError, Run
from toybench.console import print_json, progress_bar
from toybench.interrupt import INTERRUPT, INTERRUPTED

if TYPE_CHECKING:
    from lm.documents import Source
    from lm.tokens import Tokenizer


def add(parser: argparse.ArgumentParser, preset: Run) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    said = "make a folder of tokens; goes on where it stopped if it was interrupted"
    action = actions.add_parser("prepare", help=said, description=said[0].upper() + said[1:] + ".")
    text = (
        "a file, folder or glob of .json[l][.gz] (field 'text', domain from 'url'), .parquet or .txt; "
        "'python', the standard library's sources; 'c4' or 'c4:FILES', the first files of allenai/c4, streamed"
    )
    action.add_argument("sources", nargs="+", metavar="SOURCE", help=text)
    text = "a SentencePiece model; 'bytes' (default); 'train:32000', one of so many tokens trained on the data"
    action.add_argument("--tokenizer", default="bytes", metavar="FILE|bytes|train:N", help=text)
    text = "token that ends a document (default: the model's end of sentence)"
    action.add_argument("--end", type=int, metavar="ID", help=text)
    action.add_argument("--out", required=True, metavar="FOLDER", help="where the tokens go, and what they are made of")
    text = "of the documents, held out to evaluate on (default 0.01)"
    action.add_argument("--held-out-share", type=float, default=0.01, metavar="X", help=text)
    text = "print one JSON document on standard output, nothing else"
    action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=text)


def run(arguments: argparse.Namespace) -> int:
    from lm.prepare import prepare
    from lm.sources import find_sources

    sources = find_sources(arguments.sources)
    tokenizer = chosen_tokenizer(arguments, sources)
    began, share = time.perf_counter(), arguments.held_out_share
    try:
        with INTERRUPT.held(), progress_bar(sum(source.size for source in sources)) as progress:
            meta = prepare(sources, tokenizer, arguments.out, share, progress)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return INTERRUPTED
    if getattr(arguments, "json", False):
        print_json({"folder": arguments.out} | meta)
    else:
        print(summary(arguments.out, meta, time.perf_counter() - began))
    return 0


def chosen_tokenizer(arguments: argparse.Namespace, sources: list[Source]) -> Tokenizer:
    """The tokenizer asked for; one that is to be trained is taken from the folder if it was trained already."""
    from lm.prepare import MODEL, is_held_out
    from lm.tokens import TRAIN, SentencePiece, find_tokenizer, train

    word, model = arguments.tokenizer, Path(arguments.out) / MODEL
    if arguments.end is not None and (word == "bytes" or word.startswith(TRAIN)):
        raise ConfigError("end", f"is of a SentencePiece model in a file, not of {word!r}, which has its own")
    if not word.startswith(TRAIN):
        return find_tokenizer(word, arguments.end)
    size = word.removeprefix(TRAIN)
    if not size.isascii() or not size.isdigit() or not 300 <= int(size) <= 1_000_000:
        raise ConfigError("tokenizer", f"expected {TRAIN}N with N from 300 to 1000000 tokens, got {word!r}")
    if model.exists() and (found := SentencePiece.load(model)).vocabulary == int(size):
        return found
    return train(sources, int(size), lambda text: is_held_out(text, arguments.held_out_share))


def summary(folder: str, meta: dict[str, Any], seconds: float) -> str:
    """What was made, in a line for each side."""
    lines = []
    for side in ("train", "held_out"):
        count = meta[side]
        share = count["text_bytes"] / count["tokens"]
        said = f"{count['tokens']:,} tokens of {count['documents']:,} documents, {share:.2f} bytes each"
        lines.append(f"{side.replace('_', '-'):9} {said}")
    return "\n".join([*lines, f"in {folder}: {seconds:.1f} s"])
