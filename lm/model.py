"""The decoder-only transformer of Table 6: `init`, `logits`, `sequence_losses` and `extend` over plain pytrees.

It is written in flax nnx, and nothing beyond this file sees that, so that workers are stacked, pseudo-gradients
subtracted and checkpoints written as for any other pytree. Dimensions: B sequences of L tokens, V tokens known, model
width D, H heads of K; a cache of C positions.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lm.config import LOGITS, LanguageModel, fused_attention

Params = Any
Place = jax.Array | int  # a position, traced or not
ROTARY_BASE = 10_000.0
STD = 0.2  # of an untrained model's logits: its loss is ln V + STD²/2


def rotate(x_BxLxHxK: jax.Array, position_L: jax.Array) -> jax.Array:
    """Rotary positions: the halves of each head turned by angles in proportion to the position (float32 inside).

    Rotary, since they take no parameters, so that the counts of Table 6 stay as they are, and since, as Chinchilla's,
    they are relative: a query and a key moved alike attend alike.
    """
    half = x_BxLxHxK.shape[-1] // 2
    frequency = ROTARY_BASE ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_Lx1xF = (position_L.astype(jnp.float32)[:, None] * frequency[None, :])[:, None, :]
    cos, sin = jnp.cos(angle_Lx1xF)[None], jnp.sin(angle_Lx1xF)[None]
    a, b = jnp.split(x_BxLxHxK.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BxLxHxK.dtype)


def attend(q_BxLxHxK: jax.Array, k_BxLxHxK: jax.Array, v_BxLxHxK: jax.Array) -> jax.Array:
    """Causal attention [B, L, H, K]; softmax in float32."""
    return jax.nn.dot_product_attention(
        q_BxLxHxK, k_BxLxHxK, v_BxLxHxK, is_causal=True, implementation=_implementation(q_BxLxHxK)
    )


class Cache(NamedTuple):
    """Rotated keys, and values, of the tokens so far: [layers, B, C, H, K] each, in the compute precision."""

    keys: jax.Array
    values: jax.Array


def _implementation(query: jax.Array) -> Any:
    """What computes attention: jax asks for cuDNN's only when told."""
    return "cudnn" if fused_attention(jax.default_backend(), str(query.dtype), query.shape[-1]) else "xla"


def _scaled(variance: float, mode: Any = "fan_in") -> Any:
    return jax.nn.initializers.variance_scaling(variance, mode, "truncated_normal")


def _linear(s: LanguageModel, inputs: int, outputs: int, rngs: nnx.Rngs, variance: float = 1.0) -> nnx.Linear:
    init = _scaled(variance)
    return nnx.Linear(inputs, outputs, use_bias=False, dtype=jnp.dtype(s.compute), kernel_init=init, rngs=rngs)


def _norm(s: LanguageModel, rngs: nnx.Rngs) -> nnx.RMSNorm:
    return nnx.RMSNorm(s.width, dtype=jnp.dtype(s.compute), rngs=rngs)  # the mean square is taken in float32


class Attention(nnx.Module):
    """[B, L, D] -> [B, L, D] over the tokens so far."""

    def __init__(self, s: LanguageModel, rngs: nnx.Rngs):
        inside = s.heads * s.head_size
        self.heads = s.heads
        self.query, self.key, self.value = (_linear(s, s.width, inside, rngs) for _ in range(3))
        self.out = _linear(s, inside, s.width, rngs, variance=0.5 / s.layers)

    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        batch, length, _ = x_BxLxD.shape
        q, k, v = self._heads(x_BxLxD)
        position_L = jnp.arange(length)
        y_BxLxHxK = attend(rotate(q, position_L), rotate(k, position_L), v)
        return self.out(y_BxLxHxK.reshape(batch, length, -1))

    def extend(self, x_BxLxD: jax.Array, cache: Cache, layer: jax.Array, at: Place) -> tuple[jax.Array, Cache]:
        """The same of tokens from position `at` on, over those before as this layer's cache has them."""
        batch, length, _ = x_BxLxD.shape
        q, k, v = self._heads(x_BxLxD)
        position_L = at + jnp.arange(length)
        start = (layer, 0, at, 0, 0)
        keys = jax.lax.dynamic_update_slice(cache.keys, rotate(k, position_L)[None], start)
        values = jax.lax.dynamic_update_slice(cache.values, v[None], start)
        seen_LxC = jnp.arange(keys.shape[2])[None, :] <= position_L[:, None]
        y_BxLxHxK = jax.nn.dot_product_attention(
            rotate(q, position_L), keys[layer], values[layer], mask=seen_LxC[None, None], implementation="xla"
        )
        return self.out(y_BxLxHxK.reshape(batch, length, -1)), Cache(keys, values)

    def _heads(self, x_BxLxD: jax.Array) -> tuple[jax.Array, ...]:
        """Queries, keys and values, [B, L, H, K], not rotated yet."""
        batch, length, _ = x_BxLxD.shape
        return tuple(f(x_BxLxD).reshape(batch, length, self.heads, -1) for f in (self.query, self.key, self.value))


