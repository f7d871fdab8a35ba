"""The demo's question: what stale momentum costs, and what repairs it, each method at its own best outer rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from toybench.config import Run
from toybench.curves import Curves
from toybench.loading import overlay
from toybench.outer import METHODS
from toybench.statistics import Interval, Relation, Status, all_of, decide, interval, relative_gap, time_to_target

ASYNC = {
    "cluster.barrier": False,
    "cluster.dynamic_steps": False,
    "cluster.coalesce": False,
    "cluster.quorum": 1,
}
SYNC = ASYNC | {"cluster.barrier": True}
DYLU = ASYNC | {"cluster.dynamic_steps": True}

# What is compared: a title, and what it changes of the preset.
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "sync_nesterov": ("sync Nesterov (DiLoCo)", SYNC | {"outer.method": "nesterov"}),
    "async_nesterov": ("async Nesterov", ASYNC | {"outer.method": "nesterov"}),
    "async_nesterov_equal": ("async Nesterov, equal speeds", ASYNC | {"outer.method": "nesterov"}),
    "sync_sgd": ("sync SGD", SYNC | {"outer.method": "sgd"}),
    "async_sgd": ("async SGD", ASYNC | {"outer.method": "sgd"}),
    "poly": ("async Poly", ASYNC | {"outer.method": "poly"}),
    "poly_threshold": ("async PolyThres", ASYNC | {"outer.method": "poly_threshold"}),
    "delay_compensation": ("async delay compensation", ASYNC | {"outer.method": "delay_compensation"}),
    "buffered": ("async Buffer", ASYNC | {"outer.method": "buffered"}),
    "delayed_nesterov": ("async DN", ASYNC | {"outer.method": "delayed_nesterov"}),
    "nesterov_dylu": ("async Nesterov + DyLU", DYLU | {"outer.method": "nesterov"}),
    "delayed_nesterov_dylu": ("async DN + DyLU", DYLU | {"outer.method": "delayed_nesterov"}),
}


def vary(base: Run, changes: Mapping[str, Any]) -> Run:
    """A configuration changed. Another outer method keeps the momentum and the scale that the base does not have by
    default, if it has such settings itself."""
    method = changes.get("outer.method")
    if method is None:
        return overlay(base, changes)
    own = {f.name for f in fields(METHODS[method].settings)}
    kept = {
        f"outer.{f.name}": getattr(base.outer, f.name)
        for f in fields(base.outer)
        if f.name in own & {"momentum", "scale"} and getattr(base.outer, f.name) != f.default
    }
    return overlay(base, kept | dict(changes))


def arm_run(base: Run, arm: str, tuned: Mapping[str, Any]) -> Run:
    """A preset turned into one of the `ARMS` at its tuned settings; equal speeds keep the mean time of a step."""
    changes = ARMS[arm][1] | dict(tuned)
    if arm.endswith("_equal"):
        seconds = base.cluster.sec_per_step
        changes["cluster.sec_per_step"] = [float(np.mean(seconds))] * len(seconds)
    return vary(base, changes)


# Tuned beside the outer rate: λ is published nowhere, and at a library's usual 0.04 it does nothing here.
ALSO_TUNED: dict[str, tuple[dict[str, float], ...]] = {
    "delay_compensation": tuple({"outer.strength": value} for value in (0.04, 10.0, 100.0, 1e3, 1e4, 1e5)),
}


# The arms that the findings F1-F8 are about: a preset was searched for their order.
SEARCHED_FOR = (
    "sync_nesterov",
    "async_nesterov",
    "async_nesterov_equal",
    "sync_sgd",
    "async_sgd",
    "poly",
    "poly_threshold",
    "delay_compensation",
    "buffered",
    "delayed_nesterov_dylu",
)


@dataclass(frozen=True)
class Finding:
    """A statement with its verdict and the numbers that decide it."""

    id: str
    statement: str
    status: Status
    numbers: dict[str, Any]


def _parts(relation: Relation, bound: float, parts: Mapping[str, Interval]) -> tuple[Status, dict[str, Any]]:
    verdicts: list[Status] = [decide(part, relation, bound) for part in parts.values()]
    return all_of(verdicts), {"relation": f"{relation} {bound:g}", "intervals": {k: list(v) for k, v in parts.items()}}


def findings(results: Mapping[str, Curves]) -> list[Finding]:
    """The eight findings, each a statement about paired 95 % intervals over the seeds of `results`, by arm."""
    loss = {arm: result.final_loss for arm, result in results.items()}
    sync, stale = loss["sync_nesterov"], loss["async_nesterov"]
    gap = {arm: interval(relative_gap(value, sync)) for arm, value in loss.items()}
    midway = (sync + stale) / 2
    gain = {"sync": loss["sync_sgd"] - sync, "async": loss["async_sgd"] - stale}
    remedies = ("poly", "poly_threshold", "delay_compensation")
    short = {arm: interval(100 * (loss[arm] - midway) / sync) for arm in remedies}
    ratio, reached = time_ratio(results["delayed_nesterov_dylu"], results["sync_nesterov"])
    won = {arm: won_back(loss[arm], stale, sync) for arm in (*remedies, "buffered")}

    gap_is_there = decide(gap["async_nesterov"], ">", 0) == "holds"

    def finding(id, statement, relation, bound, parts, **more):
        status, numbers = _parts(relation, bound, parts)
        if "won_back" in more and not gap_is_there:  # nothing to win back
            status = "undecided"
        return Finding(id, statement, status, numbers | more)

    return [
        finding("F1", "async Nesterov is worse than sync Nesterov (gap, %)", ">", 0, {"gap": gap["async_nesterov"]}),
        finding(
            "F2",
            "async SGD is no more than 1 % worse than sync SGD (gap, %)",
            "<",
            1,
            {"gap": interval(relative_gap(loss["async_sgd"], loss["sync_sgd"]))},
        ),
        finding(
            "F3",
            "the gain from SGD to Nesterov is larger synchronously (difference of gains, nats)",
            ">",
            0,
            {"difference": interval(gain["sync"] - gain["async"])},
        ),
        finding(
            "F4",
            "async Nesterov is worse than sync Nesterov with equal speeds too (gap, %)",
            ">",
            0,
            {"gap": gap["async_nesterov_equal"]},
        ),
        finding(
            "F5",
            "Poly, PolyThres and delay compensation each win back less than half of the gap (above half-way, %)",
            ">",
            0,
            short,
            won_back={arm: won[arm] for arm in remedies},
        ),
        finding(
            "F6",
            "Async Buffer wins back part of the gap (won back, % of sync)",
            ">",
            0,
            {"buffered": interval(100 * (stale - loss["buffered"]) / sync)},
            won_back={"buffered": won["buffered"]},
        ),
        finding(
            "F7",
            "DN + DyLU ends no more than 2 % above sync Nesterov (gap, %)",
            "<",
            2,
            {"gap": gap["delayed_nesterov_dylu"]},
        ),
        finding(
            "F8",
            "DN + DyLU reaches sync Nesterov's final loss in less than half of its time (ratio)",
            "<",
            0.5,
            {"ratio": interval(ratio)},
            reached=int(reached.sum()),
            seeds=len(reached),
        ),
    ]


def won_back(loss: np.ndarray, stale: np.ndarray, sync: np.ndarray) -> float:
    """The share of the gap between two losses [S] that a third wins back: 0 at `stale`, 1 at `sync`; of the means."""
    gap = stale.mean() - sync.mean()
    return float((stale.mean() - loss.mean()) / gap) if gap else float("nan")


def time_ratio(result: Curves, reference: Curves) -> tuple[np.ndarray, np.ndarray]:
    """How soon a run reaches its reference's final loss, as a share of the reference's simulated time.

    Returns:
        [S] ratios, at most 1 (the reference's full time), also where it is never reached; and [S] which were reached.
    """
    times = np.array(times_to(result, reference))
    reached = np.isfinite(times)
    return np.minimum(np.where(reached, times / reference.time[:, -1], 1.0), 1.0), reached


def times_to(result: Curves, reference: Curves) -> list[float]:
    """[S] simulated seconds until each seed's curve reaches the same seed's final loss of the reference.

    Infinite where it never does, or where the reference itself diverged.
    """
    targets = np.where(reference.diverged, -np.inf, reference.final_loss)
    return [time_to_target(*curve) for curve in zip(result.metrics["loss"], result.time, targets)]
