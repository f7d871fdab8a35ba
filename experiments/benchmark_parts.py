"""Where does a local step of the small language model spend its time on a CPU?

Command:  python -m experiments.benchmark_parts
Duration: some seconds.

Each part alone, both ways, beside loss and gradient of the whole: what is left over is norms, rotary positions, copies
between layouts, and threads that wait for each other.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lm import model
from lm.config import SIZES
from lm.task import LanguageTask


def seconds(job: Callable, *inputs: Any, times: int = 30) -> float:
    """Of a call, the least mean of five rounds."""
    jax.block_until_ready(job(*inputs))
    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(times):
            found = job(*inputs)
        jax.block_until_ready(found)
        rounds.append((time.perf_counter() - began) / times)
    return min(rounds)


def product(m: int, k: int, n: int) -> float:
    """Seconds of a matrix product [m, k] by [k, n]."""
    return seconds(jax.jit(jnp.matmul), jnp.ones((m, k)), jnp.ones((k, n)))


def products(tokens: int, s: Any) -> tuple[float, float]:
    """Seconds and operations of all matrix products of a step but attention's."""
    inside, hidden = s.heads * s.head_size, s.expansion * s.width
    layers = {"attention": (s.width, inside, 4 * s.layers), "perceptron": (s.width, hidden, 2 * s.layers)}
    took = operations = 0.0
    for k, n, count in (*layers.values(), (s.width, s.vocabulary, 1)):
        took += count * (product(tokens, k, n) + product(tokens, n, k) + product(k, tokens, n))
        operations += count * 6 * tokens * k * n
    return took, operations


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    s = SIZES["tiny"].model
    params, token_BxL1 = model.init(s, jax.random.key(0)), jnp.zeros((s.batch, s.sequence + 1), jnp.int32)
    task = LanguageTask(s, corpus=None)  # type: ignore[arg-type] the batch is made here
    took, operations = products(s.batch * s.sequence, s)
    square = product(1024, 1024, 1024)
    heads = jnp.ones((s.batch, s.sequence, s.heads, s.head_size))
    hidden = jnp.ones((s.batch, s.sequence, s.expansion * s.width))
    logits = jnp.ones((s.batch, s.sequence, s.vocabulary))
    adamw = optax.adamw(1e-3)
    both = {
        "attention": (lambda x: model.attend(x, x, x).sum(), heads, s.layers),
        "gelu": (lambda x: jax.nn.gelu(x).sum(), hidden, s.layers),
        "cross entropy": (
            lambda x: optax.softmax_cross_entropy_with_integer_labels(x, token_BxL1[:, 1:]).sum(),
            logits,
            1,
        ),
    }
    parts = {"matrix products": took}
    parts |= {name: times * seconds(jax.jit(jax.value_and_grad(f)), x) for name, (f, x, times) in both.items()}
    whole = seconds(jax.jit(jax.value_and_grad(task.loss)), params, token_BxL1)
    step = seconds(jax.jit(adamw.update), params, adamw.init(params), params)
    print(f"square matrix products: {2 * 1024**3 / square / 1e9:,.0f} GFLOP/s")
    print(f"the model's own shapes: {operations / took / 1e9:,.0f} GFLOP/s")
    for name, value in (parts | {"left over": whole - sum(parts.values())}).items():
        print(f"{name:16} {1e3 * value:6.2f} ms  {value / whole:4.0%}")
    print(f"{'loss and gradient':16} {1e3 * whole:5.2f} ms")
    print(f"{'AdamW':16} {1e3 * step:6.2f} ms")


if __name__ == "__main__":
    main()
