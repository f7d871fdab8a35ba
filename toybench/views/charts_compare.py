"""The figures of the Compare page: plain numbers in, Altair charts out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import altair as alt
import pandas as pd

from toybench.plots.curves import UNITS
from toybench.plots.lines import BANDS, COLOURS, limits_of

Layers = alt.LayerChart | alt.FacetChart
MOST_POINTS = 300  # of a line
GREY = "#8a8a8a"
VERDICTS = {"better": COLOURS[2], "undecided": GREY, "worse": COLOURS[3], "reference": COLOURS[0]}
AXES = {"local_steps": "local steps, all workers", "time": "simulated time (s)"}
LABELS = alt.Axis(ticks=False, domain=False, labelLimit=260, labelOverlap=False, labelFlush=False)
ROW = 22  # pixels of a method


def thinned(column: Sequence[float], most: int = MOST_POINTS) -> list[float]:
    """Every second, third, … point of a long line, and its last."""
    step = max(1, math.ceil((len(column) - 1) / (most - 1)))
    last = len(column) - 1
    return [float(column[i]) for i in [*range(0, last, step), last]]


def line_colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def line_dash(i: int) -> list[int]:
    return [1, 0] if i < len(COLOURS) else [6, 3]


def swatch(i: int) -> str:
    """The i-th line of `curves` as a picture for a table."""
    dash = "" if i < len(COLOURS) else " stroke-dasharray='6 3'"
    line = f"<line x1='2' y1='8' x2='38' y2='8' stroke='{line_colour(i)}' stroke-width='4'{dash}/>"
    drawing = f"<svg xmlns='http://www.w3.org/2000/svg' width='40' height='16'>{line}</svg>"
    return f"data:image/svg+xml,{quote(drawing)}"


def points(drawn: Mapping[str, Any], labels: Sequence[str], x: str) -> pd.DataFrame:
    """The lines of `plots.curves.numbers`, thinned, a row a point; no band but around the best few."""
    frames = []
    for i, (line, label) in enumerate(zip(drawn["lines"], labels)):
        banded = line["low"] is not None and i < BANDS
        columns = {"x": line[x], "mean": line["mean"]}
        columns |= {side: line[side if banded else "mean"] for side in ("low", "high")}
        thin = {name: thinned(column) for name, column in columns.items()}
        frames.append(pd.DataFrame(thin).assign(line=str(i), label=label))
    return pd.concat(frames)


def curves(drawn: Mapping[str, Any], labels: Sequence[str], x: str) -> Layers:
    """Means of `plots.curves.numbers` over the seeds, with bands of the best few."""
    metric, lines = drawn["metric"], range(len(drawn["lines"]))
    domain = [str(i) for i in lines]
    colours = alt.Scale(domain=domain, range=[line_colour(i) for i in lines])
    dashes = alt.Scale(domain=domain, range=[line_dash(i) for i in lines])
    scale = alt.Scale(domain=[float(end) for end in limits_of(dict(drawn))], zero=False, nice=False)
    base = alt.Chart(points(drawn, labels, x)).encode(
        x=alt.X("x:Q", title=AXES[x], axis=alt.Axis(grid=False)), color=alt.Color("line:N", legend=None, scale=colours)
    )
    bands = base.mark_area(opacity=0.15, clip=True).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    means = base.mark_line(strokeWidth=2.2, clip=True).encode(
        y=alt.Y("mean:Q", title=UNITS.get(metric) or metric, scale=scale),
        strokeDash=alt.StrokeDash("line:N", legend=None, scale=dashes),
        tooltip=[
            alt.Tooltip("label:N", title="configuration"),
            alt.Tooltip("x:Q", title=AXES[x], format=",.0f"),
            alt.Tooltip("mean:Q", title=metric, format=".4f"),
        ],
    )
    return alt.layer(bands, means, height=320)


def gaps(entries: Sequence[Mapping[str, Any]], reference: str) -> Layers:
    """Each method's gap with its interval, and thin the interval corrected for the number of comparisons."""
    frame = pd.DataFrame(entries)
    order = [entry["method"] for entry in entries]
    colour = alt.Color(
        "verdict:N",
        scale=alt.Scale(domain=[*VERDICTS], range=[*VERDICTS.values()]),
        legend=alt.Legend(title=None, orient="top", symbolOpacity=1),
    )
    base = alt.Chart(frame).encode(
        y=alt.Y("method:N", sort=order, title=None, axis=LABELS),
        color=colour,
        tooltip=[
            "method:N",
            alt.Tooltip("gap:Q", title="gap (%)", format="+.2f"),
            alt.Tooltip("gap_text:N", title="95 % interval"),
            alt.Tooltip("wide_text:N", title="corrected"),
            "verdict:N",
            "settings:N",
        ],
    )
    x = alt.X("wide_low:Q", title=f"final loss above {reference} (%)", axis=alt.Axis(format="+.0f"))
    thin = base.mark_rule(strokeWidth=1).encode(x=x, x2="wide_high:Q")
    thick = base.mark_rule(strokeWidth=4, opacity=0.55).encode(x=alt.X("low:Q"), x2="high:Q")
    points = base.mark_point(filled=True, size=55, opacity=1).encode(x=alt.X("gap:Q"))
    zero = (
        alt.Chart(pd.DataFrame({"x": [0.0]})).mark_rule(color=VERDICTS["reference"], strokeDash=[4, 3]).encode(x="x:Q")
    )
    return alt.layer(zero, thin, thick, points, height=ROW * len(order) + 80)


