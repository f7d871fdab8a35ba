"""Pseudo-gradients made smaller for the way to the server; what is lost of one is added to the next.

Error feedback: Seide et al. 2014, "1-bit stochastic gradient descent"; Karimireddy et al. 2019, arXiv 1901.09847.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from toybench.task import Params

BLOCK = 1024  # numbers that share a scale of int8


class Codec(NamedTuple):
    """Leaves of a pseudo-gradient as they travel. Pure functions; compile them where they are used."""

    encode: Callable[[jax.Array], tuple[jax.Array, ...]]
    decode: Callable[[tuple[jax.Array, ...], jax.ShapeDtypeStruct], jax.Array]
    parts: Callable[[jax.ShapeDtypeStruct], tuple[jax.ShapeDtypeStruct, ...]]  # shapes of what `encode` gives
    exact: bool = False  # nothing is lost, so nothing is kept for the next


def _blocks(size: int) -> int:
    return -(-size // BLOCK)


def _to_int8(leaf: jax.Array) -> tuple[jax.Array, ...]:
    flat = jnp.pad(leaf.reshape(-1), (0, _blocks(leaf.size) * BLOCK - leaf.size)).reshape(-1, BLOCK)
    scale = jnp.abs(flat).max(1) / 127
    whole = jnp.round(flat / jnp.where(scale > 0, scale, 1)[:, None])
    return whole.astype(jnp.int8).reshape(-1)[: leaf.size], scale.astype(jnp.float32)


def _from_int8(parts: tuple[jax.Array, ...], like: jax.ShapeDtypeStruct) -> jax.Array:
    whole, scale = parts
    numbers = whole.astype(like.dtype) * jnp.repeat(scale, BLOCK)[: whole.size].astype(like.dtype)
    return numbers.reshape(like.shape)


def _int8_parts(like: jax.ShapeDtypeStruct) -> tuple[jax.ShapeDtypeStruct, ...]:
    return jax.ShapeDtypeStruct((like.size,), jnp.int8), jax.ShapeDtypeStruct((_blocks(like.size),), jnp.float32)


CODECS: dict[str, Codec] = {
    "none": Codec(lambda leaf: (leaf,), lambda parts, like: parts[0], lambda like: (like,), exact=True),
    "bfloat16": Codec(
        lambda leaf: (leaf.astype(jnp.bfloat16),),
        lambda parts, like: parts[0].astype(like.dtype),
        lambda like: (jax.ShapeDtypeStruct(like.shape, jnp.bfloat16),),
    ),
    "int8": Codec(_to_int8, _from_int8, _int8_parts),
}


def shapes_of(tree: Any) -> Any:
    """The tree with shapes and types in place of numbers."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), tree)


def encode(codec: Codec, pseudo_gradient: Params, residual: Params | None) -> tuple[list[jax.Array], Params | None]:
    """A pseudo-gradient as arrays to send, and what is lost of it.

    Args:
        codec: one of `CODECS`.
        pseudo_gradient: [...] of the parameters' shapes.
        residual: what was lost before; None at first.

    Returns:
        The arrays, in an order that `decode` knows, and the new residual.
    """
    leaves, structure = jax.tree.flatten(pseudo_gradient)
    if codec.exact:
        return [part for leaf in leaves for part in codec.encode(leaf)], None
    if residual is not None:
        leaves = [leaf + kept for leaf, kept in zip(leaves, jax.tree.leaves(residual))]
    sent = [codec.encode(leaf) for leaf in leaves]
    got = [codec.decode(parts, shape) for parts, shape in zip(sent, shapes_of(leaves))]
    lost = jax.tree.unflatten(structure, [leaf - one for leaf, one in zip(leaves, got)])
    return [part for parts in sent for part in parts], lost


def decode(codec: Codec, arrays: list[Any], like: Params) -> Params:
    """What `encode` was given, as far as it is not lost.

    Args:
        codec: the one that it was encoded by.
        arrays: as received.
        like: parameters, or their shapes.
    """
    shapes, structure = jax.tree.flatten(shapes_of(like))
    found, rest = [], list(arrays)
    for shape in shapes:
        count = len(codec.parts(shape))
        found.append(codec.decode(tuple(rest[:count]), shape))
        rest = rest[count:]
    return jax.tree.unflatten(structure, found)


def wire_shapes(codec: Codec, like: Params) -> list[jax.ShapeDtypeStruct]:
    """Shapes and types of what `encode` gives for parameters of these shapes."""
    return [part for shape in jax.tree.leaves(shapes_of(like)) for part in codec.parts(shape)]


def fits(codec: Codec, arrays: list[Any], like: Params) -> str | None:
    """What is wrong with arrays that are said to be a pseudo-gradient of such parameters; None if nothing."""
    expected = wire_shapes(codec, like)
    if len(arrays) != len(expected):
        return f"{len(arrays)} arrays instead of {len(expected)}"
    for i, (array, shape) in enumerate(zip(arrays, expected)):
        if tuple(array.shape) != tuple(shape.shape) or jnp.dtype(array.dtype) != shape.dtype:
            return f"array {i} is {array.dtype}{list(array.shape)} instead of {shape.dtype}{list(shape.shape)}"
    return None
