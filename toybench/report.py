"""Results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from toybench.loading import dump_run
from toybench.outer import MARKS, METHODS, outer_numbers

if TYPE_CHECKING:  # so that a table of records loads no jax
    from toybench.config import Cluster, Run
    from toybench.demo import Row
    from toybench.study import Finding
    from toybench.timeline import Played, Timeline
    from toybench.training import Result

VERDICT_STYLES = {"holds": "green", "does not hold": "red", "undecided": "yellow"}


def per_cent(share: float) -> str:
    """A share in whole per cent, without the sign of a zero."""
    text = f"{100 * share:.0f} %"
    return "0 %" if text == "-0 %" else text


def demo_table(rows: Sequence[Row], seeds: int) -> Table:
    """Method, outer rate, final loss, gap, simulated time, time to the reference's loss."""
    caption = (
        f"means over {seeds} seeds, ± and [ ] 95 % t-intervals, gaps paired by seed; time to sync's loss: simulated "
        "time until the final loss of sync Nesterov, over the seeds that reach it"
    )
    table = Table(caption=caption, caption_justify="left")
    table.add_column("method")
    for name in ("outer rate", "final loss", "gap to sync Nesterov", "simulated time", "time to sync's loss"):
        table.add_column(name, justify="right")
    for row in rows:
        half = (row.loss.high - row.loss.low) / 2
        gap = "" if row.gap is None else f"{row.gap.mean:+.1f} % [{row.gap.low:+.1f}, {row.gap.high:+.1f}]"
        if row.time_to_reference is None:
            reach = "never"
        else:
            reach = f"{row.time_to_reference:,.0f} s" + ("" if row.reached == seeds else f" ({row.reached}/{seeds})")
        loss = f"{row.loss.mean:.3f} ± {half:.3f}" + (f" ({row.diverged} diverged)" if row.diverged else "")
        table.add_row(row.title, f"{row.lr:.3g}", loss, escape(gap), f"{row.simulated_time:,.0f} s", reach)
    return table


def findings_table(findings: Sequence[Finding]) -> Table:
    """Statement, verdict, and the numbers that decide it."""
    rule = (
        "holds: the whole 95 % interval satisfies it; does not hold: none of it; else (F5, F6: or without F1) undecided"
    )
    table = Table(caption=rule, caption_justify="left")
    table.add_column("")
    table.add_column("finding")
    table.add_column("verdict")
    table.add_column("interval", justify="right")
    for finding in findings:
        parts = finding.numbers["intervals"]
        won = finding.numbers.get("won_back", {})
        digits = 1 if "%" in finding.statement else 2
        lines = []
        for name, (mean, low, high) in parts.items():
            text = f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
            back = f" ({per_cent(won[name])} won back)" if name in won else ""
            lines.append((f"{name}: " if len(parts) > 1 else "") + text + back)
        if finding.numbers.get("reached", 0) < finding.numbers.get("seeds", 0):
            lines.append(
                f"reached by {finding.numbers['reached']} of {finding.numbers['seeds']}; the others count as 1"
            )
        style = VERDICT_STYLES[finding.status]
        table.add_row(finding.id, finding.statement, f"[{style}]{finding.status}[/]", escape("\n".join(lines)))
    return table


def sweep_table(rows: Sequence[dict[str, Any]], seeds: int) -> Table:
    """Settings of a sweep, with their mean final loss."""
    table = Table(caption=f"means over {seeds} seeds, [ ] 95 % t-intervals", caption_justify="left")
    keys = list(dict.fromkeys(key for row in rows for key in row["settings"]))
    for name in (*keys, "final loss", "95 % interval", "diverged"):
        table.add_column(name, justify="right")
    for row in rows:
        values = [row["settings"].get(key, "") for key in keys]
        values = [" ".join(map(str, value)) if isinstance(value, list) else str(value) for value in values]
        low_high = "" if row["interval"] is None else "[{:.4f}, {:.4f}]".format(*row["interval"])
        table.add_row(*values, f"{row['loss']:.4f}", escape(low_high), str(row["diverged"] or ""))
    return table


