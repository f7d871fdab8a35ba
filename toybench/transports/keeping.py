"""All that a server, a `toybench.transports.live.Live`, must not forget, as plain values and arrays, and back."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toybench.config import ConfigError
from toybench.server import Server
from toybench.transports.frames import Frame

SCHEMA = 2


class Point(NamedTuple):
    """An evaluation."""

    arrivals: int
    local_steps: int
    time: float  # seconds since the run began
    metrics: dict[str, float]


def freeze(live: Any) -> tuple[str, list[Any]]:
    """A server between groups: as JSON, and its arrays, those copied that it writes over.

    Neither may be the server's own: it goes on while they are written.
    """
    starts = sorted(live.starts)
    due = [*live.due]  # evaluations that nobody had time for
    written_over = jax.tree.map(np.array, tuple(live.server[1:]))
    tree = [
        Server(live.server.params, *written_over),
        [live.starts[worker] for worker in starts],
        [params for _, params in due],
    ]
    told = {
        "schema": SCHEMA,
        "about": live.about,
        "codec": live.rules.codec,
        "pace": live.rules.pace,
        "seed": live.work.seed,
        "began": live.began,
        "at": live.now,
        "coordinator": live.coordinator.state(),
        "starts": starts,
        "counts": dict(live.counts),
        "points": [[*point] for point in live.points],
        "due": [[*point] for point, _ in due],
        "losses": [[*item] for item in live.losses.items()],
    }
    return json.dumps(told), [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def thaw(live: Any, frame: Frame) -> None:
    """Bring a server that has just been made to where another was frozen.

    Raises:
        ConfigError: that was of another run, version or rule.
    """
    told = frame.told
    own = {"schema": SCHEMA, "about": lasting(live.about), "codec": live.rules.codec, "pace": live.rules.pace}
    for name, here in (own | {"seed": live.work.seed}).items():
        if (there := lasting(told["about"]) if name == "about" else told.get(name)) != here:
            raise ConfigError("resume", f"the folder holds a run of {_differing(name, there, here)}")
    live.coordinator.restore(told["coordinator"])
    live.began, live.at, live.points = told["began"], told["at"], [Point(*point) for point in told["points"]]
    live.counts.update(told["counts"])
    live.losses.update((worker, loss) for worker, loss in told["losses"])
    like = [live.server, [live.server.params] * len(told["starts"]), [live.server.params] * len(told["due"])]
    server, starts, due = jax.tree.unflatten(jax.tree.structure(like), [jnp.array(array) for array in frame.arrays])
    live.server, live.starts = Server(*server), dict(zip(told["starts"], starts))
    live.applied = {arrival.id for arrival in live.coordinator.arrivals}
    live.visits.update(arrival.visit.worker for arrival in live.coordinator.arrivals)
    for number, step in enumerate(live.coordinator.stepped):
        live.count(number, step)
    live.due.extend((Point(*point), params) for point, params in zip(told["due"], due))
    live.looked_at = max((point.local_steps for point in [*live.points, *(p for p, _ in live.due)]), default=0)


def lasting(about: dict[str, str]) -> dict[str, str]:
    """What a run keeps through its deaths. Its sources may be mended in between, which its driver tells of."""
    return {name: value for name, value in about.items() if name != "sources"}


def _differing(name: str, there: Any, here: Any) -> str:
    """What differs, in a few words."""
    if isinstance(there, dict) and isinstance(here, dict):
        key = next(k for k in {**there, **here} if there.get(k) != here.get(k))
        return f"{key} {there.get(key)}, this is {here.get(key)}"
    return f"{name} {there}, this is {here}"
