"""How fast a training goes, how long it will go on, and what share of the device's peak that is."""

from __future__ import annotations

import time
from collections import deque
from functools import cache
from typing import NamedTuple

from lm.promote import ACCELERATORS

WINDOW = 60.0  # seconds that a speed is of
LEAST = 0.1  # seconds of which one can be told: visits of a wave are known at once


class Peak(NamedTuple):
    """What an utilisation is a share of."""

    rate: float  # floating point operations a second
    said: str


@cache
def peak_of(compute: str, devices: int = 1) -> Peak:
    """The devices' peak in bfloat16 where their maker states it, else the rate of matrix products, measured on one.

    Args:
        compute: precision of the model's matrix products, for the measurement, which takes less than a second on a CPU.
        devices: that are at work.
    """
    import jax

    from lm.benchmark import product_rate

    kind = jax.local_devices()[0].device_kind
    known = next((one for one in ACCELERATORS.values() if kind in one.kinds), None)
    if known is not None:
        return Peak(devices * known.peak, f"the peak of {devices} {known.name} in bfloat16")
    return Peak(devices * product_rate(compute), f"matrix products in {compute}, measured here")


class Pace:
    """Local steps a second over the last minute. What comes before the first call, compilation, does not count."""

    def __init__(self, done: int, total: int):
        self.done, self.total = done, total
        self._marks: deque[tuple[float, int]] = deque()

    def taken(self, local_steps: int) -> None:
        """So many have been made in all."""
        self.done = local_steps
        self._marks.append((time.monotonic(), local_steps))
        while len(self._marks) > 2 and self._marks[-1][0] - self._marks[1][0] > WINDOW:
            self._marks.popleft()

    @property
    def rate(self) -> float | None:
        """Local steps of all workers a second, once that is known."""
        if len(self._marks) < 2:
            return None
        (then, before), (now, after) = self._marks[0], self._marks[-1]
        return (after - before) / (now - then) if now - then >= LEAST else None

    @property
    def seconds_left(self) -> float | None:
        """Until the end, at this rate."""
        return (self.total - self.done) / self.rate if self.rate else None
