"""The engine: a Timeline turned into training, by a plain loop (the definition) or by compiled chunks of arrivals.

Both compose the same two functions, `local_update` and `apply_arrival`. A compiled chunk runs many lanes at once:
S seeds (each with its own data and initial parameters) times R settings (each with its own numbers). Rows, numbers
and loop lengths are arguments, so only shapes and the choice of task and optimizers recompile.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

from toybench.inner import InnerOptimizer, local_update
from toybench.outer.base import OuterOptimizer
from toybench.server import Server, apply_arrival, open_server
from toybench.task import Data, Params, Task, data_of, has_host_data
from toybench.timeline import Timeline


class Rows(NamedTuple):
    """Arrivals as the compiled program reads them: arrays of any leading shape, [...] below."""

    worker: Any  # [...]
    shard: Any  # [...]
    first_step: Any  # [...]
    num_steps: Any  # [...] 0 where masked
    staleness: Any  # [...]
    arrival: Any  # [...] number of this arrival
    dispatch: Any  # [...] arrivals taken when the worker pulled
    step: Any  # [...] bool: the server steps
    reset: Any  # [...] bool: fresh inner state
    pulls: Any  # [..., W] bool: who pulls afterwards
    valid: Any  # [...] bool: False where masked


def rows_of(timeline: Timeline, workers: int, reset: bool) -> Rows:
    """The rows of a timeline, [E]; `reset` gives every visit fresh inner state."""
    events = len(timeline.time)
    return Rows(
        worker=timeline.worker,
        shard=timeline.shard,
        first_step=timeline.first_step,
        num_steps=timeline.num_steps,
        staleness=timeline.staleness,
        arrival=np.arange(events),
        dispatch=timeline.pulled_at,
        step=timeline.step,
        reset=timeline.reset | reset,
        pulls=timeline.pulls(workers),
        valid=np.ones(events, bool),
    )


def chunks_of(rows: Rows, begins: np.ndarray, ends: np.ndarray, capacity: int) -> Rows:
    """Cut rows [E] into K chunks [K, capacity]: chunk k holds rows begins[k] to ends[k], masked up to the capacity."""
    index = begins[:, None] + np.arange(capacity)
    inside = index < ends[:, None]
    index = np.minimum(index, len(rows.worker) - 1)

    def cut(column: np.ndarray) -> np.ndarray:
        keep = inside.reshape(inside.shape + (1,) * (column.ndim - 1))
        piece = np.where(keep, column[index], 0)
        return piece.astype(bool if column.dtype == bool else np.int32)

    return Rows(*(cut(column) for column in rows))


def arrival_extras(row: Rows, pulled: Params) -> dict[str, Any]:
    """What an outer optimizer is told of an arrival, whose worker had pulled `pulled`."""
    return {
        "staleness": row.staleness,
        "pulled_params": pulled,
        "worker": row.worker,
        "num_steps": row.num_steps,
        "arrival": row.arrival,
        "dispatch": row.dispatch,
    }


class Replay(NamedTuple):
    """What the plain loop leaves behind."""

    params: Params
    server: Server
    losses: np.ndarray  # [E] mean training loss of each visit


def replay(
    task: Task,
    inner: InnerOptimizer,
    outer: OuterOptimizer,
    timeline: Timeline,
    key: jax.Array,
    *,
    workers: int,
    shards: int,
    reset: bool = False,
    on_arrival: Callable[[int, Server, Params], None] | None = None,
) -> Replay:
    """Train along a timeline, one arrival after the other, one run, in plain Python: what the engine must equal.

    Args:
        task: what is trained.
        inner, outer: the workers' and the server's optimizer.
        timeline: when; E arrivals.
        key: the run's key; data and initial parameters follow from it as in `seed_keys`.
        workers: W, the number of workers.
        shards: the number of data shards.
        reset: fresh inner state at every visit.
        on_arrival: called after each arrival with its number, the server and the pseudo-gradient.

    Returns:
        Final parameters and server, and each visit's training loss.

    Raises:
        ValueError: the timeline names a worker or a shard beyond `workers` or `shards`.
    """
    if timeline.worker.max() >= workers or timeline.shard.max() >= shards:
        raise ValueError(f"the timeline needs {timeline.worker.max() + 1} workers, {timeline.shard.max() + 1} shards")
    data_key, init_key = seed_keys(key)
    data, params = data_of(task, data_key, shards), task.init(init_key)
    server = open_server(outer, params)
    pulled = [outer.pull(server.outer_state, params, w) for w in range(workers)]
    fresh = inner.transformation.init(params)
    inner_states = [fresh] * workers
    losses, rows = [], rows_of(timeline, workers, reset)

    @jax.jit
    def visit(start, inner_state, shard, first_step, num_steps, data):
        def batch_at(j):
            return task.batch(data, shard, first_step + j)

        return local_update(task, inner, start, inner_state, batch_at, first_step, num_steps)

    @jax.jit
    def arrive(server, pseudo_gradient, row, start):
        return apply_arrival(outer, server, pseudo_gradient, step=row.step, **arrival_extras(row, start))

    for e in range(len(timeline.time)):
        row = Rows(*(column[e] for column in rows))
        w = int(row.worker)
        state = fresh if row.reset else inner_states[w]
        g, inner_states[w], loss = visit(pulled[w], state, row.shard, row.first_step, row.num_steps, data)
        server = arrive(server, g, row, pulled[w])
        losses.append(float(loss))
        for v in np.flatnonzero(row.pulls):
            pulled[v] = outer.pull(server.outer_state, server.params, v)
        if on_arrival is not None:
            on_arrival(e, server, g)
    return Replay(server.params, server, np.array(losses))


class Carry(NamedTuple):
    """All that a run carries from one chunk to the next."""

    server: Server
    pulled: Params  # [W, ...] what each worker pulled last
    inner_states: Any  # [W, ...] each worker's inner optimizer state


def _open(inner: InnerOptimizer, outer: OuterOptimizer, params: Params, workers: int) -> Carry:
    server = open_server(outer, params)
    pulled = jax.vmap(lambda w: outer.pull(server.outer_state, params, w))(jnp.arange(workers))
    fresh = inner.transformation.init(params)
    return Carry(server, pulled, jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (workers, *jnp.shape(leaf))), fresh))


MakeInner = Callable[[dict], InnerOptimizer]
MakeOuter = Callable[[dict], OuterOptimizer]


@lru_cache(maxsize=64)
def _visit(task: Task, make_inner: MakeInner) -> Callable:
    """The worker's half of an arrival; its own jit, so that programs of different outer methods trace it once."""

    @jax.jit
    def visit(start, kept, row, trip, data, numbers):
        inner = make_inner(numbers)
        fresh = inner.transformation.init(start)
        state = jax.tree.map(lambda new, old: jnp.where(row.reset, new, old), fresh, kept)

        def batch_at(j):
            return task.batch(data, row.shard, row.first_step + j)

        g, state, _ = local_update(task, inner, start, state, batch_at, row.first_step, row.num_steps, trip)
        return g, state

    return visit


