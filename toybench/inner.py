"""The worker: inner optimizers, the learning rate of Eq. 3, and `local_update`, the only code that trains a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from toybench.task import Batch, Params, Task


class InnerOptimizer(NamedTuple):
    """An optax optimizer built with learning rate 1, and the learning rate that multiplies its updates.

    Any optax optimizer serves: ``InnerOptimizer(optax.lion(1.0), constant(1e-4))``.
    """

    transformation: optax.GradientTransformation
    rate: Callable[[jax.Array, jax.Array], jax.Array]  # (step on the shard, step of the visit) -> learning rate


def constant(lr: float) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """A learning rate that never changes."""
    return lambda shard_step, visit_step: jnp.asarray(lr)


def warmup_cosine(lr, final_lr, warmup, decay_steps, first_step_peak=False):
    """Learning rate of Eq. 3: from 0 linearly to `lr` at `warmup`, then by a cosine to `final_lr` at `decay_steps`.

    It stays at `final_lr` afterwards. With `first_step_peak` the first step of every visit runs at `lr`, as the
    paper's notebook does. All arguments may be traced.
    """

    def rate(shard_step: jax.Array, visit_step: jax.Array) -> jax.Array:
        progress = jnp.clip((shard_step - warmup) / (decay_steps - warmup), 0.0, 1.0)
        cosine = final_lr + (lr - final_lr) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        scheduled = jnp.where(shard_step < warmup, lr * shard_step / jnp.maximum(warmup, 1), cosine)
        return jnp.where(first_step_peak & (visit_step == 0), lr, scheduled)

    return rate


def make_inner(optimizer: str, numbers: Mapping[str, Any]) -> InnerOptimizer:
    """The inner optimizer ``adamw`` or ``sgd``, of numbers that may be traced, as `inner_numbers` gives them."""
    n = numbers
    rate = warmup_cosine(n["lr"], n["final_lr"], n["warmup"], n["decay_steps"], n["first_step_peak"])
    if optimizer not in ("adamw", "sgd"):
        raise ValueError(f"unknown inner optimizer {optimizer!r}; known: adamw, sgd")
    if optimizer == "adamw":
        return InnerOptimizer(optax.adamw(1.0, n["b1"], n["b2"], n["eps"], weight_decay=n["weight_decay"]), rate)
    return InnerOptimizer(optax.sgd(1.0, n["momentum"]), rate)


def local_update(
    task: Task,
    inner: InnerOptimizer,
    start: Params,
    inner_state: Any,
    batch_at: Callable[[jax.Array], Batch],
    first_step: jax.Array,
    num_steps: jax.Array,
    trip: jax.Array | None = None,
) -> tuple[Params, Any, jax.Array]:
    """A worker's visit: local steps from the pulled parameters (paper, Algorithm 4).

    Args:
        task: whose loss is minimized.
        inner: the inner optimizer.
        start: pulled parameters θ.
        inner_state: the worker's optimizer state, kept or fresh.
        batch_at: the batch of a step of the visit, counted from 0.
        first_step: steps spent on the shard before this visit; the learning rate goes on from there.
        num_steps: local steps of this visit.
        trip: loop length, at least `num_steps`; where visits of several lengths run in one vectorized program, the
            longest. Steps past `num_steps` change nothing.

    Returns:
        The pseudo-gradient θ_pulled − θ_local, the new inner state, and the visit's mean training loss.
    """

    def step(j, carry):
        params, state, total = carry
        loss, gradient = jax.value_and_grad(task.loss)(params, batch_at(j))
        updates, new_state = inner.transformation.update(gradient, state, params)
        rate = jnp.asarray(inner.rate(first_step + j, j))
        updates = jax.tree.map(lambda u: rate.astype(u.dtype) * u, updates)
        moved = optax.apply_updates(params, updates), new_state, total + loss

        def keep(new, old):  # numbers traced in float32 would widen a narrower state
            new = jnp.asarray(new).astype(old.dtype)
            return new if trip is None else jnp.where(j < num_steps, new, old)

        return jax.tree.map(keep, moved, carry)

    zero = jnp.zeros((), jnp.result_type(float))
    length = num_steps if trip is None else trip
    params, inner_state, total = jax.lax.fori_loop(0, length, step, (start, inner_state, zero))
    return jax.tree.map(jnp.subtract, start, params), inner_state, total / jnp.maximum(num_steps, 1)
