"""The figures of the Explore page: plain numbers in, Altair charts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from toybench.plots.lines import COLOURS, limits_of

ARMS = COLOURS[:4]
REFERENCE = "#808080"
STALENESS = alt.Scale(scheme="viridis", reverse=True)
NAMES = {"loss": "held-out loss (nats)", "accuracy": "accuracy", "local_steps": "local steps, all workers"}
NAMES |= {"time": "simulated time (s)", "staleness": "staleness τ (versions)"}
NAMES |= {"seconds": "wall time (s)"}
HEIGHT = 340
Chart = Any  # Altair has no type for layered, faceted and concatenated charts alike


def colours(titles: Sequence[str], references: int) -> alt.Scale:
    """The configurations' colours, and grey for the references before them."""
    return alt.Scale(domain=[*titles], range=[*[REFERENCE] * references, *ARMS])


def curves(lines: Sequence[dict[str, Any]], x: str, metric: str, references: int) -> Chart:
    """Means and bands of lines, each with its `title`; the first `references` are dashed."""
    frames = []
    for line in lines:
        low, high = (line["mean"] if line[side] is None else line[side] for side in ("low", "high"))
        columns = {"x": line[x], "mean": line["mean"], "low": low, "high": high}
        frames.append(pd.DataFrame(columns).assign(title=line["title"]))
    titles = [line["title"] for line in lines]
    low, high = limits_of({"lines": lines, "metric": metric})
    legend = alt.Legend(
        title=None,
        orient="bottom",
        symbolType="stroke",
        symbolOpacity=1,
        symbolStrokeWidth=3,
        columns=2,
        labelLimit=230,
    )
    colour = alt.Color("title:N", scale=colours(titles, references), legend=legend)
    base = alt.Chart(pd.concat(frames)).encode(x=alt.X("x:Q", title=NAMES[x], axis=alt.Axis(grid=False)), color=colour)
    scale = alt.Scale(domain=[float(low), float(high)], zero=False, nice=False)
    bands = base.mark_area(opacity=0.16 if len(lines) <= 3 else 0.08, clip=True).encode(
        y=alt.Y("low:Q", scale=scale), y2="high:Q"
    )
    dashes = alt.Scale(domain=titles, range=[*[[5, 3]] * references, *[[1, 0]] * len(ARMS)])
    drawn = base.mark_line(strokeWidth=2.2, clip=True).encode(
        y=alt.Y("mean:Q", title=NAMES.get(metric, metric), scale=scale),
        strokeDash=alt.StrokeDash("title:N", scale=dashes, legend=None),
        tooltip=[
            alt.Tooltip("title:N", title="configuration"),
            alt.Tooltip("x:Q", title=NAMES[x], format=",.0f"),
            alt.Tooltip("mean:Q", title=metric, format=".4f"),
        ],
    )
    return alt.layer(bands, drawn).properties(height=HEIGHT)


def workers(numbers: Mapping[str, Any], shown: float) -> Chart:
    """Who computes when: the visits of `plots.timeline.numbers`, a window of them above, to be moved below."""
    seconds, most = numbers["sec_per_step"], numbers["staleness"]["max"]
    frame = pd.DataFrame({name: np.asarray(column) for name, column in numbers["visits"].items()})
    labels = [f"{w}: {own:g} s/step" for w, own in enumerate(seconds)]
    frame["label"] = [labels[w] for w in frame["worker"]]
    frame["time"] = np.minimum(frame["time"], numbers["until"])
    window = alt.selection_interval(encodings=["x"], value={"x": [0, shown]}, name="window")
    staleness = alt.Color(
        "staleness:Q",
        scale=alt.Scale(scheme="viridis", reverse=True, domain=[0, max(most, 1)]),
        legend=alt.Legend(title="staleness on arrival", orient="right", gradientLength=120, tickMinStep=1),
    )
    rows = alt.Y("label:N", sort=labels, title="worker", axis=alt.Axis(grid=False, ticks=False, domain=False))
    ends = [0, float(numbers["until"])]
    bars = alt.Chart(frame).encode(y=rows, x2="time", color=staleness)
    detail = (
        bars.mark_bar(stroke="white", strokeWidth=1, clip=True)
        .encode(
            x=alt.X("start:Q", title=f"{NAMES['time']}; white: waiting", scale=alt.Scale(domain=window)),
            tooltip=[
                alt.Tooltip("worker:Q", title="worker"),
                alt.Tooltip("start:Q", title="pulls at (s)", format=",.1f"),
                alt.Tooltip("time:Q", title="arrives at (s)", format=",.1f"),
                alt.Tooltip("staleness:Q", title="staleness"),
            ],
        )
        .properties(height=max(90, min(24 * len(seconds), 420)))
    )
    overview = (
        bars.mark_bar()
        .encode(
            x=alt.X(
                "start:Q", title="drag here to move the window, its edges to widen it", scale=alt.Scale(domain=ends)
            ),
            y=alt.Y("label:N", sort=labels, axis=None),
        )
        .add_params(window)
        .properties(height=min(50 + 2 * len(seconds), 80))
    )
    return alt.vconcat(detail, overview).resolve_scale(color="shared")