def leaderboard_table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    """A contest: rank, method, rate, loss, gap with its verdict, time."""
    caption = (
        "gap to sync Nesterov with its 95 % interval; the verdict is on one corrected for the number of comparisons; "
        "time: to sync Nesterov's final loss, as a share of its time, 1 where it is never reached"
    )
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for name in ("rank", "method", "best settings", "final loss", "gap (%)", "verdict", "time"):
        table.add_column(name, justify="left" if name in ("method", "best settings", "verdict") else "right")
    for row in rows:
        rank, low, high = row["rank"]
        settings = ", ".join(f"{key.removeprefix('outer.')} {words(value)}" for key, value in row["settings"].items())
        diverged = f" ({row['diverged']} diverged)" if row["diverged"] else ""
        table.add_row(
            escape(f"{rank:g} [{low:g}, {high:g}]"),
            row["name"],
            settings + (" (edge)" if row["on_edge"] else ""),
            f"{row['loss'][0]:.4f}{diverged}",
            escape("{:+.1f} [{:+.1f}, {:+.1f}]".format(*row["gap"])),
            row["verdict"],
            f"{row['time_ratio'][0]:.2f}",
        )
    return table


def compare_table(document: Mapping[str, Any]) -> Table:
    """Methods of two contests: gap and rank on each."""
    from toybench.compare import rank_words

    first, second = document["titles"]
    caption = "gap to sync Nesterov with its 95 % interval over the seeds; rank by final loss, bootstrap interval"
    title = ", ".join(dict.fromkeys(document["clusters"]))
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("method")
    for name in (f"gap (%), {first}", f"gap (%), {second}", f"rank, {first}", f"rank, {second}"):
        table.add_column(name, justify="right")
    for row in document["rows"]:
        gaps = ["{:+.1f} [{:+.1f}, {:+.1f}]".format(*gap) for gap in row["gap"]]
        table.add_row(row["name"], *map(escape, gaps + rank_words(row["rank"], document["seeds"])))
    return table


def words(value: Any) -> str:
    """A setting or a number as a command line would say it."""
    if isinstance(value, list):
        return " ".join(map(words, value))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def records_table(rows: Sequence[dict[str, Any]], columns: Sequence[str], total: int) -> Table:
    """Runs of a store, some of `total`, with some of their settings or metrics."""
    caption = f"{len(rows):,} of {total:,} runs" + ("; --limit N shows more" if len(rows) < total else "")
    table = Table(caption=caption, caption_justify="left")
    for name in ("run", *columns, "seed", "final loss", "", "simulated time", "made"):
        table.add_column(name, justify="right")
    for row in rows:
        loss = "" if row["loss"] is None else f"{row['loss']:.4f}"
        mark = "[red]diverged[/]" if row["diverged"] else ""
        values = [escape(words(row[name])) for name in columns]
        when = row["created"][:16].replace("T", " ")
        table.add_row(str(row["run"]), *values, str(row["seed"]), loss, mark, f"{row['simulated_time']:,.0f} s", when)
    return table


