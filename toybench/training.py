"""From configurations to results: runs of the same static part become the lanes of one compiled program."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding

from toybench.config import INNER, LARGEST, ConfigError, Gaussians, Inner, Run, check_seeds
from toybench.curves import Curves
from toybench.engine import (
    NEITHER,
    Numbers,
    Rows,
    chunks_of,
    compile_chunk,
    compile_evaluate,
    compile_open,
    compile_start,
    lane_mesh,
    rows_of,
)
from toybench.gaussians import GaussianMixture
from toybench.inner import InnerOptimizer, make_inner
from toybench.outer import OuterOptimizer, as_outer, method_of, outer_builder, outer_numbers
from toybench.runtime import memory
from toybench.task import Task, has_host_data
from toybench.timeline import Timeline, simulate

CAPACITY = 32  # arrivals in a compiled chunk; unused rows cost nothing


@dataclass(frozen=True)
class Result(Curves):
    """What training leaves of one configuration: its curves, and what only a run in this process has."""

    timelines: tuple[Timeline, ...]  # one a seed
    params: Any  # final server parameters, [S, ...]
    custom: dict[str, str]  # what was used instead of the configuration's own task, inner or outer optimizer


def inner_numbers(run: Run) -> dict[str, Any]:
    """The inner settings as numbers, those that depend on the budget resolved; what a compiled run traces."""
    numbers = {f.name: getattr(run.inner, f.name) for f in fields(run.inner)}
    if numbers["decay_steps"] is None:
        numbers["decay_steps"] = max(
            run.budget.total_steps(run.cluster) // run.cluster.num_shards, run.inner.warmup + 1
        )
    return numbers


def evaluation_points(timeline: Timeline, total: int, evaluations: int) -> np.ndarray:
    """[n] arrivals after which to evaluate: the first outer step at or past each n-th of all local steps."""
    goals = total * np.arange(1, evaluations + 1) / evaluations
    reached = np.minimum(np.searchsorted(timeline.local_steps, goals), len(timeline.time) - 1)
    stepping = np.flatnonzero(timeline.step)
    return stepping[np.minimum(np.searchsorted(stepping, reached), len(stepping) - 1)] + 1


@cache
def inner_builder(settings: type[Inner]) -> Callable[[dict[str, Any]], InnerOptimizer]:
    """The function from `inner_numbers`, traced or not, to the inner optimizer; the same object for the same class."""
    optimizer = next((name for name, cls in INNER.items() if cls is settings), None)
    if optimizer is None:
        raise ConfigError(
            "inner", f"must be one of {', '.join(c.__name__ for c in INNER.values())}, got {settings.__name__}"
        )
    return lambda numbers: make_inner(optimizer, numbers)


@lru_cache(maxsize=64)
def _constant(value: Any) -> Callable:
    return lambda numbers: value


@lru_cache(maxsize=1)
def _start(task: Task, shards: int, seeds: tuple[int, ...], mesh: Any, x64: bool) -> tuple[Any, Any]:
    data, params = compile_start(task, shards, mesh)(jax.vmap(jax.random.key)(np.array(seeds)))
    if has_host_data(task):
        data = data, jax.device_put(task.host_data(shards), NamedSharding(mesh, NEITHER))  # type: ignore[attr-defined]
    return data, params


MOST_PROGRAMS = 100  # groups of different shapes or methods, of four programs each
_compiled: set[Any] = set()


def _make_room(group: Any) -> None:
    """Drop compiled programs when there are many: each holds some dozen memory maps, and Linux grants 65,530.

    What is dropped comes back from the persistent cache in a moment.
    """
    if group not in _compiled and len(_compiled) >= MOST_PROGRAMS:
        jax.clear_caches()
        _compiled.clear()
    _compiled.add(group)


class _Plan(NamedTuple):
    """Everything a group of runs needs from the host: S seeds, R runs, K chunks of C rows."""

    timelines: list[list[Timeline]]  # [S][R]
    points: np.ndarray  # [S, R, n] arrivals at each evaluation
    rows: Rows  # [K, S, R, C]
    evaluate_after: list[bool]  # [K]


def _plan(runs: Sequence[Run], seeds: Sequence[int]) -> _Plan:
    kinds = list(dict.fromkeys((run.cluster, run.budget) for run in runs))  # runs that differ in rates alone share one
    kind_of = [kinds.index((run.cluster, run.budget)) for run in runs]
    timelines = [[simulate(cluster, budget, seed) for cluster, budget in kinds] for seed in seeds]
    points = np.array(
        [
            [evaluation_points(t, budget.total_steps(c), budget.evaluations) for t, (c, budget) in zip(row, kinds)]
            for row in timelines
        ]
    )
    begins = np.concatenate([np.zeros_like(points[..., :1]), points[..., :-1]], axis=-1)
    pieces = -(-(points - begins).max((0, 1)) // CAPACITY)  # chunks that each evaluation interval needs
    pieces = np.maximum(pieces, 1)
    segment = np.repeat(np.arange(len(pieces)), pieces)
    offset = np.concatenate([np.arange(p) for p in pieces]) * CAPACITY

    @cache
    def lane(s: int, kind: int, reset: bool) -> Rows:
        rows = rows_of(timelines[s][kind], kinds[kind][0].workers, reset)
        return chunks_of(rows, begins[s, kind][segment] + offset, points[s, kind][segment], CAPACITY)

    lanes = [_stack([lane(s, kind, run.inner.reset) for kind, run in zip(kind_of, runs)]) for s in range(len(seeds))]
    last = np.append(segment[1:] != segment[:-1], True)
    timelines = [[row[kind] for kind in kind_of] for row in timelines]
    return _Plan(timelines, points[:, kind_of], _stack(lanes), list(last))


def _stack(rows: Sequence[Rows]) -> Rows:
    return Rows(*(np.stack(columns, axis=1) for columns in zip(*rows)))


def _numbers(runs: Sequence[Run], custom_inner: bool, custom_outer: bool) -> Numbers:
    def gather(tables: list[dict]) -> dict[str, np.ndarray]:
        return {name: np.array([table[name] for table in tables]) for name in tables[0]}

    inner = {} if custom_inner else gather([inner_numbers(run) for run in runs])
    outer = (
        {}
        if custom_outer
        else gather([outer_numbers(run.outer, run.cluster.workers, run.cluster.barrier) for run in runs])
    )
    return Numbers(inner, outer, np.arange(len(runs)))


def static_part(run: Run) -> tuple:
    """What decides the compiled program: runs that agree in it can be lanes of one call."""
    return (
        run.task,
        run.cluster.workers,
        run.cluster.num_shards,
        type(run.inner),
        method_of(run.outer),
        run.budget.evaluations,
    )


def train(
    runs: Sequence[Run] | Run,
    seeds: Sequence[int],
    *,
    task: Task | None = None,
    inner: InnerOptimizer | None = None,
    outer: optax.GradientTransformation | OuterOptimizer | None = None,
    progress: Callable[[float], None] | None = None,
) -> list[Result]:
    """Train configurations on seeds, as many at once as share a compiled program.

    Args:
        runs: one or more configurations.
        seeds: each fixes data, initial parameters and shard draws, the same for every run, so that runs are paired.
        task: trained instead of `run.task`.
        inner: used instead of `run.inner`.
        outer: any optax optimizer, or an `OuterOptimizer`; used instead of `run.outer`.
        progress: called now and then with the runs finished since the last call, in fractions of a run.

    Returns:
        A result for each configuration, in order.

    Raises:
        ConfigError: no runs, no seeds, or seeds that are not different whole numbers from 0 to 2³¹ − 1.
    """
    runs = [runs] if isinstance(runs, Run) else list(runs)
    if not runs:
        raise ConfigError("runs", "must not be empty")
    seeds = check_seeds(seeds)
    groups: dict[tuple, list[int]] = {}
    for i, run in enumerate(runs):
        groups.setdefault(static_part(run), []).append(i)
    results: dict[int, Result] = {}
    for members in groups.values():
        group = [runs[i] for i in members]
        results |= zip(members, _train_group(group, seeds, task, inner, outer, progress))
    custom = {k: repr(v) for k, v in {"task": task, "inner": inner, "outer": outer}.items() if v is not None}
    return [replace(results[i], custom=custom) for i in range(len(runs))]


def _padded(items: Sequence, multiple: int) -> list:
    """The items, the last repeated until their number is a multiple; devices want equal shares."""
    return [*items, *[items[-1]] * (-len(items) % multiple)]


class _Pace:
    """How many arrivals to put into one compiled call, so that it lasts about half a second and can be interrupted."""

    def __init__(self) -> None:
        self.rows, self.began = 1, time.perf_counter()

    def passed(self, rows: int) -> None:
        """So many arrivals were made since the last time."""
        now = time.perf_counter()
        if rows:
            self.rows = int(np.clip(0.5 * rows / (now - self.began), 1, CAPACITY))
        self.began = now


class Footprint(NamedTuple):
    """Bytes that a call takes at least."""

    seed: int  # for each seed: its data
    lane: int  # for each lane: parameters, and a moment or two, of the server and of every worker
    shared: int = 0  # once: the data that all seeds share

    def of(self, seeds: int, lanes: int) -> int:
        """Bytes of so many seeds and lanes."""
        return self.shared + seeds * self.seed + lanes * self.lane


@lru_cache(maxsize=64)
def footprint(task: Task, shards: int, workers: int) -> Footprint:
    """What a task takes in a cluster of `workers` workers."""
    key = jax.eval_shape(jax.random.key, 0)

    def size(tree: Any) -> int:
        return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

    try:
        data = size(jax.eval_shape(lambda key: task.data(key, shards), key))
        params = size(jax.eval_shape(task.init, key))
    except OverflowError:  # an array that jax cannot even describe
        data = params = LARGEST**2
    shared = size(task.host_data(shards)) if has_host_data(task) else 0  # type: ignore[attr-defined]
    return Footprint(data, (workers + 1) * 3 * params, shared)


def check_memory(run: Run, seeds: int, lanes: int, task: Task | None = None) -> None:
    """Refuse what cannot fit: the data of all seeds, and the parameters of every lane of a call.

    Raises:
        ConfigError: they take more than the machine's memory.
    """
    task, available = task_of(run) if task is None else task, memory()
    needed = footprint(task, run.cluster.num_shards, run.cluster.workers).of(seeds, lanes)
    if available is not None and needed > available:
        said = f"{task} on {seeds} seeds takes {needed / 1e9:,.1f} GB at least"
        raise ConfigError("task", f"{said}; this machine has {available / 1e9:,.1f} GB")


def task_of(run: Run) -> Task:
    """The task of a configuration: that of its settings, or the task that stands in their place."""
    return GaussianMixture(run.task) if isinstance(run.task, Gaussians) else run.task


def _train_group(
    runs: list[Run], seeds: tuple[int, ...], task: Task | None, inner: Any, outer: Any, progress: Callable | None
) -> list[Result]:
    mesh = lane_mesh(len(seeds), len(runs))
    lane_seeds = tuple(_padded(seeds, mesh.shape["seeds"]))
    lane_runs = _padded(runs, mesh.shape["settings"])
    first = runs[0]
    task = task_of(first) if task is None else task
    make_inner = inner_builder(type(first.inner)) if inner is None else _constant(inner)
    make_outer = outer_builder(method_of(first.outer)) if outer is None else _constant(as_outer(outer))

    check_memory(first, len(lane_seeds), len(seeds) * len(runs), task)
    _make_room((task, make_inner, make_outer, first.cluster.workers, len(lane_seeds), len(lane_runs)))
    plan = _plan(lane_runs, lane_seeds)
    numbers = _numbers(lane_runs, inner is not None, outer is not None)
    data, params = _start(task, first.cluster.num_shards, lane_seeds, mesh, bool(jax.config.read("jax_enable_x64")))
    chunk = compile_chunk(task, make_inner, make_outer, mesh)
    evaluate = compile_evaluate(task, mesh)
    carry = compile_open(make_inner, make_outer, first.cluster.workers, mesh)(params, numbers)
    curves, pace, made = [evaluate(carry, data)], _Pace(), 0
    for k, evaluate_now in enumerate(plan.evaluate_after):
        rows = Rows(*(column[k] for column in plan.rows))
        trips = rows.num_steps.max((0, 1))
        count = int(rows.valid.any((0, 1)).sum())
        for begin in range(0, count, pace.rows):
            carry = chunk(carry, rows, trips, begin, min(begin + pace.rows, count), data, numbers)
        made += count
        if evaluate_now:
            curves.append(evaluate(carry, data))
            jax.block_until_ready(curves[-2])  # stay one evaluation ahead, no more: an interrupt is soon obeyed
            pace.passed(made)
            made = 0
            if progress is not None:
                progress(len(runs) * len(seeds) / first.budget.evaluations)
    curves = jax.tree.map(lambda *points: np.stack(points, axis=-1), *jax.device_get(curves))  # [S, R, n + 1]
    params = jax.device_get(carry.server.params)
    return [_result(run, seeds, r, plan, curves, params) for r, run in enumerate(runs)]


def _result(run: Run, seeds: tuple[int, ...], r: int, plan: _Plan, curves: dict, params: Any) -> Result:
    timelines = tuple(plan.timelines[s][r] for s in range(len(seeds)))

    def at_points(column: str) -> np.ndarray:
        values = [getattr(t, column)[plan.points[s, r] - 1] for s, t in enumerate(timelines)]
        return np.concatenate([np.zeros((len(seeds), 1)), np.stack(values)], axis=1)

    metrics, params = jax.tree.map(lambda lanes: lanes[: len(seeds), r], (curves, params))
    steps, time = at_points("local_steps").astype(int), at_points("time")
    return Result(run, seeds, steps, time, metrics, timelines, params, {})
