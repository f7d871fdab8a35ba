"""The Explore page: configurations beside each other, and synchronous Nesterov as their reference."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import streamlit as st

from toybench.config import ConfigError, Run
from toybench.loading import dump_run
from toybench.narrate import title
from toybench.views import controls, shipped, state, work
from toybench.views.explore_shown import METRIC, PANEL, Shown, curves, panel, said
from toybench.views.jobs import Job
from toybench.views.scene import LETTERS, Scene, differences, page_seeds, reference_of, seed_words, untuned, words
from toybench.views.stories import stories

CHOICES = {  # of widgets: their default, and what reads them from the query string
    "metric": METRIC,
    "panel": PANEL,
    "edit": (LETTERS[0], state.one_of(*LETTERS)),
    "together": (controls.TOGETHER, state.one_of(controls.TOGETHER, "off")),
}


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
