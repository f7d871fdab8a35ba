"""A promoted run, trained from its page: in a process of its own, its curve beside the toy's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from toybench.config import ConfigError, Run
from toybench.curves import Curves
from toybench.interrupt import INTERRUPTED
from toybench.loading import dump_run
from toybench.narrate import title
from toybench.plots.lines import line_of
from toybench.records import read_json, writable_folder, write_whole
from toybench.selection import together
from toybench.views import charts, state, stored, work
from toybench.views.runner import Kind, Runner, Runners

EVERY = 1.0  # seconds between two looks at a run that goes on
KIND = Kind("run", "lm")
PRIMARY: dict[str, Any] = {"type": "primary", "icon": ":material/play_arrow:"}


@st.cache_resource(show_spinner=False)
def runners() -> Runners:
    """The runs that go on, for all pages."""
    return Runners(KIND)


def body(launch: Any, toy: Run, seeds: tuple[int, ...], after: Run, file: str, size: str) -> None:
    """Start the run, watch it, and show what came of it.

    Args:
        launch: the module `lm.launch`.
        toy: what was promoted.
        seeds: of the toy, where it is not in the store.
        after: the language-model run.
        file: the same as a file.
        size: of the model.
    """
    st.markdown("#### Trained here")
    if problem := launch.problem(after):
        st.caption(f":material/block: {state.plain(problem[0].upper() + problem[1:])}.")
        return
    store, name = state.store_path(), launch.name_of(after, size)
    folder, runner = store.with_name(f"{store.name}.lm") / name, runners().get(store, name)
    running = runner.running

    def live() -> None:
        if running and not runner.running:
            st.rerun()
        points, record = launch.read(runner.lines()), launch.record_of(folder)
        if running:
            progress(runner, points)
        elif not record.exists():
            offer(runner, folder, lambda: begin(launch, runner, folder, file))
        shown = running or bool(points) or record.exists()
        state.desk().keep_only(state.session(), [work.curves_key(toy, seeds)] if shown else ())
        if shown:
            figure(record, points, toy, seeds)
        if record.exists() and not running:
            said = f"done; the run is in the store, its record and checkpoints are in {folder.parent.name}/{name}"
            st.caption(f":material/check: {state.plain(said)}")

    st.fragment(live, run_every=EVERY)() if running else live()


def begin(launch: Any, runner: Runner, folder: Path, file: str) -> None:
    """Start the process, or go on where one stopped."""
    try:
        path = writable_folder(folder.absolute()) / "run.toml"
        write_whole(path, file)
        runner.start(launch.command(path, path.parent, runner.store.absolute()), before=0, total=1)
    except ConfigError as error:
        st.error(state.plain(str(error)), icon=":material/error:")
        return
    st.rerun()


def progress(runner: Runner, points: Sequence[Any]) -> None:
    """A bar, what the process says, and the button that cancels."""
    begun = runner.begun()
    seconds = time.time() - begun.since if begun else 0.0
    bar, button = st.columns([5, 1], vertical_alignment="center")
    if points:
        bar.progress(points[-1].local_steps / points[-1].total_steps, points[-1].said)
    else:
        bar.progress(0.0, f"compiling, {seconds:.0f} s")
    if button.button("Cancel", key="w.train.cancel", icon=":material/stop:", width="stretch"):
        runner.cancel()
        st.toast("Cancelling: it can be gone on with.")


def offer(runner: Runner, folder: Path, start: Any) -> None:
    """The button that starts the run, or goes on with it, and how it ended where it did."""
    ended = runner.ended()
    if ended is not None:
        bad = ended.status not in (None, 0, INTERRUPTED)
        how = (
            "Cancelled" if ended.status == INTERRUPTED else "Its process is gone" if ended.status is None else "Stopped"
        )
        (st.error if bad else st.warning)(state.plain(f"{how}: {ended.said}"), icon=":material/info:")
    resumed = any((folder / "run" / "checkpoints").glob("*"))
    if st.button("Resume" if resumed else "Train", key="w.train.start", **PRIMARY):
        start()
    if ended is None and not resumed:
        st.caption("In a process of its own, on this machine: it goes on if this page is closed.")


def figure(record: Path, points: Sequence[Any], toy: Run, seeds: tuple[int, ...]) -> None:
    """Held-out curves side by side, each in its own units of loss: of the run, and of the toy it comes from."""
    own = of_record(record) if record.exists() else of_points(points)
    left, right = st.columns(2)
    with left:
        if own is None:
            st.info("No evaluation yet.", icon=":material/hourglass_empty:")
        else:
            st.altair_chart(charts.curves([own], "local_steps", "loss", 0), width="stretch")
    with right:
        found = of_toy(toy, seeds)
        if isinstance(found, str):
            st.info(state.plain(found), icon=":material/hourglass_empty:")
        else:
            st.altair_chart(charts.curves([found], "local_steps", "loss", 0), width="stretch")


def of_record(record: Path) -> dict[str, Any]:
    """The line of a run that is done."""
    curves = read_json(record)["curves"]
    return _line("language model", curves["local_steps"], curves["loss"])


def of_points(points: Sequence[Any]) -> dict[str, Any] | None:
    """The line of a run that goes on, as far as it is told."""
    known = {point.local_steps: point.loss for point in points}
    return _line("language model", [*known], [*known.values()]) if known else None


def _line(name: str, steps: Sequence[float], loss: Sequence[float]) -> dict[str, Any]:
    mean = np.array([np.nan if value is None else value for value in loss], float)
    return {"title": name, "local_steps": np.array(steps, float), "mean": mean, "low": None, "high": None}


def of_toy(toy: Run, seeds: tuple[int, ...]) -> dict[str, Any] | str:
    """The line of the toy: from the store, or else made at the desk as Explore does; until then, what is awaited."""
    path = state.store_path()
    found = kept(path, stored.stamp(path), toy)
    if found is None:
        job = state.desk().ask(state.session(), work.curves_key(toy, seeds), work.train_curves(toy, seeds))
        if job.state != "done":
            return job.problem or f"the toy: {job.said} …"
        found = job.result
    count = f"{len(found.seeds)} seed{'s'[: len(found.seeds) != 1]}"
    return line_of(found, "loss") | {"title": f"the toy: {title(toy)}, {count}"}


@st.cache_data(max_entries=16, show_spinner=False)
def kept(path: Path, changed: stored.Stamp, toy: Run) -> Curves | None:
    """The runs of a configuration that are in the store, whoever made them."""
    where = {f"{section}.{key}": value for section, table in dump_run(toy).items() for key, value in table.items()}
    try:
        with stored.opened(path) as store:
            numbers = [row["run"] for row in store.list(where=where)]
            settings = together(store.read(numbers)) if numbers else []
    except ConfigError:  # there is no store yet
        return None
    return next((setting for setting in settings if setting.run == toy), None)  # a field left open matches any
