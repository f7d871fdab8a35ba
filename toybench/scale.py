"""What rules of waiting cost as a cluster grows: utilisation, goodput, staleness, bytes. Simulated, no training."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from toybench.clusters import sec_per_step
from toybench.config import Budget, Cluster
from toybench.records import plain, write_json, write_whole
from toybench.timeline import Played, Timeline, play

GRACE = 0.1  # of the fastest worker's visit
QUORUM = 0.5  # of the workers
PLAIN: dict[str, Any] = {"barrier": False, "coalesce": False, "quorum": 1, "grace": 0.0, "dynamic_steps": False}
RULES: dict[str, tuple[str, Callable[[Cluster], dict[str, Any]]]] = {
    "sync": ("a barrier: one outer step on everybody's mean", lambda cluster: {"barrier": True}),
    "async": ("an outer step at every arrival", lambda cluster: {}),
    "grace": (
        f"async; who arrives within {GRACE:g} of the fastest visit restarts together",
        lambda cluster: {"grace": GRACE * cluster.local_steps * min(cluster.sec_per_step)},
    ),
    "quorum": (
        f"one outer step on the first {QUORUM:g} of the workers; the others arrive later",
        lambda cluster: {"quorum": math.ceil(QUORUM * cluster.workers), "coalesce": True},
    ),
    "dylu": ("async; local steps in proportion to speed", lambda cluster: {"dynamic_steps": True}),
}
QUANTILES = (0.5, 0.9, 0.99)
COLUMNS = {  # of a row: what it is
    "workers": "k",
    "rule": "",
    "arrivals": "in the window",
    "seconds": "of simulated time in the window",
    "utilisation": "share of all workers' seconds, of those who are down too, in which a local step was being made",
    "goodput": "local steps that arrived, of those that all workers would have made, always up and computing",
    "lost": "visits that failed, of all that ended",
    "staleness_mean": "versions",
    **{f"staleness_{100 * q:g}": f"versions, {q:g} quantile" for q in QUANTILES},
    "staleness_max": "versions",
    "sent": "bytes/s from the server",
    "received": "bytes/s at the server",
}


def cluster_of(base: Cluster, workers: int, heterogeneity: str, rule: str) -> Cluster:
    """A cluster of so many workers under a rule, the rest as in `base`; as many shards as workers."""
    speeds = tuple(sec_per_step(workers, heterogeneity))
    own = replace(base, sec_per_step=speeds, shards=workers, **PLAIN)
    return replace(own, **RULES[rule][1](own))


def window(timeline: Timeline) -> tuple[int, float, float]:
    """The part of a run that is measured: from the first outer step in its second half on, all if there is none.

    Visits that were under way at its beginning count in full when they arrive, those under way at its end do not: one
    makes up for the other.

    Returns:
        Its first arrival, and the simulated seconds of its beginning and its end.
    """
    steps = np.flatnonzero(timeline.step[:-1])
    begin = np.searchsorted(steps, len(timeline.time) // 2)
    if begin == len(steps):
        return 0, 0.0, float(timeline.time[-1])
    return int(steps[begin]) + 1, float(timeline.time[steps[begin]]), float(timeline.time[-1])


def measure(cluster: Cluster, played: Played) -> dict[str, float]:
    """A row of the table, by the names of `COLUMNS`."""
    timeline, seconds = played.timeline, np.array(cluster.sec_per_step)
    first, begin, end = window(timeline)
    lasted = end - begin
    begun, ended, worker, steps = _visits(played, end)
    computing = begun + np.array(cluster.transfer)[worker, 0]
    computed = np.clip(np.minimum(computing + steps * seconds[worker], ended), begin, None) - np.clip(
        computing, begin, end
    )
    staleness = timeline.staleness[first:]
    lost = sum(finish > begin for _, finish, _ in played.lost)
    pulls = np.count_nonzero((begun >= begin) & (begun < end))
    return {
        "arrivals": len(staleness),
        "seconds": lasted,
        "utilisation": np.maximum(computed, 0).sum() / (cluster.workers * lasted),
        "goodput": timeline.num_steps[first:].sum() / (lasted * (1 / seconds).sum()),
        "lost": lost / (lost + len(staleness)),
        "staleness_mean": staleness.mean(),
        **{f"staleness_{100 * q:g}": np.quantile(staleness, q) for q in QUANTILES},
        "staleness_max": staleness.max(),
        "sent": pulls * (cluster.pull_bytes or 0.0) / lasted,
        "received": len(staleness) * (cluster.push_bytes or 0.0) / lasted,
    }


def _visits(played: Played, end: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All visits, arrived, lost and under way: when they began and ended, in seconds, worker, steps; each [visits]."""
    timeline = played.timeline
    rest = [(start, finish, visit.worker, visit.num_steps) for start, finish, visit in played.lost]
    rest += [(start, end, visit.worker, visit.num_steps) for start, visit in played.running]
    others = np.array(rest).reshape(-1, 4).T
    arrived = timeline.start, timeline.time, timeline.worker, timeline.num_steps
    begun, ended, worker, steps = (np.concatenate(pair) for pair in zip(arrived, others))
    return begun, ended, worker.astype(int), steps


