"""Two contests side by side: gap against gap, and how the order changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toybench.plots.style import SIZES, Size, panels

GOOD, BAD, GREY = "#0072B2", "#D55E00", "#777777"


def draw(document: Mapping[str, Any], size: Size = SIZES["screen"]) -> Figure:
    """The document of `toybench.compare.compare`: a method's gap on both sides, and its rank from one to the other."""
    rows = document["rows"]
    height = max(3.4, 0.27 * len(rows) + 1.2)
    figure, (gaps, ranks) = panels(size, 2, [height, height])
    _gaps(gaps, document)
    _ranks(ranks, document)
    found = document["agreement"]
    said = f"Kendall's tau {found.tau:+.2f} [{found.low:+.2f}, {found.high:+.2f}], p = {found.chance:.2g}"
    figure.suptitle(f"{said}, {len(rows)} methods", fontsize=size.font)
    return figure


def _gaps(axes: Axes, document: Mapping[str, Any]) -> None:
    first, second = document["titles"]
    for i, row in enumerate(document["rows"]):
        (x, x_low, x_high), (y, y_low, y_high) = row["gap"]
        axes.plot([x, x], [y_low, y_high], color=GREY, linewidth=0.8, alpha=0.5, zorder=1)
        axes.plot([x_low, x_high], [y, y], color=GREY, linewidth=0.8, alpha=0.5, zorder=1)
        axes.plot(x, y, "o", color=GOOD, zorder=2)
        axes.annotate(str(i + 1), (x, y), xytext=(4, 3), textcoords="offset points", fontsize="small")
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.axvline(0, color=GREY, linewidth=0.8)
    _near(axes, document["rows"])
    axes.set_xlabel(f"{first}: gap to sync Nesterov (%)")
    axes.set_ylabel(f"{second}: gap to sync Nesterov (%)")


def _near(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Limits that show every mean; intervals of few seeds may leave the figure."""
    for side, set_limits in enumerate((axes.set_xlim, axes.set_ylim)):
        means = [row["gap"][side][0] for row in rows]
        room = 0.15 * ((max(means) - min(means)) or 1.0)
        set_limits(min(means) - room, max(means) + 1.6 * room)


def _ranks(axes: Axes, document: Mapping[str, Any]) -> None:
    rows, (first, second) = document["rows"], document["titles"]
    right = {row["name"]: place for place, row in enumerate(sorted(rows, key=lambda row: row["rank"][1][0]), 1)}
    for place, row in enumerate(rows, 1):
        there = right[row["name"]]
        axes.plot([0, 1], [place, there], color=BAD if there > place else GOOD if there < place else GREY, marker="o")
        axes.text(-0.04, place, f"{row['name']}  {place}", ha="right", va="center", fontsize="small")
        axes.text(1.04, there, f"{there}  {row['name']}", ha="left", va="center", fontsize="small")
    axes.set_ylim(len(rows) + 0.6, 0.2)
    axes.set_xlim(-1.15, 2.15)
    axes.set_xticks([0, 1], [first, second])
    for label, side in zip(axes.get_xticklabels(), ("right", "left")):  # away from each other: titles may be long
        label.set_horizontalalignment(side)
    axes.set_yticks([])
    axes.set_title("order by final loss", loc="center")
    axes.grid(False)
    axes.spines[:].set_visible(False)
