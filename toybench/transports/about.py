"""What workers and server must agree in, told by each process of itself."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from toybench import __version__

if TYPE_CHECKING:
    from toybench.transports.work import Recipe


@cache
def _sources() -> str:
    """A digest of the sources that this process runs."""
    folder, found = Path(__file__).parent.parent.parent, hashlib.sha256()
    for package in ("toybench", "lm"):
        for path in sorted((folder / package).rglob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Of this process: this package, jax, and the sources."""
    return {"toybench": __version__, "jax": metadata.version("jax"), "sources": _sources()}


def about_of(recipe: Recipe) -> dict[str, str]:
    """What all machines of a run must agree in: `versions`, and the run itself."""
    return versions() | {"run": hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]}
