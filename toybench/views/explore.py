"""The Explore page: configurations beside each other, and synchronous Nesterov as their reference."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import streamlit as st

from toybench.config import ConfigError, Gaussians, Run
from toybench.curves import Curves
from toybench.loading import dump_run
from toybench.narrate import sentence, title
from toybench.plots.lines import line_of
from toybench.statistics import relative_gap
from toybench.timeline import Timeline
from toybench.views import charts, controls, shipped, state, work
from toybench.views.jobs import Job
from toybench.views.scene import LETTERS, Scene, differences, page_seeds, reference_of, seed_words, untuned, words
from toybench.views.stories import stories

PANELS = ("timeline", "staleness", "momentum", "workers", "data")
METRICS = ("loss", "accuracy")
MOST_BARS = 4_000  # of the timeline: more make a browser slow


class Shown(NamedTuple):
    """A configuration with its results and those of its reference."""

    title: str
    run: Run
    result: Curves
    reference: Curves
    timeline: Timeline  # on the first seed


def body() -> None:
    """The page."""
    shipped.lay_out(state.desk())
    header()
    with st.sidebar:
        i = sidebar()
    scene = state.scene()
    state.publish({name: (state.kept(name, *choice), choice[0]) for name, choice in CHOICES.items()})
    if st.session_state.get("stopped") == scene:
        st.info("Stopped. Change a setting, or begin again.", icon=":material/stop_circle:")
        st.button("Begin again", key="again", on_click=lambda: st.session_state.pop("stopped", None))
        state.desk().keep_only(state.session(), ())
        return
    jobs = ask(scene)
    state.follow(
        [job for pair in jobs for job in pair], st.empty(), stop=lambda: st.session_state.update(stopped=scene)
    )
    shown = arranged(scene, jobs)
    if not shown:
        st.info("Nothing to show: change a setting at the left.", icon=":material/tune:")
        return
    said(shown)
    for note in dict.fromkeys(untuned(scene.preset, one.run) for one in shown):
        if note:
            st.caption(f":material/info: {note}.")
    curves(shown)
    panel(scene, shown, i)
    warm_up(scene)


CHOICES = {  # of widgets: their default, and what reads them from the query string
    "metric": (METRICS[0], state.one_of(*METRICS)),
    "panel": (PANELS[0], state.one_of(*PANELS)),
    "edit": (LETTERS[0], state.one_of(*LETTERS)),
    "together": (controls.TOGETHER, state.one_of(controls.TOGETHER, "off")),
}


def header() -> None:
    """The title, the stories, and what the present one is about."""
    st.markdown("### Stale momentum under your fingers")
    told = stories()
    now = next((name for name, story in told.items() if story.scene == state.scene()), None)
    st.session_state["story"] = now

    def chosen() -> None:
        if (name := st.session_state["story"]) is not None:
            state.put_scene(told[name].scene)
            state.keep("edit", LETTERS[0])

    left, right = st.columns([5, 2], vertical_alignment="bottom")
    left.pills("story", [*told], key="story", on_change=chosen, label_visibility="collapsed")
    with right:
        share()
    if now is not None:
        st.caption(told[now].text)


def share() -> None:
    """The view as a command line, as a file, and as the address itself."""
    scene = state.scene()
    with st.popover("Share and run", icon=":material/ios_share:", width="stretch"):
        st.caption("The address of this page reproduces it. On the command line:")
        for letter, run in zip(LETTERS, scene.runs):
            st.code(command(scene, run), language="bash", wrap_lines=True)
            name = f"toybench-{letter}.toml"
            st.download_button(name, toml(run), name, "application/toml", icon=":material/download:")


def command(scene: Scene, run: Run) -> str:
    """The command line that trains a configuration of the scene."""
    parts = ["toybench", "run"] + (["--preset", scene.preset] if scene.preset != "default" else [])
    for key, value in differences(scene.preset, run).items():
        parts += [f"--{key.replace('_', '-')}", *words(value)]
    return shlex.join([*parts, "--seeds", *seed_words(scene.seeds).split()])


def toml(run: Run) -> str:
    """A configuration as a file that `toybench run` takes."""
    import tomli_w

    return tomli_w.dumps(dump_run(run))


def sidebar() -> int:
    """Which configuration is changed, and its settings; its number."""
    scene = state.scene()
    i = chosen_arm(scene)
    tabs = st.tabs(["Cluster", "Outer", "Inner", "Task", "Budget"])
    with tabs[0]:
        controls.cluster(i)
    with tabs[1]:
        controls.outer(i)
    with tabs[2]:
        controls.inner(i)
    with tabs[3]:
        controls.section(i, "task")
    with tabs[4]:
        controls.section(i, "budget")
        seeds()
    return i


def chosen_arm(scene: Scene) -> int:
    """The configuration to change: chosen, added as a copy of the present one, or removed."""
    letters = LETTERS[: len(scene.runs)]
    if state.kept("edit", *CHOICES["edit"]) not in letters:
        state.keep("edit", letters[-1])
    i = LETTERS.index(state.kept("edit"))

    def add() -> None:
        state.put_scene(scene.put(len(scene.runs), scene.runs[i]))
        state.keep("edit", LETTERS[len(scene.runs)])

    def drop() -> None:
        state.put_scene(scene.drop(i))
        state.keep("edit", LETTERS[max(0, i - 1)])

    full, alone = len(scene.runs) == len(LETTERS), len(scene.runs) == 1
    with st.container(horizontal=True, gap="small"):
        more = {"format_func": str.upper, "label_visibility": "collapsed", "options": [*letters]}
        state.widget(st.segmented_control, "configuration", "edit", *CHOICES["edit"], **more)
        plus = "add a copy of this configuration; up to four stand side by side"
        st.button("", icon=":material/add:", key="add", on_click=add, disabled=full, help=plus, type="tertiary")
        st.button(
            "",
            icon=":material/remove:",
            key="drop",
            on_click=drop,
            disabled=alone,
            help="remove this one",
            type="tertiary",
        )
    st.caption(title(scene.runs[i]))
    if not alone:
        together()
    return i


def together() -> None:
    """Whether task, speeds, inner optimizer and budget move in all configurations."""

    def changed() -> None:
        state.keep("together", controls.TOGETHER if st.session_state["together"] else "off")

    st.session_state["together"] = state.kept("together", *CHOICES["together"]) == controls.TOGETHER
    text = "speeds, local steps, inner optimizer, task and budget change in every configuration that has them alike"
    st.toggle("change the problem for all", key="together", on_change=changed, help=text)


def seeds() -> None:
    """The seeds of all configurations."""

    def changed() -> None:
        scene = state.scene()
        try:
            state.put_scene(Scene(scene.preset, page_seeds(st.session_state["seeds"]), scene.runs))
        except ConfigError as error:
            state.complain(str(error))

    st.session_state["seeds"] = seed_words(state.scene().seeds)
    text = (
        "of data, initial parameters and shard draws, the same for every configuration: a count, LOW:HIGH, or several"
    )
    st.text_input("seeds", key="seeds", on_change=changed, help=text)


def ask(scene: Scene) -> list[tuple[Job, Job]]:
    """The jobs of every configuration and of its reference; others of this page are dropped."""
    desk, owner = state.desk(), state.session()
    pairs = [(run, reference_of(scene.preset, run)) for run in scene.runs]
    keys = [work.curves_key(run, scene.seeds) for pair in pairs for run in pair]
    seed = scene.seeds[0]  # of what is inside a run: another widget's change does not begin it anew
    keys += [key(run, seed) for run in scene.runs for key in (work.probes_key, work.projection_key)]
    desk.keep_only(owner, keys)

    def of(run: Run) -> Job:
        return desk.ask(owner, work.curves_key(run, scene.seeds), work.train_curves(run, scene.seeds))

    return [(of(run), of(reference)) for run, reference in pairs]


def warm_up(scene: Scene) -> None:
    """Have the programs of the first configuration ready before a slider is moved, where all came from the record."""
    if not st.session_state.get("warm"):
        st.session_state["warm"] = True
        pair = (scene.runs[0], reference_of(scene.preset, scene.runs[0]))
        recorded = {work.curves_key(result.run, result.seeds) for result in shipped.read()}
        if not all(work.curves_key(one, scene.seeds) in recorded for one in pair):
            return  # they were trained just now, so that their programs are there
        for one in pair:
            state.desk().ask("server", ("warm", one, len(scene.seeds)), work.train_curves(one, scene.seeds))


def arranged(scene: Scene, jobs: Sequence[tuple[Job, Job]]) -> list[Shown]:
    """The configurations that came out, under names that tell them apart; of the others, why they did not."""
    titles = [title(run) for run in scene.runs]
    found = []
    for i, (run, pair) in enumerate(zip(scene.runs, jobs)):
        name = titles[i] if titles.count(titles[i]) == 1 and len(titles) == 1 else f"{LETTERS[i].upper()}: {titles[i]}"
        problem = next((job.problem or "was dropped" for job in pair if job.state != "done"), None)
        if problem is not None:
            st.error(f"{state.plain(f'{name}: {problem}')}. On the command line:", icon=":material/error:")
            st.code(command(scene, run), language="bash", wrap_lines=True)
            continue
        timeline = work.timeline_of(run.cluster, run.budget, scene.seeds[0])
        found.append(Shown(name, run, pair[0].result, pair[1].result, timeline))
    return found


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
    metric = state.widget(st.segmented_control, "metric", "metric", *CHOICES["metric"], **more)
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
        *CHOICES["panel"],
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