class Perceptron(nnx.Module):
    """[B, L, D] -> [B, L, D], each token by itself."""

    def __init__(self, s: LanguageModel, rngs: nnx.Rngs):
        hidden = s.expansion * s.width
        self.up = _linear(s, s.width, hidden, rngs)
        self.down = _linear(s, hidden, s.width, rngs, variance=0.5 / s.layers)

    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        return self.down(jax.nn.gelu(self.up(x_BxLxD)))


class Block(nnx.Module):
    """Attention and perceptron, each on normalized inputs and added to them."""

    def __init__(self, s: LanguageModel, rngs: nnx.Rngs):
        self.attention_norm, self.attention = _norm(s, rngs), Attention(s, rngs)
        self.perceptron_norm, self.perceptron = _norm(s, rngs), Perceptron(s, rngs)

    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        x_BxLxD = x_BxLxD + self.attention(self.attention_norm(x_BxLxD))
        return x_BxLxD + self.perceptron(self.perceptron_norm(x_BxLxD))

    def extend(self, x_BxLxD: jax.Array, cache: Cache, layer: jax.Array, at: Place) -> tuple[jax.Array, Cache]:
        """See `Attention.extend`."""
        attended, cache = self.attention.extend(self.attention_norm(x_BxLxD), cache, layer, at)
        x_BxLxD = x_BxLxD + attended
        return x_BxLxD + self.perceptron(self.perceptron_norm(x_BxLxD)), cache


class Transformer(nnx.Module):
    """Tokens [B, L] -> features [B, L, D] -> logits [B, L, V].

    Matrices start truncated normal with variance 1/fan_in, so that what a block computes has the scale of what it gets;
    those that write to the residual stream are divided by √(2·layers), for the sum over the blocks to have it too. The
    embedding starts with deviation STD/√D and is multiplied by √D when looked up: as input it has the blocks' scale,
    and as output (tied, or the output layer, which starts alike) logits have the deviation STD at any width.
    """

    def __init__(self, s: LanguageModel, rngs: nnx.Rngs):
        self.settings = s
        init = _scaled(STD**2, "fan_out")  # [V, D]: its fan-out is D
        self.embedding = nnx.Embed(s.vocabulary, s.width, dtype=jnp.dtype(s.compute), embedding_init=init, rngs=rngs)
        self.blocks = nnx.split_rngs(splits=s.layers)(nnx.vmap(lambda rngs: Block(s, rngs)))(rngs)  # [layers, ...]
        self.norm = _norm(s, rngs)
        self.output = None if s.tied else _linear(s, s.width, s.vocabulary, rngs, variance=STD**2)

    def features(self, token_BxL: jax.Array) -> jax.Array:
        """[B, L] -> [B, L, D], what the output layer reads."""
        s, (graph, stacked) = self.settings, nnx.split(self.blocks)

        def block(x_BxLxD: jax.Array, layer: Any) -> jax.Array:
            return nnx.merge(graph, layer)(x_BxLxD)

        block = jax.checkpoint(block, prevent_cse=not s.scan_layers) if s.remat else block
        x_BxLxD = self.embedding(token_BxL) * s.width**0.5
        if s.scan_layers:
            x_BxLxD, _ = jax.lax.scan(lambda x, layer: (block(x, layer), None), x_BxLxD, stacked)
        else:
            leaves, tree = jax.tree.flatten(stacked)
            for layer in zip(*map(jnp.unstack, leaves)):
                x_BxLxD = block(x_BxLxD, tree.unflatten(layer))
        return self.norm(x_BxLxD)

    def extend(self, token_BxL: jax.Array, cache: Cache, at: Place) -> tuple[jax.Array, Cache]:
        """Features of tokens from position `at` on, and the cache with theirs; one program for all blocks."""
        graph, stacked = nnx.split(self.blocks)

        def block(carry: tuple[jax.Array, Cache], one: Any) -> tuple[tuple[jax.Array, Cache], None]:
            layer, params = one
            return nnx.merge(graph, params).extend(*carry, layer, at), None

        x_BxLxD = self.embedding(token_BxL) * self.settings.width**0.5
        (x_BxLxD, cache), _ = jax.lax.scan(block, (x_BxLxD, cache), (jnp.arange(self.settings.layers), stacked))
        return self.norm(x_BxLxD), cache

    def project(self, x_BxLxD: jax.Array) -> jax.Array:
        """[B, L, D] -> [B, L, V], float32; the product itself in the compute precision."""
        logits = self.embedding.attend(x_BxLxD) if self.output is None else self.output(x_BxLxD)
        return logits.astype(jnp.float32)


