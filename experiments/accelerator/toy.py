"""The toy's throughput: runs of the default preset a second against how many run at once, and a sweep of 10,000.

Every batch of runs is compiled and run once before it is timed. `profile` says where a call's time goes; the least
bytes and the floating-point operations of its inner steps, from the model's shapes alone, stand against the ceilings.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.accelerator.bench import Bench, OutOfTime
from experiments.accelerator.ceilings import Ceilings, yardsticks
from experiments.accelerator.profiling import profile
from experiments.benchmark_engine import inner_flops
from toybench.config import Run

BATCHES = (1, 64, 1024, 8192, 8, 512, 4096, 256, 2048, 16, 128, 2, 4, 32)  # the telling ones first
SWEEP, PROFILED = 10_000, 1024  # runs
SEEDS = 8  # in a call; each brings data of its own
ADAMW = 28  # bytes that fp32 AdamW moves at least, a parameter and step: four numbers read, three written


def add(parser: argparse.ArgumentParser) -> None:
    """No options of its own."""


def base_run(small: bool) -> Run:
    """The default preset; for a test a shrunken one."""
    from toybench.loading import overlay
    from toybench.presets import load_preset

    shrunken = {"task.points": 512, "task.held_out": 64, "budget.rounds": 2, "budget.evaluations": 2}
    return overlay(load_preset("default"), shrunken if small else {})


def many(base: Run, count: int) -> tuple[list[Run], range]:
    """Configurations that differ in their outer rate, and seeds: `count` runs in all, a power of two."""
    from toybench.loading import overlay

    seeds = min(count, SEEDS)
    rates = [0.01 * 2 ** (4 * i / max(count // seeds, 1)) for i in range(count // seeds)]
    return [overlay(base, {"outer.lr": rate}) for rate in rates], range(seeds)


def parameters(run: Run) -> int:
    """Of the perceptron."""
    t = run.task
    return t.hidden * (t.dimension + 1) + t.classes * (t.hidden + 1)


def least_bytes(run: Run) -> float:
    """Bytes that an inner step moves at least, were nothing kept on the chip: AdamW's, and the batch."""
    return ADAMW * parameters(run) + 4 * run.task.batch * run.task.dimension


def timed(base: Run, count: int) -> dict[str, Any]:
    """Seconds of so many runs at once: the first time, with compiling, and the second."""
    from toybench.training import train

    runs, seeds = many(base, count)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        train(runs, seeds)
        seconds.append(time.perf_counter() - began)
    return {"runs": count, "first_seconds": seconds[0], "seconds": seconds[1]}


def work(base: Run, unit: Mapping[str, Any], found: Ceilings) -> dict[str, float]:
    """A batch of runs against the ceilings: shares of copying's and of matrix products' rates."""
    steps = base.budget.total_steps(base.cluster) * unit["runs"] / unit["seconds"]
    moved, done = steps * least_bytes(base), steps * inner_flops(base)
    return {
        "steps_per_second": steps,
        "bytes_per_second": moved,
        "flops_per_second": done,
        "share_of_copy": moved / found["copy"],
        "share_of_product": done / found["float32"],
    }


def swept(base: Run, lanes: int, total: int) -> dict[str, Any]:
    """Seconds of a sweep into a new store: its calls of `lanes` runs, whatever is compiled on the way counted."""
    import tempfile
    from pathlib import Path

    from toybench.loading import overlay
    from toybench.store import Call, Store
    from toybench.sweep import measure

    seeds = range(min(SEEDS, lanes))
    settings = math.ceil(total / len(seeds))
    runs = [overlay(base, {"outer.lr": 0.01 + 1e-5 * i}) for i in range(settings)]
    each = max(lanes // len(seeds), 1)
    calls = [
        Call(tuple(range(begin, min(begin + each, settings))), tuple(seeds), each) for begin in range(0, settings, each)
    ]
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "runs.sqlite") as store:
        began = time.perf_counter()
        measure(runs, seeds, store, calls=calls)
        seconds = time.perf_counter() - began
    return {"runs": settings * len(seeds), "lanes": each * len(seeds), "seconds": seconds}


def fastest(units: Mapping[str, Mapping[str, Any]]) -> tuple[int, float]:
    """The batch of most runs a second, and seconds a run in it."""
    batches = [u for name, u in units.items() if name.startswith("batch ") and "seconds" in u]
    best = min(batches, key=lambda u: u["seconds"] / u["runs"])
    return best["runs"], best["seconds"] / best["runs"]


def run(bench: Bench, options: argparse.Namespace) -> None:
    """Ceilings, the telling batches, the sweep, the profile, then the other batches."""
    from toybench.training import train

    base, batches = base_run(bench.small), BATCHES[:2] if bench.small else BATCHES
    found = yardsticks(bench)

    def batch(count: int) -> None:
        fewer = [u for n, u in bench.units.items() if n.startswith("batch ") and u.get("runs", 0) < count]
        needs = max((2 * u["first_seconds"] for u in fewer if "first_seconds" in u), default=20.0)

        def job() -> dict[str, Any]:
            unit = timed(base, count)
            return unit | work(base, unit, found)

        bench.tried(f"batch {count}", job, needs)

    for count in batches[:4]:
        batch(count)
    lanes, each = fastest(bench.units)
    total = 64 if bench.small else SWEEP
    lacking: OutOfTime | None = None
    try:
        bench.unit("sweep", lambda: swept(base, lanes, total), 1.5 * each * total)
    except OutOfTime as stopped:  # on a slow device it never fits, and the others do
        lacking = stopped
    runs, seeds = many(base, min(PROFILED, lanes))
    bench.tried("profile", lambda: profile(lambda: train(runs, seeds)), 30)
    for count in batches[4:]:
        batch(count)
    if lacking is not None:
        raise lacking


def rows(units: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """As a table."""
    timed = {u["runs"]: u for n, u in units.items() if n.startswith("batch ") and "seconds" in u}
    found = [_row(f"{count:,} runs at once", timed[count]) for count in sorted(timed)]
    if "sweep" in units:
        found.append(_row(f"sweep of {units['sweep']['runs']:,} runs into a store", units["sweep"]))
    return found + _operations(units.get("profile", {}).get("operations", ()))


def _row(name: str, unit: Mapping[str, Any]) -> dict[str, str]:
    shares = ("share_of_copy", "share_of_product")
    return {
        "what": name,
        "seconds": f"{unit['seconds']:.2f}",
        "runs/s": f"{unit['runs'] / unit['seconds']:,.1f}",
        "first call": f"{unit['first_seconds']:.1f} s" if "first_seconds" in unit else "",
        **{key.replace("_", " "): f"{unit[key]:.1%}" if key in unit else "" for key in shares},
    }


def _operations(operations: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    blank = dict.fromkeys(("runs/s", "first call", "share of copy", "share of product"), "")
    return [
        {"what": f"profile: {o['name'][:60]} x {o['count']:,}", "seconds": f"{o['seconds']:.3f}", **blank}
        for o in operations[:5]
    ]