def clusters(cells: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Layers:
    """Methods by clusters, coloured by the gap, the least mean gap first; what is undecided stands in brackets."""
    reach = max((abs(cell["gap"]) for cell in cells if cell["gap"] is not None), default=0.0) or 1.0
    scale = alt.Scale(type="symlog", constant=5, scheme="redblue", reverse=True, domain=[-reach, reach])
    order = alt.EncodingSortField(field="gap", op="mean", order="ascending")
    base = alt.Chart(pd.DataFrame(cells)).encode(
        x=alt.X("cluster:N", sort=[*names], title=None, axis=alt.Axis(orient="top", labelAngle=0, labelLimit=220)),
        y=alt.Y("method:N", sort=order, title=None, axis=LABELS),
    )
    squares = base.mark_rect().encode(
        color=alt.Color("gap:Q", scale=scale, legend=None),
        tooltip=[
            "method:N",
            "cluster:N",
            alt.Tooltip("gap:Q", title="gap (%)", format="+.2f"),
            alt.Tooltip("gap_text:N", title="95 % interval"),
            "verdict:N",
        ],
    )
    light = alt.condition(f"abs(datum.gap) > {0.4 * reach}", alt.value("white"), alt.value("#222222"))
    text = base.mark_text(fontSize=12).encode(text="said:N", color=light)
    count = len({cell["method"] for cell in cells})
    return alt.layer(squares, text, height=ROW * count + 60)


def bridge(rows: Sequence[Mapping[str, Any]], titles: Sequence[str]) -> Layers:
    """Each method's gap on one side against its gap on the other; thin: intervals, where they fit."""
    frame = pd.DataFrame(rows)
    domains = []
    for side in (0, 1):
        low, high = (end(float(row[f"gap{side}"]) for row in rows) for end in (min, max))
        room = 0.2 * ((high - low) or 1.0)
        domains.append([low - room, high + 1.5 * room])
    axes = [
        {"title": f"gap to sync Nesterov on {title} (%)", "scale": alt.Scale(domain=domain, zero=False, nice=False)}
        for title, domain in zip(titles, domains)
    ]
    tooltip: list[Any] = ["method:N"]
    for side, title in enumerate(titles):
        tooltip += [
            alt.Tooltip(f"gap{side}:Q", title=f"gap (%), {title}", format="+.2f"),
            alt.Tooltip(f"gap_text{side}:N", title="95 % interval"),
            alt.Tooltip(f"rank{side}:Q", title=f"rank, {title}"),
            alt.Tooltip(f"rank_text{side}:N", title="95 % interval"),
        ]
    base = alt.Chart(frame).encode(tooltip=tooltip)
    y = alt.Y("gap1:Q", **axes[1])
    thin = {"strokeWidth": 1, "opacity": 0.35, "color": GREY, "clip": True}
    across = base.mark_rule(**thin).encode(x=alt.X("low0:Q", **axes[0]), x2="high0:Q", y=y)
    along = base.mark_rule(**thin).encode(x=alt.X("gap0:Q", **axes[0]), y=alt.Y("low1:Q", **axes[1]), y2="high1:Q")
    dots = base.mark_point(filled=True, size=70, opacity=1, color=COLOURS[0]).encode(x=alt.X("gap0:Q", **axes[0]), y=y)
    names = base.mark_text(align="left", dx=7, dy=-5, fontSize=11).encode(
        x=alt.X("gap0:Q", **axes[0]), y=y, text="method:N"
    )
    return alt.layer(across, along, dots, names, height=420)
