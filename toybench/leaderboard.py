"""Outer methods side by side, each at its own best settings, on clusters of all kinds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toybench.clusters import CLUSTERS
from toybench.config import Run
from toybench.curves import Curves
from toybench.loading import overlay
from toybench.outer import METHODS
from toybench.records import plain, write_json, write_whole
from toybench.statistics import Interval, decide, interval, rank_intervals, relative_gap
from toybench.study import ASYNC, DYLU, SYNC, time_ratio, vary
from toybench.tuning import Make, Measure, Tuning, most_runs, run_off, scout, tune_each

REFERENCE = "sync nesterov"
CONTROL = "control"
TOGETHER = {"cluster.coalesce": True}

# What is tuned beside the outer rate, the published default among it; every other setting stays at that default.
ALSO: dict[str, tuple[dict[str, Any], ...]] = {
    "delay_compensation": tuple({"outer.strength": s} for s in (0.04, 1e3)),
    "fedasync": tuple({"outer.exponent": a} for a in (0.0, 0.5)),
    "fedbuff": tuple({"outer.buffer_size": n} for n in (4, 10)),
    "ringmaster": tuple({"outer.delay_threshold": r} for r in (4, 8, 64)),
    "restarted_nesterov": tuple({"outer.restart_period": s} for s in (4, 16)),
    "halos": (  # its periods are meant for runs far longer than the toy's
        {},
        *(
            {"outer.merge_every": merge, "outer.local_period": 4, "outer.local_lr": lr}
            for merge in (8, 32)
            for lr in (0.3, 1.0)
        ),
    ),
}


class Contestant(NamedTuple):
    """A method in a kind of cluster, and what is tuned of it beside its outer rate."""

    changes: dict[str, Any]
    also: tuple[dict[str, Any], ...] = ({},)


def contestant(method: str, rules: Mapping[str, Any]) -> Contestant:
    """A method under some rules of the cluster."""
    return Contestant({**rules, "outer.method": method}, ALSO.get(method, ({},)))


def contestants() -> dict[str, Contestant]:
    """Everybody: synchronous references, every method asynchronously, some with DyLU, and groups that step together."""
    found = {REFERENCE: contestant("nesterov", SYNC), "sync sgd": contestant("sgd", SYNC)}
    found["sync nesterov + DyLU"] = contestant("nesterov", SYNC | {"cluster.dynamic_steps": True})
    found |= {method: contestant(method, ASYNC) for method in METHODS}
    with_dylu = ("nesterov", "sgd", "delayed_nesterov", "buffered", "mla", "heloco", "ormo")
    found |= {f"{method} + DyLU": contestant(method, DYLU) for method in with_dylu}
    found["nesterov, coalesced"] = contestant("nesterov", ASYNC | TOGETHER)
    found["nesterov, coalesced + DyLU"] = contestant("nesterov", DYLU | TOGETHER)
    found["nesterov, quorum 2"] = contestant("nesterov", ASYNC | TOGETHER | {"cluster.quorum": 2})
    return found


class Entry(NamedTuple):
    """A contestant at its best settings on some cluster."""

    name: str
    tuning: Tuning
    curves: Curves  # on the reported seeds


class Seeds(NamedTuple):
    """Which runs decide what; no seed is in two of them."""

    tuning: Sequence[int]  # rates are tried on these
    runoff: Sequence[int]  # the best few also on these
    reported: Sequence[int]


Search = Callable[[Make, Contestant, Seeds, Measure], Tuning]  # for a contestant's best settings


def densely(make: Make, who: Contestant, seeds: Seeds, measure: Measure) -> Tuning:
    """Where runs are cheap: every rate of a dense range at each of the other settings, and a runoff of the best."""
    rates = scout(make, seeds.tuning, measure)
    return run_off(make, tune_each(make, rates, seeds.tuning, measure, who.also), seeds.runoff, measure)


def enter(base: Run, name: str, who: Contestant, seeds: Seeds, measure: Measure, search: Search = densely) -> Entry:
    """Tune a contestant on some seeds, and run it on others."""

    def make(tuned: Mapping[str, Any]) -> Run:
        return vary(base, {**who.changes, **tuned})

    tuning = search(make, who, seeds, measure)
    [curves] = measure([make(tuning.changes)], seeds.reported)
    return Entry(name, tuning, curves)


def planned_runs(who: Contestant, seeds: Seeds) -> int:
    """The runs that `enter` may take at most."""
    return most_runs(len(seeds.tuning), len(seeds.runoff), len(who.also)) + len(seeds.reported)


def judge(entries: Mapping[str, Entry]) -> list[dict[str, Any]]:
    """The entries of one cluster compared with the reference, the least loss first.

    Each row: the gap of the final loss at equal local steps (per cent, paired), and the simulated time to the
    reference's final loss as a share of the reference's time (censored at 1), both with a 95 % t-interval and with one
    corrected for as many comparisons as there are others (Bonferroni); a verdict on the corrected gap; the rank by
    final loss, with a 95 % bootstrap interval over the seeds.
    """
    reference = entries[REFERENCE].curves
    losses = np.array([entry.curves.final_loss for entry in entries.values()])
    level = 1 - 0.05 / max(len(entries.keys() - {REFERENCE, CONTROL}), 1)
    rows = []
    for entry, rank in zip(entries.values(), rank_intervals(losses)):
        loss = entry.curves.final_loss
        gap = relative_gap(loss, reference.final_loss)
        ratio, reached = time_ratio(entry.curves, reference)
        itself = entry.name == REFERENCE
        rows.append(
            {
                "name": entry.name,
                "settings": entry.tuning.changes,
                "on_edge": entry.tuning.on_edge,
                "rates": entry.tuning.rates,
                "runoff": entry.tuning.runoff,
                "tuning_losses": np.mean(entry.tuning.losses, axis=1),
                "losses": loss,  # a seed each
                "loss": interval(loss),
                "gap": interval(gap),
                "gap_corrected": interval(gap, level),
                "verdict": "reference" if itself else verdict(interval(gap, level)),
                "time_ratio": interval(ratio),
                "time_ratio_corrected": interval(ratio, level),
                "reached": int(reached.sum()),
                "diverged": int(entry.curves.diverged.sum()),
                "simulated_time": float(entry.curves.time[:, -1].mean()),
                "rank": rank,
            }
        )
    return sorted(rows, key=lambda row: row["loss"].mean)


def control_of(entries: Mapping[str, Entry]) -> dict[str, Any] | None:
    """The negative control against the method that it is, tuned and run apart: it must come out undecided."""
    if not {"nesterov", CONTROL} <= entries.keys():
        return None
    gap = interval(relative_gap(entries[CONTROL].curves.final_loss, entries["nesterov"].curves.final_loss))
    return {"gap": gap, "verdict": verdict(gap)}


def verdict(gap: Interval) -> str:
    """Whether a gap to the reference is one at all."""
    if decide(gap, "<", 0) == "holds":
        return "better"
    return "worse" if decide(gap, ">", 0) == "holds" else "undecided"


def with_reference(who: Mapping[str, Contestant]) -> dict[str, Contestant]:
    """The contestants, and before them the reference if it is not among them."""
    return {REFERENCE: contestant("nesterov", SYNC), **who}


def check(base: Run, who: Mapping[str, Contestant]) -> None:
    """Build every configuration once, before the first run.

    Raises:
        ConfigError: one of them cannot be.
    """
    for one in who.values():
        for other in one.also:
            vary(base, {**one.changes, **other})


def hold(
    base: Run,
    who: Mapping[str, Contestant],
    seeds: Seeds,
    measure: Measure,
    say: Callable[[str], None] = lambda name: None,
    search: Search = densely,
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """A contest on the cluster of a configuration: the rows of `judge`, and what `control_of` says."""
    entries = {}
    for name, one in with_reference(who).items():
        say(name)
        entries[name] = enter(base, name, one, seeds, measure, search)
    return judge(entries), control_of(entries)


def board(
    base: Run,
    clusters: Mapping[str, tuple[str, Mapping[str, Any]]],
    who: Mapping[str, Contestant],
    seeds: Seeds,
    measure: Measure,
    say: Callable[[str], None] = lambda name: None,
    search: Search = densely,
) -> Iterator[dict[str, Any]]:
    """A contest on each of some clusters; the document so far, after each."""
    document: dict[str, Any] = {"seeds": {name: list(own) for name, own in seeds._asdict().items()}}
    document |= {"clusters": {}, "control": {}}
    for name, (_, changes) in clusters.items():
        told = lambda one, name=name: say(f"{name}: {one}")  # noqa: E731
        document["clusters"][name], control = hold(overlay(base, changes), who, seeds, measure, told, search)
        document["control"][name] = control
        yield document


def preamble(document: Mapping[str, Any]) -> str:
    """How the numbers were made and what they mean."""
    tuned, decided, reported = (document["seeds"][name] for name in Seeds._fields)
    runoff = f" the best five decided on {span(decided)} too," if decided else ""
    search = f", {document['search']}," if "search" in document else ""
    kind = "Run" if "model" in document else "Preset"
    of = ", ".join([f"{kind} `{document['preset']}`", *changes_of(document)])
    return (
        f"{of}; every method's rates tuned{search} on seeds {span(tuned)},{runoff} reported "
        f"on {span(reported)}. Gap: final loss above sync Nesterov's at equal local steps, per cent, "
        "paired by seed, 95 % t-interval. Verdict: on the interval corrected for the number of comparisons on that "
        "cluster (Bonferroni). Time: simulated time to sync Nesterov's final loss as a share of its time; 1 where it "
        "is never reached. Rank: by final loss, 95 % bootstrap interval."
    )


def changes_of(document: Mapping[str, Any]) -> list[str]:
    """What a leaderboard changes of its preset, a setting each."""
    return [f"{key} {json.dumps(value)}" for key, value in document.get("changes", {}).items()]


def markdown(document: Mapping[str, Any]) -> str:
    """The leaderboard as Markdown."""
    lines = ["# Leaderboard", "", preamble(document), ""]
    for name, rows in document["clusters"].items():
        lines += [f"## {CLUSTERS[name][0] if name in CLUSTERS else name}", ""]
        lines += [
            "| rank | method | settings | final loss | gap (%) | verdict | time | reached |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            settings = ", ".join(f"{key.removeprefix('outer.')} {value}" for key, value in row["settings"].items())
            cells = (
                f"{row['rank'][0]:g} [{row['rank'][1]:g}, {row['rank'][2]:g}]",
                row["name"],
                settings + (" (edge)" if row["on_edge"] else ""),
                f"{row['loss'][0]:.4f}" + (f" ({row['diverged']} diverged)" if row["diverged"] else ""),
                "{:+.1f} [{:+.1f}, {:+.1f}]".format(*row["gap"]),
                row["verdict"],
                "{:.2f} [{:.2f}, {:.2f}]".format(*row["time_ratio"]),
                f"{row['reached']}/{len(document['seeds']['reported'])}",
            )
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
        if control := document["control"][name]:
            said = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*control["gap"])
            lines += [f"Negative control against async Nesterov: {said} %, {control['verdict']}.", ""]
    return "\n".join(lines)


def span(seeds: Sequence[int]) -> str:
    """Seeds in words, neighbours by their ends."""
    together = list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]}-{seeds[-1]}" if together and len(seeds) > 1 else ", ".join(map(str, seeds))


def save(document: Mapping[str, Any], out: Path) -> None:
    """``leaderboard.json``, ``.md`` and ``.png`` in a folder."""
    from toybench.plots.leaderboard import leaderboard_figure

    document = plain(document)
    write_json(out / "leaderboard.json", document)
    write_whole(out / "leaderboard.md", markdown(document))
    write_whole(out / "leaderboard.png", leaderboard_figure(document["clusters"]))
