"""What is trained: the Task protocol, and a check that a new task keeps its laws."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp

Params = Any  # a pytree of floating arrays
Data = Any  # a pytree of arrays: an argument of the compiled program, so that seeds are paired and never recompile
Batch = Any


class Task(Protocol):
    """A model, its data and its loss. Stateless and hashable: equal tasks share compiled programs.

    A task is pure functions over pytrees; the engine never looks inside them. `toybench.gaussians` is one in full,
    the README has one in thirty lines.

    Data that lie on the host, the same for every seed, would become constants of the compiled program if `data` handed
    them out. A task that has such also has ``host_data(shards)``, any pytree of NumPy arrays: it is put on the devices
    once and shared by all seeds, and the data that `batch` and `evaluate` get are the pair (one seed's, the shared).
    """

    def data(self, key: jax.Array, shards: int) -> Data:
        """The data of one seed, already split into `shards` shards: any pytree of arrays."""
        ...

    def init(self, key: jax.Array) -> Params:
        """Initial parameters: a pytree of floating arrays."""
        ...

    def batch(self, data: Data, shard: jax.Array, step: jax.Array) -> Batch:
        """The batch of a shard's step, both int32 scalars, traced; any pytree.

        Random access, no iterator, so that nothing need be kept to resume. Steps go on past the end of a shard.
        """
        ...

    def loss(self, params: Params, batch: Batch) -> jax.Array:
        """Mean loss of a batch, a scalar."""
        ...

    def evaluate(self, params: Params, data: Data) -> dict[str, jax.Array]:
        """Scalars by name; ``loss`` is among them."""
        ...


def has_host_data(task: Task) -> bool:
    """Whether a task's data are a pair, of which all seeds share the second."""
    return hasattr(task, "host_data")


def data_of(task: Task, key: jax.Array, shards: int) -> Data:
    """The data of one seed, as `Task.batch` and `Task.evaluate` get them."""
    own = task.data(key, shards)
    return (own, jax.device_put(task.host_data(shards))) if has_host_data(task) else own  # type: ignore[attr-defined]


def check_task(task: Task, shards: int = 2, seed: int = 0) -> None:
    """Run a task once through everything the engine asks of it.

    Raises:
        TypeError: a law is broken; the message says which.
    """
    key = jax.random.key(seed)
    data, params = data_of(task, key, shards), task.init(key)
    hash(task)
    leaves = jax.tree.leaves(params)
    if not leaves or not all(jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves):
        raise TypeError("init: parameters must be a pytree of floating arrays")
    batch = jax.jit(task.batch)(data, jnp.int32(shards - 1), jnp.int32(10**6))
    if (shape := jnp.shape(task.loss(params, batch))) != ():
        raise TypeError(f"loss: must be a scalar, has shape {shape}")
    loss, gradient = jax.value_and_grad(task.loss)(params, batch)
    metrics = task.evaluate(params, data)
    if "loss" not in metrics or any(jnp.shape(value) != () for value in metrics.values()):
        raise TypeError("evaluate: must return scalars by name, 'loss' among them")
    for name, value in {"loss": loss, "loss: its gradient": gradient, "evaluate": metrics}.items():
        if not all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(value)):
            raise TypeError(f"{name}: not finite at the initial parameters")
