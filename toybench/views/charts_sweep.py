"""A sweep's figures in Altair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from toybench.plots.lines import COLOURS, limits
from toybench.selection import Ranked, label, text, value_of
from toybench.views.outcomes import Outcome, Swept

Chart = alt.Chart | alt.LayerChart | alt.FacetChart
BEST_COLOUR = "#D55E00"
CROSS: dict[str, Any] = {"shape": "cross", "angle": 45, "size": 90, "color": "#6b6b6b", "filled": True, "opacity": 1}
MOST_WRITTEN = 150  # cells of a heat map with their losses in them
HEIGHT = 380
STAR = "M0,-1L0.24,-0.31L0.95,-0.31L0.38,0.12L0.59,0.81L0,0.4L-0.59,0.81L-0.38,0.12L-0.95,-0.31L-0.24,-0.31Z"
LOSS = "final loss (nats)"


def chart_of(outcome: Outcome) -> Chart:
    """The figure of a sweep, as far as it is done."""
    if outcome.figure == "heat map":
        return heat_map(outcome.drawn, outcome.swept)
    if outcome.figure == "lines":
        return lines(outcome.drawn, outcome.swept, outcome.x)
    return dots(outcome.drawn["rows"], outcome.swept, outcome.x)


def _data(rows: Sequence[dict[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=[*rows])


def _number_axis(swept: Swept, key: str) -> alt.X:
    """An axis of numbers as wide as the sweep, logarithmic if that is."""
    log = key in swept.log
    values = [value for value in swept.values[key] if not log or value > 0]
    low, high = min(values), max(values)
    room = 0.03 * (math.log(high / low) if log else high - low)
    domain = [low * math.exp(-room), high * math.exp(room)] if log else [low - room, high + room]
    scale = alt.Scale(type="log" if log else "linear", domain=domain, nice=False, zero=False)
    axis: dict[str, Any] = {"format": ".3~g", "labelOverlap": True, "grid": False}
    if len(values) <= 9:
        axis["values"] = values
    elif log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        axis["values"] = [part * 10.0**decade for decade in decades for part in (1, 2, 5)]
    return alt.X("x:Q", title=key, scale=scale, axis=alt.Axis(**axis))


def _loss_axis(means: Sequence[float], bands: Sequence[float]) -> alt.Y:
    domain = [*limits(np.array(means), np.array(bands))]
    return alt.Y("loss:Q", title=LOSS, scale=alt.Scale(domain=domain, nice=False, zero=False, clamp=True))


def lines(drawn: dict[str, Any], swept: Swept, x: str) -> Chart:
    """A line for each combination of the other keys: means, 95 % intervals, the best marked."""
    names = [label(line["settings"], drawn["keys"]) or "mean" for line in drawn["lines"]]
    rows, best = [], []
    for name, line in zip(names, drawn["lines"]):
        columns = zip(*(line[key] for key in ("rates", "mean", "low", "high", "seeds", "diverged")))
        for rate, mean, low, high, seeds, diverged in columns:
            interval = "one seed" if low is None else f"{low:.4f} to {high:.4f}"
            row = {"line": name, "x": rate, "loss": mean, "low": low, "high": high, "seeds": seeds}
            rows.append(row | {"diverged": diverged, "interval": interval})
        edge = line["best"]["edge"]
        said = "best" if edge is None else f"best at the {edge} edge"
        best.append({"line": name, "x": line["best"]["rate"], "loss": line["best"]["loss"], "mark": said})
    across = _number_axis(swept, x)
    bands = [row[side] for row in rows for side in ("low", "high") if row[side] is not None]
    up = _loss_axis([row["loss"] for row in rows], bands)
    title = ", ".join(drawn["keys"])
    entry: dict[str, Any] = {"symbolType": "stroke", "symbolOpacity": 1, "symbolStrokeWidth": 3, "labelLimit": 400}
    columns = 4 if max(map(len, names)) < 20 else 2
    legend = alt.Legend(title=title, orient="bottom", columns=columns, **entry) if title else None
    if len(drawn["keys"]) == 1:  # in the sweep's order, so that a line keeps its colour while others come
        order = [text(value) for value in swept.values.get(drawn["keys"][0], [])]
        names = [name for name in order if name in names]
    else:
        order = names
    colours = [COLOURS[order.index(name) % len(COLOURS)] for name in names]
    colour = alt.Color("line:N", scale=alt.Scale(domain=names, range=colours), legend=legend)
    tooltip = [
        *([alt.Tooltip("line:N", title=title)] if title else []),
        alt.Tooltip("x:Q", title=x, format="~g"),
        alt.Tooltip("loss:Q", title="mean final loss", format=".4f"),
        alt.Tooltip("interval:N", title="95 % interval"),
        alt.Tooltip("seeds:Q"),
        alt.Tooltip("diverged:Q", title="seeds diverged"),
    ]
    base = alt.Chart(_data(rows)).encode(x=across, color=colour)
    low, high = alt.Y("low:Q", title=LOSS, scale=up["scale"]), alt.Y2("high:Q")
    shown = alt.Chart(_data(best)).encode(x=across, y=up, color=colour, tooltip=tooltip[: bool(title) + 2])
    shape = alt.Shape(
        "mark:N",
        scale=alt.Scale(
            domain=["best", "best at the low edge", "best at the high edge"],
            range=[STAR, "triangle-left", "triangle-right"],
        ),
        legend=None,
    )
    failed = alt.Chart(_data([row for row in rows if row["diverged"]])).encode(x=across, y=up, tooltip=tooltip)
    return alt.layer(
        base.mark_area(opacity=0.15 if len(names) <= 3 else 0.07, clip=True).encode(y=low, y2=high),
        base.mark_line(strokeWidth=2, clip=True).encode(y=up),
        base.mark_circle(size=42 if len(rows) < 60 * len(names) else 12, opacity=1, clip=True).encode(
            y=up, tooltip=tooltip
        ),
        failed.mark_point(**CROSS),
        shown.mark_point(filled=True, size=230, opacity=1, stroke="white", strokeWidth=1).encode(shape=shape),
    ).properties(height=HEIGHT + (24 * (1 + -(-len(names) // columns)) if title else 0))


def heat_map(drawn: dict[str, Any], swept: Swept) -> Chart:
    """The mean final loss of each cell, the best framed."""
    x, y = drawn["x"], drawn["y"]
    rows = []
    for i, up in enumerate(drawn["y_values"]):
        for j, across in enumerate(drawn["x_values"]):
            loss = float(drawn["mean"][i, j])
            if math.isfinite(loss):
                row = {"x": text(across), "y": text(up), "loss": loss, "seeds": int(drawn["seeds"][i, j])}
                rows.append(row | {"diverged": int(drawn["diverged"][i, j])})
    columns, lanes = ([text(value) for value in swept.values[key]] for key in (x, y))
    low, high = min(row["loss"] for row in rows), max(row["loss"] for row in rows)
    across = alt.X(
        "x:O", title=x, sort=columns, scale=alt.Scale(domain=columns), axis=_labels(columns, x in swept.numbers)
    )
    turned = alt.Scale(domain=lanes[::-1])
    up = alt.Y("y:O", title=y, sort=lanes[::-1], scale=turned, axis=_labels(lanes, y in swept.numbers, across=False))
    scale = alt.Scale(scheme="viridis", reverse=True, domain=[low, high if high > low else low + 1.0])
    tooltip = [
        alt.Tooltip("x:N", title=x),
        alt.Tooltip("y:N", title=y),
        alt.Tooltip("loss:Q", title="mean final loss", format=".4f"),
        alt.Tooltip("seeds:Q"),
        alt.Tooltip("diverged:Q", title="seeds diverged"),
    ]
    base = alt.Chart(_data(rows)).encode(x=across, y=up)
    bar = alt.Legend(title="mean final loss", orient="right", format="~g")
    layers = [base.mark_rect().encode(color=alt.Color("loss:Q", scale=scale, legend=bar), tooltip=tooltip)]
    if len(columns) * len(lanes) <= MOST_WRITTEN and len(columns) <= 16:
        dark = alt.condition(alt.datum.loss > low + 0.45 * (high - low), alt.value("white"), alt.value("black"))
        said = "format(datum.loss, '.3f') + (datum.diverged ? ' ×' : '')"
        written = base.transform_calculate(said=said)
        layers.append(written.mark_text(fontSize=12).encode(text="said:N", color=dark))
    else:
        failed = alt.Chart(_data([row for row in rows if row["diverged"]])).encode(x=across, y=up)
        layers.append(failed.mark_text(text="×", color="white"))
    best = {"x": text(drawn["best"]["x"]), "y": text(drawn["best"]["y"])}
    framed = alt.Chart(_data([best])).encode(x=across, y=up)
    layers.append(framed.mark_rect(filled=False, stroke=BEST_COLOUR, strokeWidth=3))
    return alt.layer(*layers).properties(height=max(200, min(560, 60 + 34 * len(lanes))))


def _labels(values: Sequence[str], numbers: bool, *, across: bool = True) -> alt.Axis:
    """An axis of names, or of numbers in few letters, turned where they are long."""
    letters = 7 * len(values) if numbers else sum(len(value) + 2 for value in values)
    axis: dict[str, Any] = {"labelExpr": "format(toNumber(datum.label), '.3~g')"} if numbers else {}
    turned = across and letters > 90
    return alt.Axis(
        labelOverlap=True, labelAngle=-45 if turned else 0, ticks=False, labelFlush=False, labelLimit=220, **axis
    )


def dots(rows: Sequence[Ranked], swept: Swept, x: str) -> Chart:
    """A dot for each setting, with its 95 % interval."""
    found = []
    for i, row in enumerate(rows):
        value = value_of(row.run, x) if x else "all"
        number = x in swept.numbers
        low, high = (row.interval.low, row.interval.high) if row.interval else (row.loss, row.loss)
        said = ", ".join(f"{key} {text(own)}" for key, own in row.settings.items())
        one = {"x": value if number else text(value), "loss": row.loss, "low": low, "high": high, "setting": said}
        found.append(one | {"seeds": row.seeds, "diverged": row.diverged, "mark": "the rest" if i else "best"})
    found = [one for one in found if x not in swept.log or one["x"] > 0]
    if x in swept.numbers:
        across = _number_axis(swept, x)
    else:
        names = [text(value) for value in swept.values.get(x, ["all"])]
        across = alt.X("x:N", title=x or None, sort=names, scale=alt.Scale(domain=names), axis=_labels(names, False))
    up = _loss_axis([one["loss"] for one in found], [one[side] for one in found for side in ("low", "high")])
    domain = ["best", "the rest"]
    colour = alt.Color("mark:N", scale=alt.Scale(domain=domain, range=[BEST_COLOUR, COLOURS[0]]), legend=None)
    tooltip = [
        alt.Tooltip("setting:N"),
        alt.Tooltip("loss:Q", title="mean final loss", format=".4f"),
        alt.Tooltip("seeds:Q"),
        alt.Tooltip("diverged:Q", title="seeds diverged"),
    ]
    base = alt.Chart(_data(found[::-1])).encode(x=across, color=colour)  # the best on top
    failed = alt.Chart(_data([one for one in found if one["diverged"]])).encode(x=across, y=up, tooltip=tooltip)
    low, high = alt.Y("low:Q", title=LOSS, scale=up["scale"]), alt.Y2("high:Q")
    return alt.layer(
        base.mark_rule(opacity=0.5, clip=True).encode(y=low, y2=high),
        base.mark_circle(size=70, opacity=1, clip=True).encode(y=up, tooltip=tooltip),
        failed.mark_point(**CROSS),
    ).properties(height=HEIGHT)


def legend_of(outcome: Outcome) -> str:
    """What the marks of a figure mean, and what it leaves out."""
    said, drawn = [], outcome.drawn
    if outcome.figure == "lines":
        counts = sorted({count for line in drawn["lines"] for count in line["seeds"]})
        seeds = f"{counts[0]}–{counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
        band = ", shaded the 95 % t-interval" if counts[-1] > 1 else ""
        said.append(f"mean of {seeds} seed{'s'[: counts[-1] > 1]}{band}")
        edges = {line["best"]["edge"] for line in drawn["lines"]}
        said += ["star: the best"] if None in edges else []
        said += ["triangle: best at an edge of its range, the optimum may lie beyond"] if edges - {None} else []
        failed = any(any(line["diverged"]) for line in drawn["lines"])
        if drawn["left_out"]:
            said.append(f"the best {len(drawn['lines'])} of {len(drawn['lines']) + drawn['left_out']} lines")
        if drawn["single"]:
            said.append(f"{drawn['single']} with one value of {outcome.x} only left out")
        if drawn["zero"]:
            said.append(f"{drawn['zero']} without a place on this axis left out")
    elif outcome.figure == "heat map":
        said.append("framed: the best")
        failed = bool(np.asarray(drawn["diverged"]).any())
    else:
        said.append("a dot for each setting, the best in orange" + (", 95 % t-intervals" if drawn["rows"] else ""))
        failed = any(row.diverged for row in drawn["rows"])
    said += ["cross: some seeds diverged and count as the untrained model"] if failed else []
    return "; ".join(said) + "."
