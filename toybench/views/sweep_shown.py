"""What comes of a sweep on its page: how far it is, how it ended, its figure and its best settings."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from toybench.config import Run
from toybench.interrupt import INTERRUPTED
from toybench.selection import text
from toybench.views import plans, state
from toybench.views.charts_sweep import chart_of, legend_of
from toybench.views.jobs import Job
from toybench.views.outcomes import Outcome, read_outcome
from toybench.views.runner import Ended, Runner
from toybench.views.scene import LETTERS
from toybench.views.sweeps import ask, begin, publish, runners, stored

EVERY = 1.0  # seconds between two looks at a sweep that runs


def show_sweep(path: Path, name: str) -> None:
    """A sweep: how far it is, its figure and its best settings; looked at again and again while it runs."""
    runner = runners().get(path, name)
    running = runner.running

    def live() -> None:
        if running and not runner.running:
            st.rerun()
        entry = next((entry for entry in stored(path)[0] if entry["sweep"] == name), None)
        if running:
            progress(runner, entry)
        else:
            told(path, runner, entry)
        if entry is not None:
            results(path, entry, running)

    def watched() -> None:
        live()
        publish()

    if running:
        st.fragment(watched, run_every=EVERY)()
    else:
        live()


def progress(runner: Runner, entry: dict[str, Any] | None) -> None:
    """A bar, what it says, and the button that cancels."""
    begun = runner.begun()
    done, total = (entry["done"], entry["runs"]) if entry else (0, begun.total if begun else 0)
    said = f"{done:,} of {total:,} runs"
    if begun:
        seconds = max(time.time() - begun.since, 1e-3)
        new = done - begun.before
        if new > 0:
            rate = new / seconds
            said += f" · {rate:.3g} runs/s · {plans.duration((total - done) / rate)} left"
        else:
            said += f" · beginning, {seconds:.0f} s; runs are stored call by call"
    bar, button = st.columns([5, 1], vertical_alignment="center")
    bar.progress(done / total if total else 0.0, said)
    if button.button("Cancel", key="w.cancel", icon=":material/stop:", width="stretch"):
        runner.cancel()
        st.toast("Cancelling: what is finished is kept.")


def told(path: Path, runner: Runner, entry: dict[str, Any] | None) -> None:
    """How a sweep ended, and where something is lacking the button that resumes it."""
    ended = runner.ended()
    done, total = (entry["done"], entry["runs"]) if entry else (0, 0)
    if said := ending(ended, done, total, begun=entry is not None):
        bad = ended is not None and ended.status not in (None, 0, INTERRUPTED)
        (st.error if bad else st.warning)(state.plain(said), icon=":material/info:")
    elif entry is not None:
        begun = entry["created"][:16].replace("T", " ")
        st.caption(f":material/check: all {total:,} runs are done, begun {begun}")
    if done < total and st.button("Resume", key="w.resume", icon=":material/play_arrow:", type="primary"):
        words = ["toybench", "sweep", "--name", runner.name, "--store", str(path), "--resume"]
        begin(path, runner.name, words, before=done, total=total)


def ending(ended: Ended | None, done: int, total: int, *, begun: bool) -> str:
    """What to say of a sweep whose process is gone; nothing if it did all."""
    status, last = ended or Ended(None, "")
    if begun and done >= total and status in (None, 0):
        return ""
    kept = f"{done:,} of {total:,} runs are kept" if begun else "nothing was stored"
    rest = "; Resume makes the rest." if done < total else "."
    if status == INTERRUPTED or last.startswith("interrupted"):
        return f"Cancelled; {kept}{rest}"
    if status is not None and status < 0:
        return f"Killed by signal {-status}; {kept}{rest}"
    how = "Unfinished" if ended is None else "Its process is gone" if status is None else "Stopped"
    return f"{how}: {last}; {kept}{rest}" if last else f"{how}; {kept}{rest}"


def reading(path: Path, entry: dict[str, Any], running: bool) -> list[Job]:
    """The work that reads a sweep, and behind it that of the look before, where that was of the same.

    While runs come in, there is more to read at every look: what takes longer than from one look to the next is left
    to end before more is asked for, or nothing would ever be shown.
    """
    choices = state.kept("sweep.figure", ""), state.kept("sweep.along", "")
    same, far = (path, entry["sweep"], entry["created"], *choices), (entry["done"], entry["runs"])
    of, so_far, before = st.session_state.get("sweep.reading", (None, far, None))
    if not running or of != same:
        before = None
    elif not before.ended:
        far = so_far
    job = ask("outcome", (*same, *far), read_outcome(path, entry["sweep"], *choices))
    st.session_state["sweep.reading"] = same, far, job
    return [job] if before is None else [job, before]


def results(path: Path, entry: dict[str, Any], running: bool) -> None:
    """The figure and the best settings of a sweep."""
    name = entry["sweep"]
    jobs = reading(path, entry, running)
    of, seen = st.session_state.get("sweep.last", ("", None))
    if running and of == name:
        jobs[0].wait(0.3)  # until it is there, the last one is shown
    else:
        seen = None
        state.follow(jobs[:1], st.empty())
    outcome = _result(next((job for job in jobs if job.ended), jobs[0]))
    if outcome is not None:
        st.session_state["sweep.last"] = name, outcome
    else:
        outcome = seen
    if outcome is None:
        st.info("No run of it is stored yet.", icon=":material/hourglass_empty:")
        return
    if running:
        st.caption(f"Best so far {outcome.best[0].loss:.4f} at {_said(outcome.best[0].settings)}")
    figure(outcome)
    best_table(outcome, name, running=running)


def _result(job: Job) -> Outcome | None:
    if job.state == "failed":
        st.error(state.plain(job.problem), icon=":material/error:")
    return job.result if job.state == "done" else None


def figure(outcome: Outcome) -> None:
    """The figure, with the widgets that choose which and what lies along x."""
    swept = outcome.swept
    kinds, along = swept.figures(), swept.along()
    with st.container(horizontal=True):
        if len(kinds) > 1:
            if state.kept("sweep.figure", "") not in kinds:
                state.keep("sweep.figure", kinds[0])
            state.widget(st.segmented_control, "figure", "sweep.figure", kinds[0], options=kinds, required=True)
        if len(along) > 1:
            if state.kept("sweep.along", "") not in along:  # what was chosen just now is not yet in an old outcome
                state.keep("sweep.along", outcome.x)
            state.widget(st.segmented_control, "along x", "sweep.along", outcome.x, options=along, required=True)
    st.altair_chart(chart_of(outcome), width="stretch")
    st.caption(legend_of(outcome) + (f" {outcome.said}." if outcome.said else ""))


def best_table(outcome: Outcome, name: str, *, running: bool) -> None:
    """The best settings, and the button that takes one of them to Explore."""
    rows = []
    for row in outcome.best:
        half = None if row.interval is None else (row.interval.high - row.interval.low) / 2
        told = {key: _cell(row.settings[key]) for key in outcome.swept.keys}
        rows.append(told | {"final loss": row.loss, "± 95 %": half, "seeds": row.seeds, "diverged": row.diverged})
    shown: dict[str, Any] = {name: st.column_config.NumberColumn(format="%.4f") for name in ("final loss", "± 95 %")}
    more: dict[str, Any] = {"hide_index": True, "column_config": shown, "height": min(38 + 35 * len(rows), 285)}
    if running:
        st.dataframe(pd.DataFrame(rows), **more)
        return
    key = f"w.sweep.row.{name}"
    chosen = st.session_state.get(key, {}).get("selection", {}).get("rows", [])
    picked = min(chosen[0], len(rows) - 1) if chosen else 0
    row = outcome.best[picked]
    left, right = st.columns([4, 1], vertical_alignment="center")
    which = "best" if picked == 0 else f"number {picked + 1}"
    left.markdown(f"**{which}: {_said(row.settings)}**, final loss {row.loss:.4f}")
    if right.button("Explore this", key="w.explore", icon=":material/tune:", width="stretch"):
        explore(row.run)
    st.dataframe(pd.DataFrame(rows), key=key, on_select="rerun", selection_mode="single-row", **more)
    said = f"The best {len(rows):,} of {outcome.settings:,} settings. " if outcome.settings > len(rows) else ""
    st.caption(f"{said}A click at the left of a row chooses another.")


def explore(run: Run) -> None:
    """Put a setting in the place of the configuration that is swept from, and go to it."""
    i = LETTERS.index(state.kept("sweep.from", LETTERS[0]))
    state.put_scene(state.scene().put(i, run))
    state.go("explore")


def _said(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {text(value)}" for key, value in settings.items()) or "its one setting"


def _cell(value: Any) -> Any:
    """A value in a table: numbers as they are, so that they sort."""
    return value if type(value) in (int, float) else text(value)
