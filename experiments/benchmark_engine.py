"""How fast is the engine, and how close to what the machine can do?

Command:  python -m experiments.benchmark_engine [--torch]
Duration: about half a minute on two cores.

Forty-eight runs of 4,000 inner steps (64 dimensions, 128 hidden units, batch 32) through `toybench.train`: once six
configurations of one method, asynchronous and synchronous with timelines of their own, in one compiled call; once six
different methods, a call each. Prints seconds a run, microseconds an inner step, the achieved rate, and beside it the
machine's matrix-product rate (float32, 1024 x 1024) measured in the same process, since a shared machine's speed
varies. Then one seed of the default preset with a changed number, as a slider moves it. `--torch` adds an eager
PyTorch loop in the manner of the paper's notebook, where torch is installed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp

from experiments.eager import eager_visits
from toybench.config import Run
from toybench.loading import overlay
from toybench.presets import load_preset
from toybench.runtime import configure
from toybench.study import ASYNC, SYNC
from toybench.training import train

SIZES = {"task.dimension": 64, "task.hidden": 128, "task.batch": 32, "cluster.local_steps": 50, "budget.rounds": 20}
METHODS = ("nesterov", "sgd", "poly", "delay_compensation", "buffered", "delayed_nesterov")
SEEDS = range(8)


def inner_flops(run: Run) -> float:
    """Floating-point operations of one inner step's matrix products: forward, and backward for weights alone."""
    t = run.task
    return 4 * t.batch * t.dimension * t.hidden + 6 * t.batch * t.hidden * t.classes


def best_of(repeats: int, job: Callable[[], object]) -> float:
    """Least seconds of some repeats, after one that compiles."""
    job()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def matmul_rate(size: int = 1024) -> float:
    """FLOP/s of a float32 matrix product on all cores: one product a device, all devices at once."""
    matrices = [jax.device_put(jnp.ones((size, size)), device) for device in jax.local_devices()]
    product = jax.jit(lambda a: a @ a @ a @ a)
    seconds = best_of(10, lambda: jax.block_until_ready([product(m) for m in matrices]))
    return len(matrices) * 3 * 2 * size**3 / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the engine.")
    parser.add_argument("--torch", action="store_true", help="time the eager PyTorch loop too")
    arguments = parser.parse_args()
    configure()
    preset = load_preset("default")
    base = overlay(preset, SIZES)
    steps = base.budget.total_steps(base.cluster)
    rates = [0.02, 0.05, 0.1]
    same = [overlay(base, where | {"outer.lr": lr}) for where in (SYNC, ASYNC) for lr in rates]
    mixed = [overlay(base, ASYNC | {"outer.method": name, "outer.lr": 0.1}) for name in METHODS]
    device = jax.local_devices()
    print(f"{len(device)} x {device[0].device_kind}, jax {jax.__version__}; {steps} inner steps a run, 48 runs")
    for title, runs in (("one method, one call", same), ("six methods, a call each", mixed)):
        each = best_of(3, lambda runs=runs: train(runs, SEEDS)) / (len(runs) * len(SEEDS))
        peak = matmul_rate()
        achieved = steps * inner_flops(base) / each
        print(
            f"{title:26} {each:.4f} s a run  {each / steps * 1e6:5.2f} us a step  {achieved / 1e9:6.1f} GFLOP/s  "
            f"{100 * achieved / peak:3.0f} % of the matrix-product rate, {peak / 1e9:.0f} GFLOP/s"
        )
        if arguments.torch and runs is mixed:
            eager = eager_visits(base, steps // base.cluster.local_steps)
            print(f"{'eager PyTorch loop':26} {eager:.4f} s a run  {eager / each:5.0f} times the engine's")
    moved = iter(0.05 + 0.001 * i for i in range(10))
    slider = best_of(5, lambda: train(replace(preset, outer=replace(preset.outer, lr=next(moved))), [0]))
    print(f"default preset, one seed, a number changed: {slider:.3f} s")


if __name__ == "__main__":
    main()
