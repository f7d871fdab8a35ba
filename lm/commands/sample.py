"""`python -m lm sample`: text from a trained model."""

from __future__ import annotations

import argparse
import sys
import time
import unicodedata

from toybench.config import Run
from toybench.console import print_json


def add(parser: argparse.ArgumentParser, preset: Run) -> None:
    parser.add_argument("model", metavar="RUN_FOLDER", help="what `train` left of a run; or an export, or its folder")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="how the text begins (default: nothing)")
    parser.add_argument("--tokens", type=int, default=100, metavar="N", help="at most, after the prompt (default 100)")
    text = "by which logits are divided; 0 takes the most likely token (default 1)"
    parser.add_argument("--temperature", type=float, default=1.0, metavar="X", help=text)
    text = "choose among the K most likely tokens only (default: all)"
    parser.add_argument("--top-k", type=int, metavar="K", help=text)
    text = "of the choices: the same one gives the same text on the same machine (default 0)"
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=text)
    parser.add_argument("--count", type=int, default=1, metavar="N", help="texts (default 1)")


def run(arguments: argparse.Namespace) -> int:
    from toybench.runtime import configure

    configure()
    from lm.decode import Sampling, sample
    from lm.runs import open_trained

    asked = {name: getattr(arguments, name) for name in ("tokens", "count", "temperature", "top_k", "seed")}
    how = Sampling(**asked)
    trained, began = open_trained(arguments.model), time.perf_counter()
    found = sample(trained, arguments.prompt, how)
    seconds = time.perf_counter() - began
    if arguments.json:
        rows = [one._asdict() for one in found]
        print_json({"model": trained.name, "prompt": arguments.prompt} | asked | {"samples": rows})
        return 0
    for i, one in enumerate(found, 1):
        if len(found) > 1:
            print(f"--- {i} of {len(found)}")
        print(printable(one.text))
    tokens, ended = sum(len(one.tokens) for one in found), sum(one.ended for one in found)
    print(f"{tokens:,} tokens, {ended} of {len(found)} texts ended by themselves, {seconds:.1f} s", file=sys.stderr)
    return 0


def printable(text: str) -> str:
    """A text that does nothing to a terminal but fill it: control characters are replaced, but for ends of lines."""
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text)
