"""The published toy at its full 65,000 hidden units: its curves and grids, its time, and an eager PyTorch loop's.

What is published of it are the losses that the notebook printed and grids read off its plots; ours are means over
three seeds with t-intervals, since its seed draws other data here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.accelerator.bench import Bench
from experiments.accelerator.ceilings import ceilings, yardsticks
from experiments.accelerator.toy import ADAMW, parameters
from toybench.config import Run
from toybench.statistics import interval
from toybench.study import ASYNC, SYNC

SEEDS = (200, 201, 202)
HEAVY_BALL, PLAIN = {"outer.method": "momentum"}, {"outer.method": "sgd"}
# arXiv 2401.09135's notebook: what it printed of async heavy ball, rate 0.07, 100 rounds, every 800 local steps.
PRINTED = (1.392, 1.305, 1.266, 1.231, 1.202, 1.215, 1.173, 1.141, 1.124, 1.117, 1.125)


@dataclass(frozen=True)
class Arm:
    """One of the notebook's runs.

    Args:
        sync: with a barrier, and every pseudo-gradient at its full weight.
        momentum: heavy ball of 0.9 outside, else plain SGD.
        lr: the outer rate.
        rounds: 20 local steps of four workers each.
        published: final loss read off its plots, if there is one.
    """

    sync: bool
    momentum: bool
    lr: float
    rounds: int
    published: float | None = None

    @property
    def name(self) -> str:
        kind = "heavy ball" if self.momentum else "SGD"
        return f"{'sync' if self.sync else 'async'} {kind} {self.lr:g}, {self.rounds} rounds"

    def run(self, base: Run) -> Run:
        """As a configuration; 100 evaluations, so that the printed curve's points are among them."""
        from toybench.loading import overlay

        method = HEAVY_BALL if self.momentum else PLAIN
        scale = {"outer.scale": "1" if self.sync else "1/sqrt(k)"}
        budget = {"budget.rounds": self.rounds, "budget.evaluations": min(100, self.rounds)}
        return overlay(base, {**(SYNC if self.sync else ASYNC), **method, **scale, **budget, "outer.lr": self.lr})


HEADLINES = (
    Arm(False, True, 0.07, 100, 1.125),
    Arm(True, True, 0.7, 100, 1.077),
    Arm(True, True, 0.7, 400, 0.13),
    Arm(False, True, 0.07, 400, 0.24),
    Arm(True, False, 0.7, 400, 0.66),
    Arm(False, False, 0.7, 400, 0.25),
)
SYNC_GRID = {0.1: 1.14, 0.3: 1.085, 0.5: 1.058, 0.9: 1.17}
ASYNC_GRID = {0.05: 1.13, 0.1: 1.24, 0.2: 1.15}
GRIDS = (
    *(Arm(True, True, lr, 100, loss) for lr, loss in SYNC_GRID.items()),
    *(Arm(False, True, lr, 100, loss) for lr, loss in ASYNC_GRID.items()),
)


def add(parser: argparse.ArgumentParser) -> None:
    text = "visits of the eager PyTorch loop that are timed; 0: none (default 8)"
    parser.add_argument("--eager-visits", type=int, default=8, metavar="N", help=text)


def base_run(small: bool) -> Run:
    """The notebook's preset; for a test a shrunken one."""
    from toybench.loading import overlay
    from toybench.presets import load_preset

    shrunken = {"task.points": 512, "task.held_out": 64, "task.dimension": 16, "task.hidden": 64}
    return overlay(load_preset("notebook"), shrunken if small else {})


def trained(base: Run, arm: Arm, seed: int) -> dict[str, Any]:
    """One run: its curve, and seconds."""
    from toybench.training import train

    began = time.perf_counter()
    [result] = train(arm.run(base), [seed])
    return {
        "local_steps": result.local_steps[0],
        "time": result.time[0],
        "loss": result.metrics["loss"][0],
        "accuracy": result.metrics["accuracy"][0],
        "seconds": time.perf_counter() - began,
        "steps": int(result.timelines[0].local_steps[-1]),
        "parameters": parameters(base),
    }


