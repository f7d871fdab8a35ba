"""Visits of a wave laid over the devices: lanes over the axis `worker`, the batch of each over the axis `data`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lm.placement import Placement
from lm.snapshots import memory_of, server_device
from toybench.task import Batch, Params, Task

WORKER, DATA = "worker", "data"
LANES, BATCHES, ALL = PartitionSpec(WORKER), PartitionSpec(WORKER, None, DATA), PartitionSpec()


@jax.jit
def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@partial(jax.jit, static_argnums=1)
def _unstacked(tree: Any, count: int) -> list[Any]:
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(count)]


@dataclass(frozen=True)
class Lanes:
    """The lanes of a wave on the devices: lane i is the (i modulo l)-th of device i // l, which computes l of them.

    Args:
        placement: of which `workers` and `data` count here.
        count: L lanes, a multiple of `workers`.
    """

    placement: Placement
    count: int

    @property
    def each(self) -> int:
        """l, the lanes of a device."""
        return self.count // self.placement.workers

    @property
    def alone(self) -> bool:
        """Whether there is one device only: then nothing is laid anywhere."""
        return self.placement.devices == 1

    @cached_property
    def mesh(self) -> Mesh:
        """[worker, data] the first of the local devices."""
        shape = self.placement.workers, self.placement.data
        used = np.array(jax.local_devices()[: self.placement.devices]).reshape(shape)
        return Mesh(used, (WORKER, DATA), axis_types=(AxisType.Auto, AxisType.Auto))

    def task(self, task: Task) -> Task:
        """A task whose loss is that of a whole batch, also where a device has a part of it only."""
        return task if self.placement.data == 1 else Averaged(task)  # type: ignore[return-value] a visit needs its loss

    def compile(self, wave: Callable) -> Callable:
        """A wave as one program: ``(starts, states, batches, first_step, num_steps, trip) -> results``.

        All but `trip` have a leading axis of lanes: L outside, l within `wave`. Starts and states are given away.
        """
        if not self.alone:
            specs = (LANES, LANES, BATCHES, LANES, LANES, ALL)
            # Unchecked, as the loops of the spine do not say over which axes their carry varies.
            wave = jax.shard_map(wave, mesh=self.mesh, in_specs=specs, out_specs=LANES, check_vma=False)
        return jax.jit(wave, donate_argnums=(0, 1))

    def lay(self, trees: Sequence[Any]) -> Any:
        """Trees, one a lane, from wherever they are, as one of arrays [L, ...] laid over the mesh; always copies."""
        if self.alone:
            there = self.placement.snapshots == "device"
            return _stacked(trees if there else jax.device_put(trees, memory_of(server_device())))
        shares = [trees[i : i + self.each] for i in range(0, self.count, self.each)]
        pieces = [
            _stacked(jax.device_put(share, memory_of(device)))
            for share, row in zip(shares, self.mesh.devices)
            for device in row
        ]

        def joined(*leaves: jax.Array) -> jax.Array:
            shape = self.count, *leaves[0].shape[1:]
            return jax.make_array_from_single_device_arrays(shape, NamedSharding(self.mesh, LANES), list(leaves))

        return jax.tree.map(joined, *pieces)

    def lay_batches(self, batches: np.ndarray) -> Any:
        """[L, n, B, ...] over the mesh."""
        return batches if self.alone else jax.device_put(batches, NamedSharding(self.mesh, BATCHES))

    def split(self, tree: Any) -> list[Any]:
        """What `lay` makes one, as trees a lane again, each on its lane's device."""
        if self.alone:
            return _unstacked(tree, self.count)
        leaves, structure = jax.tree.flatten(tree)
        shards = [{shard.device: shard.data for shard in leaf.addressable_shards} for leaf in leaves]
        firsts = self.mesh.devices[:, 0]
        return [
            lane
            for device in firsts
            for lane in _unstacked(structure.unflatten([shard[device] for shard in shards]), self.each)
        ]


@dataclass(frozen=True)
class Averaged:
    """A task's loss and its gradient averaged over the axis `data`, each device of which has a part of a batch."""

    of: Task

    def loss(self, params: Params, batch: Batch) -> jax.Array:
        return _averaged(self.of)(params, batch)


def _averaged(task: Task) -> Callable:
    # Without the checks of `shard_map` a gradient through `pmean` would be that of a device's own part alone.
    @jax.custom_vjp
    def loss(params, batch):
        return jax.lax.pmean(task.loss(params, batch), DATA)

    def forward(params, batch):
        return jax.lax.pmean(jax.value_and_grad(task.loss)(params, batch), DATA)

    def backward(gradient, weight):
        return jax.tree.map(lambda g: weight.astype(g.dtype) * g, gradient), None

    loss.defvjp(forward, backward)
    return loss
