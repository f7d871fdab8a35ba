"""In which order the sequences of a shard come: computed, not stored, with the same result in NumPy and in JAX."""

from __future__ import annotations

from typing import Any

import numpy as np

ROUNDS = 24
_GOLDEN = np.uint32(0x9E3779B9)
_FIRST, _SECOND = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)


def mix(x: Any) -> Any:
    """Scramble unsigned 32-bit numbers: different ones stay different."""
    x = (x ^ (x >> 16)) * _FIRST
    x = (x ^ (x >> 15)) * _SECOND
    return x ^ (x >> 16)


def key(*parts: Any) -> Any:
    """A number that looks random, of unsigned 32-bit numbers of equal shapes."""
    found = _GOLDEN
    for part in parts:
        found = mix(part ^ found) + _GOLDEN
    return found


def permute(x: Any, count: int, of: Any, xp: Any) -> Any:
    """Where x goes in the permutation of 0 … count − 1 that the key `of` chooses; unsigned 32-bit arrays, one shape.

    "Swap or not" (Hoang, Morris and Rogaway 2012): a round pairs the numbers that add up to a secret one, and for
    each pair tosses a coin whether they change places. So it is a permutation of any count, without a table and
    without the loops that other ciphers need where the count is no power of two.
    """
    size = np.uint32(count)
    for i in range(1, ROUNDS + 1):
        here = mix(of + np.uint32(i * int(_GOLDEN) % 2**32))
        sum_of_pair = here % size
        other = xp.where(x <= sum_of_pair, sum_of_pair - x, sum_of_pair + (size - x))
        coin = mix(xp.maximum(x, other) ^ mix(here)) & np.uint32(1)
        x = xp.where(coin == 1, other, x)
    return x


def sequence_index(shard: Any, step: Any, row: Any, *, batch: int, count: int, seed: Any, xp: Any = np) -> Any:
    """Which of the `count` sequences of a shard is in a row of its batch at `step`: int32, as the array `row`, [n].

    A pass over a shard is as many batches as it fills, each sequence at most once; every pass has an order of its
    own, and leaves out other sequences, where batches do not come out even. A shard of less than a batch is passed
    over several times within one. `shard`, `step` and `seed` are whole numbers below 2³¹, or arrays that broadcast
    to `row`; they may be traced with `xp=jax.numpy`. Nothing here overflows 32 bits but what is meant to.
    """
    if count == 1:  # XLA of jaxlib 0.10.2 has no code for what is left of the rest
        return xp.zeros(row.shape, np.int32)
    row = row.astype(np.uint32)
    shard, step, seed = (
        xp.broadcast_to(xp.asarray(value).astype(np.uint32), row.shape) for value in (shard, step, seed)
    )
    batches, passes = np.uint32(max(count // batch, 1)), np.uint32(-(-batch // count))
    size, rows = np.uint32(count), np.uint32(batch)
    passed = step // batches * passes + row // size
    x = ((step % batches) * rows + row) % size
    return permute(x, count, key(seed, shard, passed), xp).astype(np.int32)