def steps_timed(base: Run, rounds: int) -> dict[str, Any]:
    """Seconds of an inner step, from two lengths of the same compiled program: their difference is steps alone."""
    from toybench.loading import overlay
    from toybench.training import train

    def seconds(rounds: int) -> float:
        run = overlay(HEADLINES[0].run(base), {"budget.rounds": rounds, "budget.evaluations": 2})
        least = []
        for _ in range(3):
            began = time.perf_counter()
            train(run, [SEEDS[0]])
            least.append(time.perf_counter() - began)
        return min(least[1:])

    steps = (rounds - rounds // 2) * base.cluster.local_steps * base.cluster.workers
    return {"steps": steps, "step_seconds": (seconds(rounds) - seconds(rounds // 2)) / steps}


class GivenGradient:
    """A task whose gradient is its batch: of its local steps nothing is left but the inner optimizer."""

    def loss(self, params: Any, batch: Any) -> Any:
        import jax
        import jax.numpy as jnp

        return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, params, batch)))


def adamw_alone(base: Run, steps: int, masked: bool = True) -> dict[str, Any]:
    """Seconds of the inner optimizer's own step in `local_update`'s loop.

    Args:
        base: whose shapes and settings.
        steps: the difference of the two lengths that are timed.
        masked: as the engine calls it, for visits of several lengths side by side: a step past a visit's own is undone.
    """
    import jax
    import jax.numpy as jnp

    from lm.benchmark import best_of
    from toybench.gaussians import GaussianMixture
    from toybench.inner import local_update, make_inner
    from toybench.training import inner_numbers

    inner = make_inner("adamw", inner_numbers(base))
    params = jax.jit(GaussianMixture(base.task).init)(jax.random.key(0))
    gradient = jax.tree.map(lambda leaf: 1e-3 * leaf, params)

    @jax.jit
    def stepped(params: Any, gradient: Any, steps: Any) -> Any:
        state, task = inner.transformation.init(params), GivenGradient()
        trip = steps if masked else None
        found = local_update(task, inner, params, state, lambda j: gradient, jnp.int32(0), steps, trip)  # type: ignore[arg-type]
        return found[:2]

    def seconds(count: int) -> float:
        return best_of(3, lambda: stepped(params, gradient, jnp.int32(count)))

    return {"steps": steps, "masked": masked, "adamw_seconds": (seconds(2 * steps) - seconds(steps)) / steps}


def eager(visits: int, base: Run) -> dict[str, Any]:
    """What `experiments.eager` prints, in a process of its own, so that two libraries share no device memory."""
    shape = ["--hidden", str(base.task.hidden), "--points", str(base.task.points)]
    command = [sys.executable, "-m", "experiments.eager", "--visits", str(visits), *shape]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:300]
        return {"failed": reason}
    return json.loads(done.stdout.strip().splitlines()[-1])


def run(bench: Bench, options: argparse.Namespace) -> None:
    """The time first, then the headline runs on one seed, then their other seeds, then the grids."""
    base = base_run(bench.small)
    if options.eager_visits > 0:  # it needs some 3 GB of what jax leaves of a device, a quarter
        bench.tried("eager", lambda: eager(options.eager_visits, base), 20)
    yardsticks(bench)
    rounds = 8 if bench.small else 40
    step = bench.tried("step", lambda: steps_timed(base, rounds), 60)
    for name, masked in (("adamw", True), ("adamw unmasked", False)):
        bench.tried(name, lambda m=masked: adamw_alone(base, 4 if bench.small else 50, m), 20)
    short = tuple(Arm(a.sync, a.momentum, a.lr, 4) for a in HEADLINES[:2])
    headlines, grids = (short, ()) if bench.small else (HEADLINES, GRIDS)
    seeds = SEEDS[:2] if bench.small else SEEDS

    def needs(arm: Arm) -> float:
        steps = arm.rounds * base.cluster.local_steps * base.cluster.workers
        return 1.3 * steps * step.get("step_seconds", 1e-3) + 15

    for seed in seeds:
        for arm in headlines:
            bench.tried(f"{arm.name}, seed {seed}", lambda a=arm, s=seed: trained(base, a, s), needs(arm))
    for arm in grids:
        for seed in seeds:
            bench.tried(f"{arm.name}, seed {seed}", lambda a=arm, s=seed: trained(base, a, s), needs(arm))