def histogram(staleness: Sequence[tuple[str, np.ndarray]], domain: Sequence[str], references: int) -> Chart:
    """The share of arrivals at each staleness, a colour a configuration."""
    frames = []
    for title, values in staleness:
        at, counts = np.unique(values, return_counts=True)
        frames.append(pd.DataFrame({"staleness": at, "share": counts / counts.sum(), "title": title}))
    bars = (
        alt.Chart(pd.concat(frames))
        .mark_bar()
        .encode(
            x=alt.X("staleness:O", title=NAMES["staleness"], axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            y=alt.Y("share:Q", title="arrivals", axis=alt.Axis(format="%")),
            xOffset=alt.XOffset("title:N", sort=[title for title, _ in staleness]),
            color=alt.Color(
                "title:N", scale=colours(domain, references), legend=alt.Legend(title=None, orient="bottom")
            ),
            tooltip=["title:N", "staleness:O", alt.Tooltip("share:Q", format=".1%")],
        )
    )
    return bars.properties(height=HEIGHT)


def cosines(numbers: Mapping[str, Any]) -> Chart:
    """Between momentum and each arriving pseudo-gradient, coloured by staleness; of `plots.probes.numbers`."""
    arrivals = numbers["arrivals"]
    frame = pd.DataFrame({name: arrivals[name] for name in ("local_steps", "momentum_cosine", "staleness")})
    points = (
        alt.Chart(frame.dropna())
        .mark_circle(size=45, opacity=0.85)
        .encode(
            x=alt.X("local_steps:Q", title=NAMES["local_steps"], axis=alt.Axis(grid=False)),
            y=alt.Y("momentum_cosine:Q", title="cosine", scale=alt.Scale(zero=True)),
            color=alt.Color("staleness:Q", scale=STALENESS, legend=alt.Legend(title="staleness", tickMinStep=1)),
            tooltip=["local_steps:Q", alt.Tooltip("momentum_cosine:Q", format=".3f"), "staleness:Q"],
        )
    )
    zero = alt.Chart(pd.DataFrame({"y": [0.0]})).mark_rule(color=REFERENCE).encode(y="y:Q")
    return alt.layer(zero, points).properties(height=HEIGHT, title="Momentum and pseudo-gradient")


def cosine_by_staleness(numbers: Mapping[str, Any]) -> Chart:
    """The mean of `cosines` at each staleness."""
    chart = alt.Chart(pd.DataFrame(numbers["cosine_by_staleness"])).mark_bar(color=ARMS[0])
    return chart.encode(
        x=alt.X("staleness:O", title=NAMES["staleness"], axis=alt.Axis(labelAngle=0)),
        y=alt.Y("mean:Q", title="mean cosine"),
        tooltip=["staleness:O", alt.Tooltip("mean:Q", format=".3f")],
    ).properties(height=HEIGHT, title="By staleness")


def between_workers(numbers: Mapping[str, Any]) -> Chart:
    """Mean cosines between the workers' latest pseudo-gradients."""
    matrix = np.asarray(numbers["worker_cosines"], float)
    v, w = (index.ravel() for index in np.indices(matrix.shape))
    base = alt.Chart(pd.DataFrame({"v": v, "w": w, "cosine": matrix.ravel()})).encode(
        x=alt.X("v:O", title="worker", axis=alt.Axis(labelAngle=0)), y=alt.Y("w:O", title="worker")
    )
    cells = base.mark_rect().encode(
        color=alt.Color("cosine:Q", scale=alt.Scale(scheme="redblue", reverse=True, domain=[-1, 1]))
    )
    layers = [cells]
    if len(matrix) <= 8:
        light = alt.condition("abs(datum.cosine) > 0.6", alt.value("white"), alt.value("black"))
        layers.append(base.mark_text(fontSize=12).encode(text=alt.Text("cosine:Q", format=".2f"), color=light))
    return alt.layer(*layers).properties(height=HEIGHT, title="Latest pseudo-gradients of the workers")


def directions(projection: Any, i: int, j: int) -> Chart:
    """Points of the mixture along two principal directions, a colour a class."""
    shares = [f"direction {d + 1} ({100 * projection.explained[d]:.0f} % of the variance)" for d in (i, j)]
    columns = {"x": projection.points[:, i], "y": projection.points[:, j], "class": projection.labels}
    return (
        alt.Chart(pd.DataFrame(columns))
        .mark_circle(size=22, opacity=0.6)
        .encode(
            x=alt.X("x:Q", title=shares[0]),
            y=alt.Y("y:Q", title=shares[1]),
            color=alt.Color("class:N", scale=alt.Scale(range=[*COLOURS]), legend=alt.Legend(orient="bottom")),
            tooltip=["class:N"],
        )
        .properties(height=HEIGHT + 80)
    )
