"""What command lines of experiments have in common."""

from __future__ import annotations

import argparse
from pathlib import Path

from toybench.config import ConfigError
from toybench.records import writable_folder


def out_folder(text: str) -> Path:
    """For `argparse`: the folder of results, made now and not after the work.

    Raises:
        argparse.ArgumentTypeError: it cannot be written to.
    """
    try:
        return writable_folder(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
