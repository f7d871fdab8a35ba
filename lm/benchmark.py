"""How fast do the spine's two functions train a language model, and how close to what this device can do?

    python -m lm.benchmark [--size tiny 20m 60m 150m] [--workers 1 4] [--batch B] [--steps N] [--json]
    python -m lm.benchmark --snapshots [--size tiny 20m 60m 150m] [--json]

Duration: for `tiny` half a minute on two cores; larger sizes want an accelerator, or a smaller --batch.

`local_update`, vectorized over workers, and `apply_arrival` of Delayed Nesterov, on random tokens. Each line is
measured in a process of its own, since peak memory only grows, and beside the rate of square matrix products in that
process, since a shared machine's speed varies. Operations are those of `lm.config.flops_per_token`.

With `--snapshots` instead: what it takes to keep what a worker holds between its visits, in each of the ways that
`python -m lm train` has for it. On a CPU the host's memory is the device's: it shows the copies, and wins nothing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from lm.config import SIZES, LanguageModel, flops_per_token, parameters
from lm.placement import DTYPES, MEMORIES, Placement

VISIT = 50  # local steps H of which the outer step's share is told


@dataclass(frozen=True)
class Line:
    """What was measured of one model and one number of workers. Rates are per second of all workers together."""

    size: str
    workers: int
    batch: int
    compute: str
    parameters: int
    compile_seconds: float
    step_seconds: float  # a local step, of all workers at once
    tokens_per_second: float
    flops_per_second: float
    product_rate: dict[str, float]  # FLOP/s of square matrix products, by precision
    share: float  # of the rate in the model's precision
    outer_seconds: float  # one arrival at the server
    outer_share: float  # of a round: H local steps of all workers, and their arrivals
    peak_bytes: int  # of the process on a CPU, of the device elsewhere
    device: str
    jax: str


def best_of(repeats: int, job: Callable[[], Any]) -> float:
    """Least seconds of some repeats, after one to warm up."""
    import jax

    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(job())
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def product_rate(dtype: str, edge: int | None = None) -> float:
    """FLOP/s of square matrix products on one device, in jax's default precision for that type.

    On random numbers: equal ones switch fewer wires, and a device that is held to a power then runs faster.
    """
    import jax
    import jax.numpy as jnp

    size, times = (1024, 4) if jax.default_backend() == "cpu" else (8192, 10)
    size = size if edge is None else edge
    matrix = (jax.random.normal(jax.random.key(0), (size, size)) * size**-0.5).astype(jnp.dtype(dtype))
    products = jax.jit(lambda a: jax.lax.fori_loop(0, times, lambda _, b: a @ b, a))
    return times * 2 * size**3 / best_of(3, lambda: products(matrix))


def peak_bytes() -> int:
    """Most memory so far: of this process on a CPU, of the device elsewhere."""
    import resource

    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    unit = 1 if sys.platform == "darwin" else 1024
    return stats.get("peak_bytes_in_use", unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def measure(size: str, model: LanguageModel, workers: int, steps: int, repeats: int) -> Line:
    """Time `steps` local steps of all workers at once, and an arrival."""
    import jax
    import jax.numpy as jnp

    from lm.task import LanguageTask
    from toybench.inner import local_update, make_inner
    from toybench.outer import METHODS, make_outer
    from toybench.server import apply_arrival, open_server

    task = LanguageTask(model, corpus=None)  # type: ignore[arg-type] its data are handed in below
    numbers = asdict(SIZES[size].inner) | {"decay_steps": 10_000}
    inner = make_inner("adamw", numbers)
    outer = make_outer(METHODS["delayed_nesterov"].settings(lr=0.7), workers)
    shape = workers, 2 * model.batch, model.sequence + 1
    tokens = jnp.asarray(np.random.default_rng(0).integers(model.vocabulary, size=shape), jnp.uint16)
    params, data = task.init(jax.random.key(1)), (task.data(jax.random.key(0), workers), {"tokens": tokens})
    start_W = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (workers, *leaf.shape)), params)
    state_W = jax.vmap(inner.transformation.init)(start_W)

    def visit(start, state, shard, num_steps, data):
        return local_update(task, inner, start, state, lambda j: task.batch(data, shard, j), jnp.int32(0), num_steps)

    def arrive(server, pseudo_gradient):
        zero = jnp.int32(0)
        extras = {name: zero for name in ("staleness", "worker", "num_steps", "arrival", "dispatch")}
        return apply_arrival(outer, server, pseudo_gradient, step=jnp.bool(True), pulled_params=params, **extras)

    began = time.perf_counter()
    inputs = start_W, state_W, jnp.arange(workers), jnp.int32(steps), data
    visits = jax.jit(jax.vmap(visit, (0, 0, 0, None, None))).lower(*inputs).compile()
    server = open_server(outer, params)
    arrival = jax.jit(arrive).lower(server, params).compile()
    compiled = time.perf_counter() - began

    step_seconds = best_of(repeats, lambda: visits(*inputs)) / steps
    outer_seconds = best_of(5 * repeats, lambda: arrival(server, params))
    peak = peak_bytes()  # of training, before the large matrices of the rates
    rates = {dtype: product_rate(dtype) for dtype in ("float32", "bfloat16")}
    rate = workers * model.batch * model.sequence / step_seconds
    return Line(
        size=size,
        workers=workers,
        batch=model.batch,
        compute=model.compute,
        parameters=parameters(model),
        compile_seconds=compiled,
        step_seconds=step_seconds,
        tokens_per_second=rate,
        flops_per_second=rate * flops_per_token(model),
        product_rate=rates,
        share=rate * flops_per_token(model) / rates[model.compute],
        outer_seconds=outer_seconds,
        outer_share=workers * outer_seconds / (VISIT * step_seconds + workers * outer_seconds),
        peak_bytes=peak,
        device=jax.local_devices()[0].device_kind,
        jax=jax.__version__,
    )


@dataclass(frozen=True)
class Kept:
    """What it takes to keep a worker's pulled parameters and inner state from one visit to the next."""

    size: str
    snapshots: str
    dtype: str
    device_bytes: int  # of a worker that shares its snapshot with nobody
    host_bytes: int
    arrival_seconds: float  # to pull, keep, and hand back both
    device: str
    jax: str


