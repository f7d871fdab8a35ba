"""Async Buffer: average N arrivals, then one step (paper, section 4, after FedBuff, arXiv 2106.06639)."""

from __future__ import annotations

from dataclasses import dataclass

from toybench.config import setting
from toybench.outer.base import transformation
from toybench.outer.sgd import Nesterov, nesterov


@dataclass(frozen=True)
class Buffered(Nesterov):
    """One Nesterov step on the mean of every N arrivals."""

    period: int | None = setting(None, "buffer size N; as many as workers if not given", unit="arrivals", at_least=1)


def every(period, wrapped):
    """optax transformation: feed another one the mean of every `period` (traced or not) updates; no step between."""
    import jax
    import jax.numpy as jnp
    import optax

    wrapped = optax.with_extra_args_support(wrapped)

    def init(params):
        return jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params), wrapped.init(params)

    def update(updates, state, params=None, **extras):
        count, total, inner = state
        total = jax.tree.map(jnp.add, total, updates)
        mean = jax.tree.map(lambda t: t / jnp.asarray(period, t.dtype), total)
        stepped, moved = wrapped.update(mean, inner, params, **extras)
        full = count + 1 >= period

        def choose(yes, no):
            return jax.tree.map(lambda a, b: jnp.where(full, a, b), yes, no)

        zeros = jax.tree.map(jnp.zeros_like, total)
        return choose(stepped, jax.tree.map(jnp.zeros_like, stepped)), (
            jnp.where(full, 0, count + 1),
            choose(zeros, total),
            choose(moved, inner),
        )

    return transformation(init, update)


def buffered(lr, momentum, period):
    return every(period, nesterov(lr, momentum))
