"""Over which devices a training is laid, and where and how what its workers hold is kept. No jax here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from toybench.config import ConfigError

MEMORIES = ("device", "host")
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Placement:
    """How a training uses a machine.

    The numbers depend on `data`, on `dtype`, and on the lanes that a device computes at once; on the rest they do not.

    Args:
        workers: devices that the lanes of a wave are laid over: the mesh's axis `worker`.
        data: devices that the batch of each visit is split over: the mesh's axis `data`.
        snapshots: where what workers pulled, their inner states, and visits that wait for their arrival are kept.
        dtype: of what workers pull. A worker starts from the rounded parameters, and its pseudo-gradient and whatever
            the outer optimizer is told of the pull are against them: bfloat16 is what the server handed out.
    """

    workers: int = 1
    data: int = 1
    snapshots: Literal["device", "host"] = "device"
    dtype: Literal["float32", "bfloat16"] = "float32"

    @property
    def devices(self) -> int:
        """Devices in all."""
        return self.workers * self.data

    @property
    def mesh(self) -> str:
        """As a user writes it."""
        return f"{self.workers}x{self.data}"


DEFAULT = Placement()


def place(
    mesh: str | None, lanes: int, batch: int, devices: int, snapshots: str = "device", dtype: str = "float32"
) -> Placement:
    """The placement that a user asks for.

    Args:
        mesh: 'WORKERSxDATA'; if not given, as many devices as divide the lanes, all of them on the axis `worker`.
        lanes: visits of a wave.
        batch: sequences of a visit's batch.
        devices: that there are.
        snapshots, dtype: see `Placement`.

    Raises:
        ConfigError: it is no mesh, has more devices than there are, or does not divide the lanes and the batch.
    """
    for name, value, known in (("snapshots", snapshots, MEMORIES), ("snapshot_dtype", dtype, DTYPES)):
        if value not in known:
            raise ConfigError(name, f"must be one of {', '.join(known)}, got {value!r}")
    workers, data = (_divisor(lanes, devices), 1) if mesh is None else _parsed(mesh)
    found = Placement(workers, data, snapshots, dtype)  # type: ignore[arg-type] looked at above
    check_layout(found, lanes, batch, devices)
    return found


def check_layout(placement: Placement, lanes: int, batch: int, devices: int) -> None:
    """Refuse a mesh that has more devices than there are, or does not divide the lanes and the batch.

    Raises:
        ConfigError: as it says.
    """
    workers, data = placement.workers, placement.data
    if placement.devices > devices:
        raise ConfigError("mesh", f"{placement.mesh} needs {placement.devices} devices, there are {devices}")
    if lanes % workers:
        raise ConfigError("lanes", f"must be a multiple of the mesh's {workers} over workers, got {lanes}")
    if batch % data:
        raise ConfigError("task.batch", f"must be a multiple of the mesh's {data} over data, got {batch}")


def _parsed(mesh: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", mesh)
    if found is None:
        raise ConfigError("mesh", f"expected WORKERSxDATA, for instance 4x2, got {mesh!r}")
    return int(found[1]), int(found[2])


def _divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is no larger than another."""
    return max(d for d in range(1, max(most, 1) + 1) if number % d == 0)