def measure_kept(size: str, placement: Placement, repeats: int) -> Kept:
    """Time what an arrival moves, in a model of which nothing is trained."""
    import jax

    from lm.model import init
    from lm.snapshots import PINNED, Snapshots
    from toybench.inner import make_inner
    from toybench.outer import METHODS, make_outer
    from toybench.server import open_server

    snapshots, params = Snapshots(placement), init(SIZES[size].model, jax.random.key(1))
    inner = make_inner("adamw", asdict(SIZES[size].inner) | {"decay_steps": 10_000})
    outer = make_outer(METHODS["delayed_nesterov"].settings(lr=0.7), 1)
    server, state = open_server(outer, params), inner.transformation.init(params)

    def kept():
        return snapshots.pulled(outer, server, [0]), snapshots.kept(state)

    def on_host(leaf):
        return isinstance(leaf, np.ndarray) or leaf.sharding.memory_kind == PINNED

    leaves = jax.tree.leaves(kept())
    return Kept(
        size=size,
        snapshots=placement.snapshots,
        dtype=placement.dtype,
        device_bytes=sum(leaf.nbytes for leaf in leaves if not on_host(leaf)),
        host_bytes=sum(leaf.nbytes for leaf in leaves if on_host(leaf)),
        arrival_seconds=best_of(repeats, lambda: snapshots.handed(kept())),
        device=jax.local_devices()[0].device_kind,
        jax=jax.__version__,
    )


def print_kept(lines: list[Kept]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    title = f"{lines[0].device}, jax {lines[0].jax}: what a worker holds between its visits"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for name in ("size", "snapshots", "pulled as"):
        table.add_column(name, no_wrap=True)
    for name in ("device MB", "host MB", "ms an arrival"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        held = (f"{size / 1e6:,.2f}" for size in (line.device_bytes, line.host_bytes))
        table.add_row(line.size, line.snapshots, line.dtype, *held, f"{line.arrival_seconds * 1e3:.2f}")
    Console().print(table)


def print_table(lines: list[Line]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    title = f"{lines[0].device}, jax {lines[0].jax}, {lines[0].compute}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column("size", no_wrap=True)
    for name in ("k", "tokens/s", "GFLOP/s", "share", "compile", "MB", "outer ms", "of round"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(
            line.size,
            str(line.workers),
            f"{line.tokens_per_second:,.0f}",
            f"{line.flops_per_second / 1e9:,.1f}",
            f"{line.share:.1%}",
            f"{line.compile_seconds:.1f} s",
            f"{line.peak_bytes / 1e6:,.0f}",
            f"{line.outer_seconds * 1e3:.2f}",
            f"{line.outer_share:.2%}",
        )
    console = Console()
    console.print(table)
    console.print("k: workers at once; share: of the rate of matrix products in that precision; MB: peak memory;")
    console.print(f"outer: an arrival at the server; k of them in a round of {VISIT} local steps")
    for dtype in lines[0].product_rate:
        rates = ", ".join(f"{line.product_rate[dtype] / 1e9:,.0f}" for line in lines)
        console.print(f"matrix products in {dtype}, GFLOP/s at each line: {rates}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time local steps and outer steps of language models.")
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["tiny"], help="models (default: tiny)")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 4], help="workers at once (default: 1 4)")
    parser.add_argument("--batch", type=int, help="sequences of a batch; the size's own if not given")
    parser.add_argument("--compute", choices=("float32", "bfloat16"), help="the size's own if not given")
    parser.add_argument("--steps", type=int, default=10, help="local steps timed at once (default: 10)")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many counts (default: 3)")
    parser.add_argument("--snapshots", action="store_true", help="what workers hold, and where, instead of steps")
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    options = parser.parse_args()
    jobs = kept_jobs(options) if options.snapshots else step_jobs(options)
    lines = []
    for job in jobs:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
            lines.append(fresh.submit(*job).result())
    if options.json:
        print(json.dumps([asdict(line) for line in lines], indent=1))
    elif options.snapshots:
        print_kept(lines)
    else:
        print_table(lines)


def step_jobs(options: argparse.Namespace) -> Iterator[tuple]:
    """The calls to `measure` that are asked for."""
    asked = {name: value for name in ("batch", "compute") if (value := getattr(options, name)) is not None}
    for size in options.size:
        model = replace(SIZES[size].model, **asked)
        for workers in options.workers:
            yield measure, size, model, workers, options.steps, options.repeats


def kept_jobs(options: argparse.Namespace) -> Iterator[tuple]:
    """The calls to `measure_kept`."""
    for size in options.size:
        for snapshots in MEMORIES:
            for dtype in DTYPES:
                yield measure_kept, size, Placement(snapshots=snapshots, dtype=dtype), options.repeats


if __name__ == "__main__":
    main()