def _arrive(visit: Callable, outer: OuterOptimizer, carry: Carry, row: Rows, trip, data: Data, numbers: dict) -> Carry:
    """One arrival: the worker's visit from what it pulled, the server's step, and the pulls that follow."""
    start = jax.tree.map(lambda leaf: leaf[row.worker], carry.pulled)
    kept = jax.tree.map(lambda leaf: leaf[row.worker], carry.inner_states)
    g, state = visit(start, kept, row, trip, data, numbers)
    server = apply_arrival(outer, carry.server, g, step=row.step, valid=row.valid, **arrival_extras(row, start))

    def pull(w, pulls, old):
        handed = outer.pull(server.outer_state, server.params, w)
        return jax.tree.map(lambda new, old: jnp.where(pulls, new, old), handed, old)

    pulled = jax.vmap(pull)(jnp.arange(row.pulls.shape[-1]), row.pulls, carry.pulled)
    inner_states = jax.tree.map(lambda leaf, new: leaf.at[row.worker].set(new), carry.inner_states, state)
    return Carry(server, pulled, inner_states)


class Numbers(NamedTuple):
    """The traced settings of R runs: arrays [R] by name."""

    inner: dict[str, Any]
    outer: dict[str, Any]
    lane: Any  # [R] so that there is an axis even where both optimizers bring their own numbers