def sweeps_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Sweeps of a store: name, date, runs wanted and there."""
    table = Table()
    for name in ("sweep", "begun", "runs wanted", "there"):
        table.add_column(name, justify="left" if name == "sweep" else "right")
    for row in rows:
        when = row["created"][:16].replace("T", " ")
        table.add_row(escape(row["sweep"]), when, f"{row['runs']:,}", f"{row['done']:,}")
    return table


def run_table(result: Result) -> Table:
    """A line a seed: final metrics and staleness."""
    table = Table()
    names = list(result.metrics)
    for name in ("seed", *(f"final {name}" for name in names), "simulated time", "staleness mean / max", ""):
        table.add_column(name, justify="right")
    for s, (seed, timeline) in enumerate(zip(result.seeds, result.timelines)):
        finals = [f"{result.metrics[name][s, -1]:.4f}" for name in names]
        stale = f"{timeline.staleness.mean():.2f} / {timeline.staleness.max()}"
        mark = "[red]diverged[/]" if result.diverged[s] else ""
        table.add_row(str(seed), *finals, f"{timeline.time[-1]:,.1f} s", stale, mark)
    return table


def timeline_table(timeline: Timeline, limit: int) -> Table:
    """The first arrivals, in server order."""
    table = Table()
    for name in ("time (s)", "worker", "shard", "steps", "first step", "staleness", "local steps so far"):
        table.add_column(name, justify="right")
    numbers = (timeline.worker, timeline.shard, timeline.num_steps, timeline.first_step)
    columns = [column[:limit] for column in (*numbers, timeline.staleness, timeline.local_steps)]
    for time, *row in zip(timeline.time[:limit], *columns):
        table.add_row(f"{time:.2f}", *map(str, row))
    return table


def timeline_summary(timeline: Timeline, cluster: Cluster) -> str:
    """Arrivals, time, staleness and the share of all workers' time that went into arrived steps, in a line."""
    staleness, seconds = timeline.staleness, np.array(cluster.sec_per_step)
    share = (timeline.num_steps * seconds[timeline.worker]).sum() / (cluster.workers * timeline.time[-1])
    return (
        f"{len(timeline.time):,} arrivals, {timeline.local_steps[-1]:,} local steps in {timeline.time[-1]:,.1f} "
        f"simulated seconds; staleness mean {staleness.mean():.2f}, maximum {staleness.max()}; "
        f"workers busy {100 * share:.0f} %"
    )


def departures_table(departures: Sequence[Mapping[str, Any]]) -> Table:
    """A real run's figures beside those that the cluster model predicts with the workers' measured speeds."""
    table = Table()
    for name in ("", "real", "predicted"):
        table.add_column(name, justify="right" if name else "left")
    for one in departures:
        table.add_row(escape(one["name"]), *(f"{one[side]:,.6g}" for side in ("real", "predicted")))
    return table


def lost_summary(played: Played) -> list[str]:
    """What failures took, in a line, if there were any."""
    if not played.lost:
        return []
    return [f"{len(played.lost):,} visits of {played.lost_steps:,} local steps lost to failures, and given out again"]


def scale_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line a size and rule."""
    from toybench.scale import HEADINGS, cells

    table = Table()
    for name in HEADINGS:
        table.add_column(name, justify="left" if name == "rule" else "right")
    for row in rows:
        table.add_row(*cells(row))
    return table


def methods_table() -> Table:
    """Every outer method: formula, defaults, source, and how the source was read."""
    table = Table(caption="; ".join(f"{mark}: {meaning}" for mark, meaning in MARKS.items()), caption_justify="left")
    for name in ("method", "update", "defaults (k = 4)", "source", "mark"):
        table.add_column(name, overflow="fold")
    for name, method in METHODS.items():
        defaults = ", ".join(f"{key} {value:g}" for key, value in outer_numbers(method.settings(), 4).items())
        table.add_row(name, escape(method.formula), defaults, method.source, method.mark)
    return table


def settings_line(run: Run) -> str:
    """The outer and inner optimizer as resolved: what a method left out takes its own defaults."""
    tables = dump_run(run)

    def said(section: str, tag: str) -> str:
        table = dict(tables[section])
        return f"{section} {table.pop(tag)}: " + ", ".join(f"{key} {value}" for key, value in table.items())

    return escape(f"{said('outer', 'method')}\n{said('inner', 'optimizer')}")


class Page(Console):
    """A console whose closed pipe is the caller's to answer."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def show(*items: object) -> None:
    """Print tables and lines; a plain wide page where there is no terminal."""
    console = Page(highlight=False)
    if not console.is_terminal:
        console = Page(highlight=False, width=150)
    for item in items:
        console.print(item)


def mean_and_spread(values: np.ndarray) -> str:
    """Mean ± standard deviation over seeds [S]."""
    return f"{values.mean():.4f} ± {values.std(ddof=1) if len(values) > 1 else 0:.4f}"