@partial(jax.jit, static_argnums=0)
def init(settings: LanguageModel, key: jax.Array) -> Params:
    """Initial parameters: a nested dict of float32 arrays.

    The blocks' are stacked, [layers, ...], whether their program is unrolled or scanned: `scan_layers` is a matter of
    compiling, and must not change what a checkpoint or an outer optimizer sees.
    """
    return nnx.to_pure_dict(nnx.state(Transformer(settings, nnx.Rngs(key)), nnx.Param))


@lru_cache(maxsize=64)
def _graph(settings: LanguageModel) -> Any:
    return nnx.split(nnx.eval_shape(lambda: Transformer(settings, nnx.Rngs(0))), nnx.Param, ...)[0]


def _model(settings: LanguageModel, params: Params) -> Transformer:
    return nnx.merge(_graph(settings), params)


@partial(jax.jit, static_argnums=0)
def logits(settings: LanguageModel, params: Params, token_BxL: jax.Array) -> jax.Array:
    """Next-token logits [B, L, V], float32, of whole numbers [B, L] below `vocabulary`."""
    model = _model(settings, params)
    return model.project(model.features(token_BxL))


@partial(jax.jit, static_argnums=0, static_argnames="most")
def sequence_losses(
    settings: LanguageModel, params: Params, token_BxL: jax.Array, target_BxL: jax.Array, *, most: int = LOGITS
) -> jax.Array:
    """Mean cross entropy of each sequence, [B] in nats.

    Logits take 4·L·V bytes a sequence, with their gradient more than all else where V is large: above `most` bytes
    they are made in blocks of sequences, and once more in the backward pass.
    """
    model = _model(settings, params)

    def losses(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        x_BxLxD, target_BxL = pair
        return optax.softmax_cross_entropy_with_integer_labels(model.project(x_BxLxD), target_BxL).mean(-1)

    pair = model.features(token_BxL), target_BxL
    block = max(1, most // (4 * target_BxL.shape[1] * settings.vocabulary))
    if block >= len(target_BxL):
        return losses(pair)
    one = jax.checkpoint(lambda pair: losses(jax.tree.map(lambda a: a[None], pair))[0])
    return jax.lax.map(one, pair, batch_size=block)


def empty_cache(settings: LanguageModel, batch: int, positions: int) -> Cache:
    """For so many sequences of so many tokens."""
    shape = (settings.layers, batch, positions, settings.heads, settings.head_size)
    return Cache(*(jnp.zeros(shape, settings.compute) for _ in Cache._fields))


def extend(
    settings: LanguageModel, params: Params, token_BxL: jax.Array, cache: Cache, at: Place, last: Place
) -> tuple[jax.Array, Cache]:
    """Next-token logits [B, V] after token `last` of those from position `at` on, and the cache with these.

    What the cache holds beyond them is not looked at, and is written over when its turn comes: tokens after `last` may
    be anything, so that prompts of different lengths share a program.
    """
    model = _model(settings, params)
    x_BxLxD, cache = model.extend(token_BxL, cache, at)
    return model.project(jax.lax.dynamic_slice_in_dim(x_BxLxD, last, 1, axis=1))[:, 0], cache
