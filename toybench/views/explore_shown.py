"""What the page Explore shows: what happened in words, curves beside each other, what is inside the runs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import streamlit as st

from toybench.config import Gaussians, Run
from toybench.curves import Curves
from toybench.narrate import sentence, title
from toybench.plots.lines import line_of
from toybench.statistics import relative_gap
from toybench.timeline import Timeline
from toybench.views import charts, state, work
from toybench.views.jobs import Job
from toybench.views.scene import LETTERS, Scene

PANELS = ("timeline", "staleness", "momentum", "workers", "data")
METRICS = ("loss", "accuracy")
METRIC = METRICS[0], state.one_of(*METRICS)  # the default, and what reads it from the query string
PANEL = PANELS[0], state.one_of(*PANELS)
MOST_BARS = 4_000  # of the timeline: more make a browser slow


class Shown(NamedTuple):
    """A configuration with its results and those of its reference."""

    title: str
    run: Run
    result: Curves
    reference: Curves
    timeline: Timeline  # on the first seed


def said(shown: Sequence[Shown]) -> None:
    """What happened, in a sentence and in four numbers a configuration."""
    for i, (column, one) in enumerate(zip(st.columns(len(shown)), shown)):
        with column.container(border=True, height="stretch"):
            dot = f'<span style="color:{charts.ARMS[i]}">&#9632;</span>'
            st.markdown(f"{dot} **{one.title}**", unsafe_allow_html=True)
            st.markdown(sentence(one.result, one.reference, one.timeline))
            figures(one, 2 if len(shown) > 2 else 4)


def figures(one: Shown, columns: int) -> None:
    """Final loss, its gap, staleness, simulated time; so many beside each other."""
    gap = relative_gap(one.result.final_loss, one.reference.final_loss)
    stale, time = one.timeline.staleness, one.result.time[:, -1].mean()
    told = (
        ("final loss", f"{one.result.final_loss.mean():.3f}"),
        ("above sync", f"{gap.mean():+.1f} %"),
        ("staleness", f"{stale.mean():.1f}, at most {stale.max()}"),
        ("simulated time", f"{time:,.0f} s"),
    )
    places = [place for _ in range(0, len(told), columns) for place in st.columns(columns)]
    for place, (label, value) in zip(places, told):
        place.markdown(f":small[:gray[{label}]]  \n**{value}**")


def references(shown: Sequence[Shown]) -> dict[Run, str]:
    """The different references, and what each is called."""
    runs = list(dict.fromkeys(one.reference.run for one in shown))
    name = title(runs[0])
    if len(runs) == 1:
        return {runs[0]: f"{name} (reference)"}
    owners = {
        run: " ".join(LETTERS[i].upper() for i, one in enumerate(shown) if one.reference.run == run) for run in runs
    }
    return {run: f"{name} (reference of {owners[run]})" for run in runs}


def domain(shown: Sequence[Shown]) -> tuple[list[str], int]:
    """All titles of the figures, the references first, and how many those are."""
    named = references(shown)
    return [*named.values(), *(one.title for one in shown)], len(named)


def curves(shown: Sequence[Shown]) -> None:
    """Loss or accuracy against local steps and against simulated time."""
    more = {"options": METRICS, "label_visibility": "collapsed"}
    metric = state.widget(st.segmented_control, "metric", "metric", *METRIC, **more)
    named = references(shown)
    by_reference = {one.reference.run: one.reference for one in shown}
    lines: list[dict[str, Any]] = [
        line_of(by_reference[run], metric, "range") | {"title": name} for run, name in named.items()
    ]
    lines += [line_of(one.result, metric, "range") | {"title": one.title} for one in shown]
    for column, x in zip(st.columns(2), ("local_steps", "time")):
        column.altair_chart(charts.curves(lines, x, metric, len(named)), width="stretch", key=f"curves.{x}")
    if (count := len(shown[0].result.seeds)) > 1:
        st.caption(f"Lines: mean over {count} seeds; bands: their range. Intervals: 95 % t, paired by seed.")


def panel(scene: Scene, shown: Sequence[Shown], i: int) -> None:
    """What is inside the runs: the part that is chosen."""
    labels = {
        "timeline": "Timeline",
        "staleness": "Staleness",
        "momentum": "Momentum",
        "workers": "Between workers",
        "data": "Data",
    }
    chosen = state.widget(
        st.segmented_control,
        "inside",
        "panel",
        *PANEL,
        options=PANELS,
        format_func=labels.get,
        label_visibility="collapsed",
    )
    if chosen == "staleness":
        staleness(shown)
        return
    one = shown[min(i, len(shown) - 1)]
    if len(shown) > 1:
        st.caption(f"of {one.title}; another is chosen at the left")
    if chosen == "timeline":
        timeline(one)
    elif chosen == "data":
        data(scene, one)
    else:
        inside(scene, one, chosen)


def timeline(one: Shown) -> None:
    """Who computes and who waits, and how stale what comes of it arrives."""
    from toybench.plots.timeline import numbers, until_of

    starts = one.timeline.start
    until = float(one.timeline.time[-1] if len(starts) <= MOST_BARS else starts[MOST_BARS])
    drawn = numbers(one.run.cluster, one.timeline, until)
    st.altair_chart(charts.workers(drawn, min(until, until_of(one.run.cluster, one.timeline))), width="stretch")
    if len(starts) > MOST_BARS:
        st.caption(f"The first {MOST_BARS:,} of {len(starts):,} visits.")


def staleness(shown: Sequence[Shown]) -> None:
    """The share of arrivals at each staleness."""
    titles, count = domain(shown)
    values = [(one.title, one.timeline.staleness) for one in shown]
    st.altair_chart(charts.histogram(values, titles, count), width="stretch")


def waited_for(key: Hashable, make: Callable[[Job], Any]) -> Any:
    """What comes of some work at the desk; None if nothing does, which is said."""
    job = state.desk().ask(state.session(), key, make)
    state.follow([job], st.empty())
    if job.state == "done":
        return job.result
    st.error(state.plain(job.problem or "dropped"), icon=":material/error:")
    return None


def inside(scene: Scene, one: Shown, chosen: str) -> None:
    """Cosines of one seed, watched arrival by arrival."""
    from toybench.plots.probes import numbers

    seed = scene.seeds[0]
    found = waited_for(work.probes_key(one.run, seed), work.watch(one.run, seed))
    if found is None:
        return
    drawn = numbers(work.probes_document(found))
    if chosen == "workers":
        st.altair_chart(charts.between_workers(drawn), width="stretch")
        st.caption(f"Cosines, mean of {drawn['matrices']} moments of seed {seed}.")
    elif drawn["cosine_by_staleness"] is None:
        st.info(f"{title(one.run)} keeps no momentum.", icon=":material/info:")
    else:
        left, right = st.columns([3, 2])
        left.altair_chart(charts.cosines(drawn), width="stretch")
        right.altair_chart(charts.cosine_by_staleness(drawn), width="stretch")
        st.caption(f"Every arrival of seed {seed}: the momentum before it, and the pseudo-gradient that it brings.")


def data(scene: Scene, one: Shown) -> None:
    """The mixture in its principal directions."""
    if not isinstance(one.run.task, Gaussians):
        st.info("This task is no mixture of Gaussians.", icon=":material/info:")
        return
    seed = scene.seeds[0]
    found = waited_for(work.projection_key(one.run, seed), work.project_data(one.run, seed))
    if found is None:
        return
    count = found.points.shape[1]
    pairs = [(0, j) for j in range(1, count)] or [(0, 0)]
    for column, (i, j) in zip(st.columns(len(pairs)), pairs):
        column.altair_chart(charts.directions(found, i, j), width="stretch")
