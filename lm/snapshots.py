"""What workers hold between their visits: in which memory, and in which precision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from lm.placement import Placement
from toybench.outer.base import OuterOptimizer
from toybench.server import Server
from toybench.task import Params

PINNED = "pinned_host"  # jax's name for memory of the host that a device reads by itself


def server_device() -> Any:
    """The jax device of the server, and the first of those that compute visits."""
    return jax.local_devices()[0]


def memory_of(device: Any) -> SingleDeviceSharding:
    """A device's own memory."""
    return SingleDeviceSharding(device, memory_kind=device.default_memory().kind)


@jax.jit
def _rounded(params: Params) -> Params:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf, params)


@dataclass(frozen=True)
class Snapshots:
    """Where and how what workers hold is kept: on the server's device, or on the host.

    On the host that is pinned memory where the backend has such, else NumPy arrays. On a CPU the host's memory is the
    device's: nothing is won there, and each transfer is a copy.
    """

    placement: Placement

    def kept(self, tree: Any) -> Any:
        """A tree where it is to stay; what is there already is not copied."""
        if self.placement.snapshots == "device":
            return self.handed(tree)
        device = server_device()
        if any(memory.kind == PINNED for memory in device.addressable_memories()):
            return jax.device_put(tree, SingleDeviceSharding(device, memory_kind=PINNED))
        return jax.device_get(tree)

    def waiting(self, tree: Any) -> Any:
        """The result of a visit until it arrives: on the device where it is, or on the host."""
        return tree if self.placement.snapshots == "device" else self.kept(tree)

    def restored(self, tree: Any) -> Any:
        """What was kept, of a checkpoint that was read as NumPy arrays."""
        return self.kept(jax.tree.map(jnp.array, tree) if self.placement.snapshots == "device" else tree)

    def handed(self, tree: Any) -> Any:
        """What was kept, or comes from another device, in the memory of the server's device."""
        there = self.placement.devices == 1 and self.placement.snapshots == "device"
        return tree if there else jax.device_put(tree, memory_of(server_device()))

    def widened(self, params: Params) -> Params:
        """What was pulled as a worker trains it; within a compiled program."""
        if self.placement.dtype == "float32":
            return params
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf, params)

    def pulled(self, outer: OuterOptimizer, server: Server, workers: Iterable[int]) -> list[Params]:
        """What each of some workers pulls now, kept. Those that are handed the same share one snapshot."""
        found: dict[tuple[int, ...], tuple[Params, Params]] = {}  # with what was handed out, whose identity is the key
        keys = []
        for w in workers:
            params = outer.pull(server.outer_state, server.params, w)
            keys.append(tuple(map(id, jax.tree.leaves(params))))
            if keys[-1] not in found:
                rounded = params if self.placement.dtype == "float32" else _rounded(params)
                found[keys[-1]] = params, self.kept(rounded)
        return [found[key][1] for key in keys]
