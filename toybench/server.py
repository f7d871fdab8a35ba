"""The server: `apply_arrival`, the only code that applies a pseudo-gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from toybench.outer.base import OuterOptimizer
from toybench.task import Params


class Server(NamedTuple):
    """What the server keeps between arrivals."""

    params: Params
    outer_state: Any
    total: Params  # sum of the pseudo-gradients since the last outer step
    count: jax.Array  # and their number


def open_server(outer: OuterOptimizer, params: Params) -> Server:
    """A server at its first parameters."""
    return Server(params, outer.init(params), jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32))


def apply_arrival(
    outer: OuterOptimizer,
    server: Server,
    pseudo_gradient: Params,
    *,
    step: jax.Array,
    valid: jax.Array | bool = True,
    **extras: Any,
) -> Server:
    """Take one pseudo-gradient; where `step` is set, make an outer step on the mean of those since the last one.

    Asynchronous training steps at every arrival, synchronous training at the end of a round (paper, Algorithm 2).

    Args:
        outer: the outer optimizer.
        server: before the arrival.
        pseudo_gradient: θ_pulled − θ_local, shaped as the parameters.
        step: whether the server steps after this arrival.
        valid: whether there is an arrival at all; a masked one must come with `step` unset and a zero pseudo-gradient.
        **extras: what the outer optimizer is told, see `toybench.outer.base.OuterOptimizer`.

    Returns:
        The server after it.
    """
    total = jax.tree.map(jnp.add, server.total, pseudo_gradient)
    count = server.count + jnp.asarray(valid, jnp.int32)
    mean = jax.tree.map(lambda t: t / jnp.maximum(count, 1).astype(t.dtype), total)
    updates, outer_state = outer.update(mean, server.outer_state, server.params, **extras)
    stepped = Server(
        optax.apply_updates(server.params, updates),
        outer_state,
        jax.tree.map(jnp.zeros_like, total),
        jnp.zeros_like(count),
    )
    waiting = server._replace(total=total, count=count)
    # Numbers traced in float32 would widen a narrower state.
    return jax.tree.map(lambda new, old: jnp.where(step, new.astype(old.dtype), old), stepped, waiting)