@cache
def lane_mesh(seeds: int, settings: int) -> Mesh:
    """The local devices as a mesh over lanes: seeds first, then settings; never more of either than there are."""
    devices = jax.local_devices()
    over_seeds = min(seeds, len(devices))
    over_settings = min(settings, len(devices) // over_seeds)
    used = np.array(devices[: over_seeds * over_settings]).reshape(over_seeds, over_settings)
    return Mesh(used, ("seeds", "settings"), axis_types=(AxisType.Auto, AxisType.Auto))


BOTH, SEEDS, SETTINGS, NEITHER = (
    PartitionSpec(*axes) for axes in (("seeds", "settings"), ("seeds",), ("settings",), ())
)


def seed_keys(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The key of a run's data and that of its initial parameters."""
    data_key, init_key = jax.random.split(key)
    return data_key, init_key


def _data_axes(task: Task) -> tuple[Any, Any]:
    """Of a task's data: the axis of the seeds, and how it is spread; what all seeds share has none."""
    return ((0, None), (SEEDS, NEITHER)) if has_host_data(task) else (0, SEEDS)


@lru_cache(maxsize=64)
def compile_start(task: Task, shards: int, mesh: Mesh) -> Callable:
    """Keys [S] -> the seeds' own data and initial parameters, each [S, ...]."""

    def one(key):
        data_key, init_key = seed_keys(key)
        return task.data(data_key, shards), task.init(init_key)

    # One seed after the other: generating data takes several times the memory that the data take.
    return jax.jit(_over_lanes(partial(jax.lax.map, one), mesh, (SEEDS,), SEEDS))


@lru_cache(maxsize=64)
def compile_open(make_inner: MakeInner, make_outer: MakeOuter, workers: int, mesh: Mesh) -> Callable:
    """(parameters [S, ...], numbers [R]) -> carry [S, R, ...]."""

    def one(params, numbers):
        return _open(make_inner(numbers.inner), make_outer(numbers.outer), params, workers)

    lanes = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    return jax.jit(_over_lanes(lanes, mesh, (SEEDS, SETTINGS), BOTH))


@lru_cache(maxsize=64)
def compile_chunk(task: Task, make_inner: MakeInner, make_outer: MakeOuter, mesh: Mesh) -> Callable:
    """A compiled chunk: ``(carry, rows, trips, begin, end, data, numbers) -> carry``, the carry donated.

    Args:
        task: what is trained.
        make_inner, make_outer: from one lane's `Numbers` to its optimizers; equal functions share the program.
        mesh: the devices that the lanes are spread over, from `lane_mesh`.

    Args of the returned function, for S seeds, R settings, W workers and chunks of up to C arrivals:
        carry: `Carry` with leading axes [S, R].
        rows: `Rows` [S, R, C], from `chunks_of`.
        trips: [C] local steps of each row, the most over the lanes.
        begin, end: rows to go through; the rest is not touched and costs nothing.
        data: of the task, [S, ...]; with `host_data` the pair of that and what all seeds share.
        numbers: `Numbers` [R].
    """

    def one(carry, row, trip, data, numbers):
        return _arrive(visit, make_outer(numbers.outer), carry, row, trip, data, numbers.inner)

    visit = _visit(task, make_inner)
    data_axis, data_spec = _data_axes(task)

    # A loop's length carries no lane axis: a batched length would turn every step into a masked copy.
    lanes = jax.vmap(jax.vmap(one, (0, 0, None, None, 0)), (0, 0, None, data_axis, None))

    def chunk(carry, rows, trips, begin, end, data, numbers):
        def body(e, carry):
            row = jax.tree.map(lambda column: column[:, :, e], rows)
            return lanes(carry, row, trips[e], data, numbers)

        return jax.lax.fori_loop(begin, end, body, carry)

    specs = (BOTH, BOTH, NEITHER, NEITHER, NEITHER, data_spec, SETTINGS)
    return jax.jit(_over_lanes(chunk, mesh, specs, BOTH), donate_argnums=0)


@lru_cache(maxsize=64)
def compile_evaluate(task: Task, mesh: Mesh) -> Callable:
    """(carry [S, R, ...], data as for `compile_chunk`) -> metrics, each [S, R]."""
    data_axis, data_spec = _data_axes(task)
    one = jax.vmap(lambda carry, data: task.evaluate(carry.server.params, data), (0, None))
    return jax.jit(_over_lanes(jax.vmap(one, (0, data_axis)), mesh, (BOTH, data_spec), BOTH))


def _over_lanes(function: Callable, mesh: Mesh, in_specs: tuple, out_specs: PartitionSpec) -> Callable:
    return partial(jax.shard_map, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)(function)
