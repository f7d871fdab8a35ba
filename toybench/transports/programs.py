"""What a server computes, compiled: whether a push can be applied, and its application."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toybench.engine import Rows, arrival_extras
from toybench.outer.base import OuterOptimizer, pull_current
from toybench.scheduler import Visit
from toybench.server import Server, apply_arrival
from toybench.task import Params
from toybench.transports.codec import CODECS, decode, fits, wire_shapes


class Programs:
    """Those of one run.

    Args:
        outer: its outer optimizer.
        codec: by which pseudo-gradients travel.
        params: of its shapes.
    """

    def __init__(self, outer: OuterOptimizer, codec: str, params: Params):
        kind, like = CODECS[codec], jax.eval_shape(lambda: params)

        @jax.jit
        def finite(arrays):
            return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(decode(kind, arrays, like))]).all()

        # The parameters are others' too: workers that are to pull them, evaluations. All else is written over.
        @partial(jax.jit, donate_argnums=1)
        def arrive(params, rest, arrays, row, start):
            g, server = decode(kind, arrays, like), Server(params, *rest)
            params, *rest = apply_arrival(outer, server, g, step=row.step, **arrival_extras(row, start))
            return params, tuple(rest)

        self._finite, self._arrive, self._kind, self._like = finite, arrive, kind, like
        self._pull = pull_current if outer.pull is pull_current else jax.jit(outer.pull)

    def warm(self, server: Server) -> None:
        """Compile, so that no worker is late for it. Nothing is computed, so that it takes no memory."""
        like, wire = jax.eval_shape(lambda: server), wire_shapes(self._kind, self._like)
        row = row_of(Visit(0, 0, 0, 1, 0), 0, 0, True)
        self._finite.lower(wire).compile()
        self._arrive.lower(like.params, tuple(like[1:]), wire, row, like.params).compile()

    def wrong(self, arrays: list[Any]) -> str | None:
        """Why arrays are no pseudo-gradient that can be applied, if so."""
        if (said := fits(self._kind, arrays, self._like)) is not None:
            return said
        finite = bool(self._finite([np.asarray(array) for array in arrays]))
        return None if finite else "it has numbers that are not finite"

    def arrive(self, server: Server, arrays: list[Any], row: Rows, start: Params) -> Server:
        """The server after an arrival; all but its parameters is used up."""
        params, rest = self._arrive(server.params, tuple(server[1:]), arrays, row, start)
        return Server(params, *rest)

    def pull(self, server: Server, worker: int) -> Params:
        """What a worker pulls."""
        return self._pull(server.outer_state, server.params, np.int32(worker))


def own(server: Server) -> Server:
    """The same, nothing in it another's as well: an outer optimizer's state may begin as the parameters themselves."""
    return Server(server.params, *jax.tree.map(jnp.array, tuple(server[1:])))


def row_of(visit: Visit, number: int, staleness: int, step: bool) -> Rows:
    """An arrival as the spine reads it; who pulls is the caller's."""
    return Rows(
        worker=np.int32(visit.worker),
        shard=np.int32(visit.shard),
        first_step=np.int32(visit.first_step),
        num_steps=np.int32(visit.num_steps),
        staleness=np.int32(staleness),
        arrival=np.int32(number),
        dispatch=np.int32(visit.pulled_at),
        step=np.bool_(step),
        reset=np.bool_(False),
        pulls=np.zeros(0, bool),
        valid=np.bool_(True),
    )
