"""What workers and server say to each other, and the rules that a server keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from toybench.transports.coordinator import Given


class Push(NamedTuple):
    """A finished visit, on its way to the server."""

    worker: int
    id: int
    seconds: float  # that the visit took the worker
    loss: float  # mean over its steps
    arrays: list[Any]  # the pseudo-gradient, encoded
    who: str = ""  # the process that made it


class Reply(NamedTuple):
    """What the server answers. Neither done nor given anything, a worker asks `next`."""

    worker: int
    verdict: str = ""  # of a push: 'applied', 'repeated' (it had been before) or 'refused'
    reason: str = ""  # why refused
    given: Given | None = None
    params: list[np.ndarray] | None = None  # leaves of what the worker pulls
    done: bool = False


@dataclass(frozen=True)
class Rules:
    """How a server deals with its workers.

    Args:
        codec: of `toybench.transports.codec.CODECS`.
        pace: seconds that a second of the cluster's declared speeds lasts, for workers that are slowed down to them;
            0: they are as fast as they are.
        first: seconds after which a worker that has shown no speed yet is given up: it compiles.
        factor: times its own expected time after which a worker is given up.
        least: seconds before which none is.
        every: seconds between checkpoints.
    """

    codec: str = "none"
    pace: float = 0.0
    first: float = 300.0
    factor: float = 4.0
    least: float = 5.0
    every: float = 30.0
