"""Rules of waiting against the number of workers: computing, goodput, staleness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from toybench.plots.style import Size, legend_of, line_style, panels, place_legend

PANELS = {
    "utilisation": "time spent on steps (%)",
    "goodput": "goodput (%)",
    "staleness_50": "staleness τ, median",
    "staleness_99": "staleness τ, 99 %",
}


def draw(rows: Sequence[Mapping[str, Any]], size: Size) -> Figure:
    """The rows of `toybench.scale`: a line a rule."""
    rules = list(dict.fromkeys(row["rule"] for row in rows))
    legend = legend_of(size, rules)
    figure, axes = panels(size, len(PANELS), [2.4] * len(PANELS), legend.height)
    for panel, (name, label) in zip(axes, PANELS.items()):
        for i, rule in enumerate(rules):
            own = [row for row in rows if row["rule"] == rule]
            scale = 1 if name.startswith("staleness") else 100
            values = [scale * row[name] for row in own]
            panel.plot([row["workers"] for row in own], values, marker="o", **line_style(i))
        panel.set_xscale("log")
        panel.set(xlabel="workers", ylabel=label)
        if name.startswith("staleness"):
            panel.set_yscale("symlog", linthresh=1)
            panel.set_ylim(-0.3, 3 * max(1, *(row[name] for row in rows)))
        else:
            panel.set_ylim(0, 108)
    place_legend(figure, axes[0].lines, legend)
    return figure