def rows(
    base: Cluster, budget: Budget, seed: int, sizes: Sequence[int], rules: Sequence[str], heterogeneity: str
) -> Iterator[dict[str, Any]]:
    """A row for each size and rule, as they are simulated.

    Raises:
        ConfigError: a cluster that cannot be.
    """
    for workers in sizes:
        for rule in rules:
            cluster = cluster_of(base, workers, heterogeneity, rule)
            yield {"workers": workers, "rule": rule, **plain(measure(cluster, play(cluster, budget, seed)))}


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row in words, by `HEADINGS`."""
    stale = [row["staleness_mean"], *(row[f"staleness_{100 * q:g}"] for q in QUANTILES), row["staleness_max"]]
    shares = (f"{100 * row[name]:.1f} %" for name in ("utilisation", "goodput", "lost"))
    traffic = (f"{row[name] / 1e6:,.4g}" for name in ("sent", "received"))
    return [f"{row['workers']:,}", row["rule"], *shares, *(f"{number:,.1f}" for number in stale), *traffic]


HEADINGS = (
    *("workers", "rule", "utilisation", "goodput", "lost visits", "staleness mean"),
    *(f"{100 * q:g} %" for q in QUANTILES),
    *("max", "sent (MB/s)", "received (MB/s)"),
)


def markdown(document: Mapping[str, Any]) -> str:
    """The table, what its columns mean, and the command that makes it again."""
    lines = ["# Scale", "", f"`{document['command']}`", ""]
    lines += [f"- {rule}: {RULES[rule][0]}" for rule in dict.fromkeys(row["rule"] for row in document["rows"])]
    lines += [f"- {name}: {COLUMNS[name]}" for name in ("utilisation", "goodput")]
    lines += [
        "- Measured from the first outer step in the second half of the arrivals to the end.",
        "- Staleness counts versions: with a barrier and a quorum one a group.",
        "",
        f"| {' | '.join(HEADINGS)} |",
        "|" + "---|" * len(HEADINGS),
        *(f"| {' | '.join(cells(row))} |" for row in document["rows"]),
        "",
    ]
    return "\n".join(lines)


def save(document: Mapping[str, Any], out: Path) -> None:
    """``scale.json``, ``.md``, ``.csv`` and ``.png`` in a folder."""
    from toybench.plots.scale import draw
    from toybench.plots.style import SIZES, rendered, styled

    text = io.StringIO()
    table = csv.DictWriter(text, [*COLUMNS], lineterminator="\n")
    table.writeheader()
    table.writerows(document["rows"])
    write_json(out / "scale.json", document)
    write_whole(out / "scale.md", markdown(document))
    write_whole(out / "scale.csv", text.getvalue())
    with styled(SIZES["screen"]):
        write_whole(out / "scale.png", rendered(draw(document["rows"], SIZES["screen"]), out / "scale.png"))
