"""Many runs: cut into calls that fit the machine, trained call by call into a store, taken up where they stopped.

The cut is stored before the first run and kept when a sweep is resumed: bit for bit, results are equal only for the
same program and the same neighbours in it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from filelock import FileLock, Timeout

from toybench.config import ConfigError, Run, check_seeds
from toybench.curves import Curves
from toybench.records import commit, maker
from toybench.search import load_search, propose
from toybench.store import Call, Plan, Store
from toybench.training import footprint, static_part, task_of, train

LANES = 64  # in a call: more are no faster on a CPU, and a call is what an interrupt may lose
BYTES = 2**30  # of a call's data and lanes, as `footprint` counts them


def _even(items: Sequence, most: int) -> list[tuple]:
    """Cut into pieces of nearly one length, none longer than `most`."""
    count = -(-len(items) // most)
    size = -(-len(items) // count)
    return [tuple(items[i : i + size]) for i in range(0, len(items), size)]


def plan_calls(runs: Sequence[Run], seeds: Sequence[int]) -> list[Call]:
    """Cut runs times seeds into calls: of one compiled program each, within `LANES` and `BYTES`."""
    groups: dict[tuple, list[int]] = {}
    for i, run in enumerate(runs):
        groups.setdefault(static_part(run), []).append(i)
    calls = []
    for members in groups.values():
        # Lanes wait for the longest visit among them, so like clusters are put side by side.
        members = sorted(members, key=lambda i: (repr(runs[i].cluster), runs[i].budget.rounds, i))
        cluster = runs[members[0]].cluster
        needs = footprint(task_of(runs[members[0]]), cluster.num_shards, cluster.workers)
        most_seeds = max(1, min(LANES, BYTES // (needs.seed + needs.lane)))
        for block in _even(seeds, most_seeds):
            spare = (BYTES - len(block) * needs.seed) // (len(block) * needs.lane)
            pieces = _even(members, max(1, min(LANES // len(block), spare)))
            calls += [Call(piece, block, len(pieces[0])) for piece in pieces]
    return calls


def check_name(name: str) -> None:
    """A sweep's name is part of a file's.

    Raises:
        ConfigError: it would not do.
    """
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        said = "expected up to 100 letters, digits, '.', '_' and '-', a letter or digit first"
        raise ConfigError("name", f"{said}, got {name!r}")


@contextmanager
def only_one(store: Store, name: str) -> Iterator[None]:
    """Keep other processes from the same sweep; a killed process keeps nobody.

    Raises:
        ConfigError: another process is at it, or the name would not do.
    """
    check_name(name)
    lock = FileLock(f"{store.path}.{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError("sweep", f"{name!r} is being made by another process") from None
    try:
        yield
    finally:
        lock.release()


class Job(NamedTuple):
    """What is left to train of a call, as its program wants it: some runs twice."""

    lanes: list[Run]
    seeds: tuple[int, ...]


class Force(NamedTuple):
    """Who trains the calls of a sweep."""

    made_by: Mapping[str, str]  # as `toybench.records.maker` says it
    # jobs, told of runs done in fractions -> number of a job, its results, its seconds; in any order
    carry: Callable[[Sequence[Job], Callable[[float], None]], Iterator[tuple[int, Sequence[Curves], float]]]


def here() -> Force:
    """This process, one call after the other."""
    return Force(maker(), _carry)


def _carry(jobs: Sequence[Job], report: Callable[[float], None]) -> Iterator[tuple[int, Sequence[Curves], float]]:
    for number, (lanes, seeds) in enumerate(jobs):
        began = time.perf_counter()
        found = train(lanes, seeds, progress=report)
        yield number, found, time.perf_counter() - began


def resumed(store: Store, name: str, force: Force | None = None) -> Plan:
    """A sweep taken up where it stopped, by those who are to finish it: this process, if left out.

    Raises:
        ConfigError: there is none of that name, or other code or versions began it: its results would not be equal.
    """
    plan, made_by = store.plan(name)
    now = (here() if force is None else force).made_by
    changed = [key for key, value in now.items() if made_by.get(key) != value]
    if changed:
        said = ", ".join(f"{key} {made_by.get(key)}, now {now[key]}" for key in changed)
        raise ConfigError("sweep", f"{name!r} was begun by another maker ({said}); begin it anew under another name")
    return plan


def measure(
    runs: Sequence[Run],
    seeds: Sequence[int],
    store: Store,
    *,
    calls: Sequence[Call] | None = None,
    progress: Callable[[float, float | None], None] | None = None,
    force: Force | None = None,
) -> list[Curves]:
    """The curves of every run on every seed: from the store where it has them, else trained into it, call by call.

    Args:
        runs: configurations, of settings alone.
        seeds: of every run.
        store: what is finished is in it at the end of each call.
        calls: how to cut them, from `plan_calls`; cut anew if left out.
        progress: called now and then with the runs done since the last call, in fractions of a run, and the least mean
            final loss so far.
        force: who trains them; this process, if left out.

    Returns:
        One `Curves` a run, in order.

    Raises:
        ConfigError: bad seeds, or a store that cannot be written.
    """
    runs, seeds, force = list(runs), check_seeds(seeds), here() if force is None else force
    made_by, best = force.made_by, list[float]()

    def report(done: float) -> None:
        if progress is not None:
            progress(done, min(best, default=None))

    todo: list[tuple[Call, Job]] = []
    for call in plan_calls(runs, seeds) if calls is None else calls:
        members = [runs[i] for i in call.runs]
        if all(set(call.seeds) <= store.present(run, made_by).keys() for run in members):
            report(len(members) * len(call.seeds))
        else:
            todo.append((call, Job(members + members[-1:] * (call.lanes - len(members)), call.seeds)))
    real = sum(len(call.runs) for call, _ in todo) / max(1, sum(call.lanes for call, _ in todo))
    for number, results, seconds in force.carry([job for _, job in todo], lambda done: report(done * real)):
        call = todo[number][0]
        results = results[: len(call.runs)]
        store.add(results, made_by, seconds=seconds / (len(results) * len(call.seeds)), commit=commit())
        best.append(min(float(result.final_loss.mean()) for result in results))
    return [store.curves(run, seeds, made_by) for run in runs]


def searched(
    plan: Plan,
    store: Store,
    progress: Callable[[float, float | None], None] | None = None,
    force: Force | None = None,
) -> list[Curves]:
    """Carry out a search, or what is lacking of it: each batch is stored as part of the sweep before it is trained.

    Raises:
        ConfigError: as `measure` and `toybench.search.propose`.
    """
    results: list[Curves] = []
    runs_so_far: list[Run] = []
    calls_so_far: list[Call] = []
    best = float("inf")

    def report(done: float, of_batch: float | None) -> None:
        if progress is not None:
            least = min(best, float("inf") if of_batch is None else of_batch)
            progress(done, least if least < float("inf") else None)

    def judge(runs: Sequence[Run]) -> list[float]:
        return [float(result.final_loss.mean()) for result in results[-len(runs) :]]

    for runs in propose(load_search(plan.search or {}), judge):
        begin, end = len(runs_so_far), len(runs_so_far) + len(runs)
        runs_so_far += runs
        stored = [call for call in plan.calls if begin <= call.runs[0] < end]  # as it was cut when it began
        calls = [call._replace(runs=tuple(i - begin for i in call.runs)) for call in stored]
        calls = calls or plan_calls(runs, plan.seeds)
        calls_so_far += [call._replace(runs=tuple(i + begin for i in call.runs)) for call in calls]
        if not stored:
            made_by = (here() if force is None else force).made_by
            store.extend(plan._replace(runs=runs_so_far, calls=calls_so_far), made_by)
        results += measure(runs, plan.seeds, store, calls=calls, progress=report, force=force)
        best = min(best, *judge(runs))
    return results
