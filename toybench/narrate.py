"""What just happened, in plain words."""

from __future__ import annotations

import numpy as np

from toybench.config import Run
from toybench.curves import Curves
from toybench.outer import method_of
from toybench.statistics import Interval, decide, interval, relative_gap
from toybench.study import times_to
from toybench.timeline import Timeline

NAMES = {
    "sgd": "SGD",
    "momentum": "heavy ball",
    "nesterov": "Nesterov",
    "adam": "Adam",
    "adamw": "AdamW",
    "poly": "Poly",
    "poly_threshold": "PolyThres",
    "buffered": "Buffer",
    "delayed_nesterov": "DN",
    "mla": "MLA",
    "heloco": "HeLoCo",
    "fedasync": "FedAsync",
    "fedasync_hinge": "FedAsync hinge",
    "fedbuff": "FedBuff",
    "ringmaster": "Ringmaster",
    "ormo": "OrMo",
    "halos": "HALoS",
}


def method_name(method: str) -> str:
    """An outer method as papers write it."""
    return NAMES.get(method, method.replace("_", " "))


def title(run: Run) -> str:
    """A configuration's name: its method, and how its cluster waits."""
    name = f"{'sync' if run.cluster.barrier else 'async'} {method_name(method_of(run.outer))}"
    return name + " + DyLU" * (run.cluster.dynamic_steps and not run.cluster.barrier)


def sentence(result: Curves, reference: Curves, timeline: Timeline) -> str:
    """How a run ended against its reference, how stale its arrivals were, and how long it took.

    Args:
        result, reference: on the same seeds.
        timeline: of the result, on one of them.
    """
    stale = timeline.staleness
    mean, most = (f"{stale.mean():.1f}", f"{stale.max()}") if len(stale) else ("0", "0")
    said = [ended(result, reference), f"mean staleness {mean}, maximum {most}", soon(result, reference)]
    return "; ".join(part for part in said if part) + "."


def ended(result: Curves, reference: Curves) -> str:
    """The final loss against the reference's."""
    who, other, seeds = title(result.run), title(reference.run), len(result.seeds)
    if result.run == reference.run:
        return f"{who} is the reference: final loss {result.final_loss.mean():.3f}"
    diverged = int(result.diverged.sum())
    if diverged == seeds:
        return f"{who} diverged" + (f" on all {seeds} seeds" if seeds > 1 else "")
    gaps = relative_gap(result.final_loss, reference.final_loss)
    gap = float(np.mean(gaps))
    size = f"{abs(gap):.0f}" if abs(gap) >= 10 else f"{abs(gap):.1f}"
    where = "level with" if size == "0.0" else f"{size} % {_side(gap)}"
    said = f"{who} ends {where} {other}"
    if seeds > 1:
        spread = interval(gaps)
        digits = 0 if abs(gap) >= 10 else 1
        said += f" ({_said(spread, digits)}{'' if _clear(spread) else ', undecided'})"
    said += f", {diverged} of {seeds} seeds diverged and count as untrained" if diverged else ""
    lost = int(reference.diverged.sum())
    return said + (f"; the reference diverged on {lost} of {seeds} seeds, which count as untrained" if lost else "")


def soon(result: Curves, reference: Curves) -> str:
    """When it reaches the reference's final loss."""
    if result.run == reference.run or result.diverged.all() or reference.diverged.any():  # no loss to reach
        return ""
    times = np.array(times_to(result, reference))
    reached = np.isfinite(times)
    if reached.all():
        ratio = float(np.mean(times / reference.time[:, -1]))
        return f"it reaches that loss in {100 * ratio:.0f} % of the simulated time"
    there = int(reached.sum())
    share = 100 * result.time[:, -1].mean() / reference.time[:, -1].mean()
    often = f"only {there} of {len(reached)} seeds reach" if there else "it never reaches"
    return f"{often} that loss, though the run takes {share:.0f} % of the simulated time"


def _side(gap: float) -> str:
    return "above" if gap > 0 else "below"


def _said(spread: Interval, digits: int) -> str:
    return f"95 % interval {spread.low:+.{digits}f} to {spread.high:+.{digits}f} %"


def _clear(spread: Interval) -> bool:
    return "holds" in (decide(spread, ">", 0), decide(spread, "<", 0))
