"""Answers to Markdown, JSON and figures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.paper.lab import Answer, Best
from toybench.records import provenance
from toybench.statistics import Interval, band

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def said(value: Interval) -> str:
    """Mean and interval, to a tenth of the larger numbers and a hundredth of the smaller."""
    digits = 1 if max(map(abs, value)) >= 10 else 2
    return f"{value.mean:+.{digits}f} [{value.low:+.{digits}f}, {value.high:+.{digits}f}]"


def section(name: str, answer: Mapping[str, Any]) -> str:
    """A question's part of the report, from its part of the record."""
    lines = [
        f"## {answer['title']}",
        "",
        "| the paper says | our number | 95 % interval | verdict |",
        "|---|---|---|---|",
    ]
    for c in answer["claims"]:
        statement = c["statement"] if c["of_the_paper"] else f"(ours) {c['statement']}"
        lines.append(f"| {statement} | {c['ours']} | {said(Interval(*c['value']))} | **{c['verdict']}** |")
    lines += ["", "| | best settings | final loss | gap (%) |", "|---|---|---|---|"]
    for row in answer["rows"]:
        settings = ", ".join(f"{k.removeprefix('outer.')} {v:g}" for k, v in row["settings"].items())
        edge = " (edge)" if row["on_edge"] and len(row["rates"]) > 1 else ""
        diverged = f" ({row['diverged']} diverged)" if row["diverged"] else ""
        gap = "" if row["gap"] is None else said(Interval(*row["gap"]))
        lines.append(f"| {row['label']} | {settings}{edge} | {np.mean(row['loss']):.4f}{diverged} | {gap} |")
    lines += ["", *(f"{note}\n" for note in answer["notes"]), f"![{answer['title']}]({name}.png)", ""]
    return "\n".join(lines)


def markdown(answers: Mapping[str, Mapping[str, Any]], head: str) -> str:
    """The whole report: a tally, then every question."""
    claims = [claim for answer in answers.values() for claim in answer["claims"] if claim["of_the_paper"]]
    tally = {verdict: sum(c["verdict"] == verdict for c in claims) for verdict in ("agrees", "disagrees", "undecided")}
    count = ", ".join(f"{number} {verdict}" for verdict, number in tally.items())
    parts = ["# The paper's study on the toy", "", head, "", f"{len(claims)} statements of the paper: {count}.", ""]
    return "\n".join([*parts, *(section(name, answer) for name, answer in answers.items())])


def document(answers: Mapping[str, Answer]) -> dict[str, Any]:
    """The answers as JSON, each with who made it."""
    return {
        name: {
            "title": answer.title,
            "claims": [c._asdict() | {"verdict": c.verdict} for c in answer.claims],
            "rows": [
                {"label": label, "settings": b.tuning.changes, "on_edge": b.tuning.on_edge, "loss": b.loss, "gap": gap}
                | {"rates": b.tuning.rates, "tuning_losses": b.tuning.losses, "runoff": b.tuning.runoff}
                | {"diverged": int(b.curves.diverged.sum())}
                for label, b, gap in answer.rows
            ],
            "notes": answer.notes,
            "provenance": provenance(),
        }
        for name, answer in answers.items()
    }


def figure(answer: Answer) -> bytes:
    """The gaps with their intervals, the curves, or the losses against a setting, as PNG."""
    drawn = _curves(answer) if answer.curves else _lines(*answer.against) if answer.against else _gaps(answer)
    if answer.curves or answer.against:
        drawn.suptitle(answer.title, fontsize=10)
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _gaps(answer: Answer) -> Figure:
    rows = [(label, gap) for label, _, gap in answer.rows if gap is not None]
    drawn = Figure(figsize=(7, 1.2 + 0.26 * len(rows)), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.subplots()
    for i, (_, gap) in enumerate(rows):
        colour = COLOURS[0] if gap.low > 0 else COLOURS[2] if gap.high < 0 else "#777777"
        axes.errorbar(gap.mean, i, xerr=[[gap.mean - gap.low], [gap.high - gap.mean]], fmt="o", color=colour, capsize=2)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("final loss above the reference (%), 95 % interval", fontsize=8)
    axes.set_title(answer.title, fontsize=10)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return drawn


def _curves(answer: Answer) -> Figure:
    drawn = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(drawn)
    for axes, against, label in zip(
        drawn.subplots(1, 2, sharey=True), ("local_steps", "time"), ("local steps", "simulated time (s)")
    ):
        rows = [(name, best.curves) for name, best, _ in answer.rows if name in answer.curves]
        for colour, (name, curves) in zip(COLOURS, rows):
            x, loss = getattr(curves, against).mean(0), curves.metrics["loss"]
            axes.plot(x, loss.mean(0), color=colour, label=name)
            axes.fill_between(
                x, loss.mean(0) - loss.std(0), loss.mean(0) + loss.std(0), color=colour, alpha=0.15, linewidth=0
            )
        axes.set_xlabel(label)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    drawn.axes[0].set_ylabel("held-out loss (nats), ± 1 s.d.")
    drawn.axes[0].legend(frameon=False, fontsize=8)
    return drawn


def _lines(setting: str, methods: Mapping[str, Mapping[float, Best]]) -> Figure:
    drawn = Figure(figsize=(7, 3.8), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.subplots()
    for colour, (name, found) in zip(COLOURS, methods.items()):
        mean, low, high = band(np.stack([best.loss for best in found.values()], axis=1))
        axes.plot([*found], mean, color=colour, marker="o", markersize=3.5, label=name)
        axes.fill_between([*found], low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel(setting)
    axes.set_ylabel("final held-out loss (nats), 95 % interval")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return drawn
