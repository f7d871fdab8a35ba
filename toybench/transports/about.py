"""What workers and server must agree in, told by each process of itself."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from typing import TYPE_CHECKING

from toybench import __version__
from toybench.records import code

if TYPE_CHECKING:
    from toybench.transports.work import Recipe


def versions() -> dict[str, str]:
    """Of this process: jax, this package, and a digest of its sources that decide a run's numbers."""
    return {"jax": metadata.version("jax"), "toybench": __version__, "sources": code()}


def digest_of(recipe: Recipe) -> str:
    """A run and its seed in a few letters."""
    told = json.dumps([*recipe], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]