def summary(units: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Shares of the memory-bandwidth bound of an inner step, and how many times as fast as the eager loop it is."""
    found, step, loop = ceilings(units), units.get("step", {}), units.get("eager", {})
    told: dict[str, Any] = {}
    sizes = [u["parameters"] for u in units.values() if "parameters" in u]
    if "step_seconds" in step and sizes and "copy" in found:
        told["bound_share"] = ADAMW * sizes[0] / step["step_seconds"] / found["copy"]
    for name, key in (("adamw", "adamw_share"), ("adamw unmasked", "unmasked_share")):
        seconds = units.get(name, {}).get("adamw_seconds", 0)
        if seconds > 0 and sizes and "copy" in found:  # of a test's size the difference may be noise
            told[key] = ADAMW * sizes[0] / seconds / found["copy"]
    if "step_seconds" in step and "visit_seconds" in loop:
        told["times_eager"] = loop["visit_seconds"] / (20 * step["step_seconds"])
    return told


SAID = {
    "bound_share": "inner step: share of AdamW's memory bound",
    "adamw_share": "AdamW alone: share of the same bound",
    "unmasked_share": "AdamW alone without the mask: the same",
    "times_eager": "inner steps as fast as eager PyTorch's",
}


def rows(units: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """As a table: every arm's final loss beside the published one, then the times."""
    by_arm: dict[str, list[Mapping[str, Any]]] = {}
    for name, unit in units.items():
        if "loss" in unit:
            by_arm.setdefault(name.partition(", seed")[0], []).append(unit)
    published = {arm.name: arm.published for arm in (*HEADLINES, *GRIDS)}
    found = [_row(name, runs, published.get(name)) for name, runs in by_arm.items()]
    blank = {"published": "", "printed curve": "", "s a run": ""}
    for name, value in summary(units).items():
        told = f"{value:.1f} times" if name == "times_eager" else f"{value:.0%}"
        found.append({"run": SAID[name], "final loss": told, **blank})
    if (reason := units.get("eager", {}).get("failed")) is not None:
        found.append({"run": "eager PyTorch", "final loss": f"not timed: {reason[:60]}", **blank})
    return found


def _row(name: str, runs: list[Mapping[str, Any]], published: float | None) -> dict[str, str]:
    final = np.array([run["loss"][-1] for run in runs], float)
    said = f"{final.mean():.3f}"
    if len(final) > 1:
        low, high = interval(final)[1:]
        said += f" [{low:.3f}, {high:.3f}]"
    return {
        "run": f"{name} ({len(runs)} seeds)",
        "final loss": said,
        "published": "" if published is None else f"{published:g}",
        "printed curve": _beside_printed(name, runs),
        "s a run": f"{min(run['seconds'] for run in runs):.1f}",
    }


def _beside_printed(name: str, runs: list[Mapping[str, Any]]) -> str:
    """The largest distance of the mean curve from what the notebook printed, where it printed one."""
    if name != HEADLINES[0].name:
        return ""
    curve = np.mean([run["loss"] for run in runs], axis=0)
    steps = np.mean([run["local_steps"] for run in runs], axis=0)
    ours = np.interp(800.0 * np.arange(len(PRINTED)), steps, curve)
    return f"within {np.abs(ours - PRINTED).max():.3f}"
