"""`python -m lm export`: a trained model as a safetensors file, with its settings and its tokenizer beside it."""

from __future__ import annotations

import argparse

from toybench.config import Run
from toybench.console import print_json


def add(parser: argparse.ArgumentParser, preset: Run) -> None:
    parser.add_argument("model", metavar="RUN_FOLDER", help="what `train` left of a run; or an export, or its folder")
    parser.add_argument("-o", "--out", required=True, metavar="FILE.safetensors", help="in a folder of its own")
    text = "of the file's numbers: float32 (default), or bfloat16, half as large and rounded"
    parser.add_argument("--dtype", default="float32", metavar="NAME", help=text)


def run(arguments: argparse.Namespace) -> int:
    from toybench.runtime import configure

    configure()
    from lm.config import parameters
    from lm.export import write_export
    from lm.runs import open_trained

    trained = open_trained(arguments.model)
    files = write_export(trained, arguments.out, arguments.dtype)
    sizes = {str(file): file.stat().st_size for file in files}
    if arguments.json:
        print_json({"model": trained.name, "dtype": arguments.dtype, "files": sizes, "source": trained.source})
        return 0
    print(f"{parameters(trained.settings):,} parameters, {arguments.dtype}")
    print("\n".join(f"{size:13,} bytes  {file}" for file, size in sizes.items()))
    return 0
