"""What does the mask of steps past a visit's end cost the inner optimizer?

Command:  python -m experiments.benchmark_adamw [--hidden N]
Duration: a minute and a half on two cores.

The engine runs visits of several lengths side by side and undoes the steps past a visit's own. AdamW alone in
`local_update`'s loop, on the published toy's perceptron with fewer hidden units, then whole inner steps, with the mask
and without, by turns; and the bytes a parameter that XLA counts for one step of each, where 28 is the least.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.accelerator.notebook import adamw_alone, base_run
from experiments.accelerator.toy import parameters
from lm.benchmark import best_of
from toybench.config import Run
from toybench.inner import local_update, make_inner
from toybench.loading import overlay
from toybench.runtime import configure
from toybench.task import data_of
from toybench.training import inner_numbers, task_of


def counted(masked: bool, size: int = 2**22) -> float:
    """Bytes a parameter of one step, as XLA counts them."""
    inner = make_inner("adamw", inner_numbers(base_run(False)))
    array = jax.ShapeDtypeStruct((size,), jnp.float32)
    state = jax.eval_shape(inner.transformation.init, array)

    def step(params: Any, state: Any, gradient: Any, within: Any) -> Any:
        updates, new = inner.transformation.update(gradient, state, params)
        moved = optax.apply_updates(params, jax.tree.map(lambda u: 1e-3 * u, updates)), new
        return jax.tree.map(lambda n, o: jnp.where(within, n, o), moved, (params, state)) if masked else moved

    within = jax.ShapeDtypeStruct((), jnp.bool_)
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(array, state, array, within).compile()
    found: Any = compiled.cost_analysis()
    return (found[0] if isinstance(found, list) else found)["bytes accessed"] / size


def whole_step(base: Run, steps: int, masked: bool) -> float:
    """Seconds of an inner step, gradient and all."""
    inner, task = make_inner("adamw", inner_numbers(base)), task_of(base)
    data = data_of(task, jax.random.key(0), base.cluster.num_shards)
    params = jax.jit(task.init)(jax.random.key(1))

    @jax.jit
    def visit(params: Any, data: Any, steps: Any) -> Any:
        def batch_at(j: Any) -> Any:
            return task.batch(data, jnp.int32(0), j)

        state = inner.transformation.init(params)
        return local_update(task, inner, params, state, batch_at, jnp.int32(0), steps, steps if masked else None)

    def seconds(count: int) -> float:
        return best_of(3, lambda: visit(params, data, jnp.int32(count)))

    return (seconds(2 * steps) - seconds(steps)) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description="Time AdamW alone and whole inner steps, masked and not.")
    parser.add_argument("--hidden", type=int, default=32_000, help="units (default: 32000)")
    configure()
    base = overlay(base_run(False), {"task.hidden": parser.parse_args().hidden, "task.points": 4096})
    device = jax.local_devices()[0].device_kind
    print(f"{device}, jax {jax.__version__}, {parameters(base):,} parameters")
    for masked in (True, False):
        print(f"{'masked' if masked else 'unmasked'}: {counted(masked):.0f} bytes a parameter and step by XLA's count")
    timed: dict[str, Callable[[bool], float]] = {
        "AdamW alone": lambda masked: adamw_alone(base, 6, masked)["adamw_seconds"],
        "inner step": lambda masked: whole_step(base, 6, masked),
    }
    for name, seconds in [*timed.items()] * 3:
        one, other = seconds(True), seconds(False)
        ratio = f"{one / other:.2f} times"
        print(f"{name}: masked {1e3 * one:.1f} ms a step, unmasked {1e3 * other:.1f} ms: {ratio}", flush=True)


if __name__ == "__main__":
    main()
