"""The page that sweeps settings: plans, starts, watches and shows."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from toybench.axes import read_words
from toybench.config import ConfigError, Run
from toybench.interrupt import INTERRUPTED
from toybench.narrate import title
from toybench.selection import text
from toybench.store import Store
from toybench.views import plans, state
from toybench.views.charts_sweep import chart_of, legend_of
from toybench.views.jobs import Job
from toybench.views.outcomes import Outcome, read_outcome
from toybench.views.plans import Wanted
from toybench.views.runner import Ended, Runner, Runners
from toybench.views.scene import LETTERS, MOST_LETTERS

SEEDS = "0:4"  # not those of the scene: what is chosen here is judged there on others
NONE = "none"
EVERY = 1.0  # seconds between two looks at a sweep that runs
CHOICES = {"sweep.from": LETTERS[0], "sweep.x": "", "sweep.y": NONE, "sweep.seeds": SEEDS, "sweep.name": ""}
CHOICES |= {"sweep.show": "", "sweep.figure": "", "sweep.along": ""}
RANGES = ("log", "linear", "list")
START: dict[str, Any] = {"type": "primary", "width": "stretch", "icon": ":material/play_arrow:"}


@st.cache_resource(show_spinner=False)
def runners() -> Runners:
    """The sweeps that run, for all pages."""
    return Runners()


def body() -> None:
    st.markdown("### Every setting on the same seeds")
    path = state.store_path()
    sweeps, problem = stored(path)
    shown = state.kept("sweep.show", "")
    plan_side, shown_side = st.columns([5, 8], gap="large")
    with plan_side:
        form(path, sweeps, problem)
    with shown_side:
        if problem:
            st.error(state.plain(problem), icon=":material/error:")
        elif names := names_of(path, sweeps):
            if shown not in names:
                if shown:
                    missing = f"There is no sweep {shown[:100]!r} in this store."
                    st.warning(state.plain(missing), icon=":material/search_off:")
                state.keep("sweep.show", shown := names[0])
            state.widget(st.selectbox, "sweep", "sweep.show", shown, options=names)
            unfinished(path, sweeps)
            show_sweep(path, state.kept("sweep.show", shown))
        else:
            nothing_yet()
    publish()


def publish() -> None:
    """Put what this page shows into the query string."""
    choices = {name: (state.kept(name, own), own) for name, own in CHOICES.items()}
    state.publish(choices)


def stored(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The sweeps of the store, the newest first, and what is wrong with it."""
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        return [], ""
    try:
        with Store(path, writable=False) as store:
            return store.sweeps()[::-1], ""
    except ConfigError as error:
        just_begun = any(runners().get(path, name).running for name in runners().names(path))
        return [], "" if just_begun else str(error)


def names_of(path: Path, sweeps: list[dict[str, Any]]) -> list[str]:
    """Sweeps to show: those of the store, and those that were started and never got there."""
    there = [entry["sweep"] for entry in sweeps]
    return [*(name for name in runners().names(path)[::-1] if name not in there), *there]


def unfinished(path: Path, sweeps: list[dict[str, Any]]) -> None:
    """The other sweeps that lack runs: those that go on, and those that may be resumed."""
    others = [
        entry for entry in sweeps if entry["done"] < entry["runs"] and entry["sweep"] != state.kept("sweep.show", "")
    ]
    if others:
        said = [
            f"{entry['sweep']} ({'running' if runners().get(path, entry['sweep']).running else 'to resume'})"
            for entry in others[:8]
        ]
        st.caption(f"also unfinished: {', '.join(said)}{' …' if len(others) > 8 else ''}")


def _when(entry: dict[str, Any]) -> str:
    return entry["created"][:16].replace("T", " ")


def ask(kind: str, key: tuple, work: Callable[[Job], Any]) -> Job:
    """Work at the desk; what this page wanted before of the same kind is dropped."""
    wanted: dict[str, tuple] = st.session_state.setdefault("sweep.wanted", {})
    wanted[kind] = (f"sweep.{kind}", *key)
    job = state.desk().ask(state.session(), wanted[kind], work)
    state.desk().keep_only(state.session(), wanted.values())
    return job


def nothing_yet() -> None:
    with st.container(border=True):
        st.markdown("**No sweep yet.**")
        st.write(
            "Choose one or two settings and their ranges, and start: every combination is trained on every seed, in a "
            "process of its own, into the store. The figure fills in as runs are done."
        )


# The plan


def form(path: Path, sweeps: list[dict[str, Any]], problem: str) -> None:
    """What is wanted, what it costs, and the button that starts it."""
    with st.container(border=True):
        base = base_of()
        keys = plans.keys_of(base)
        axes = [axis("swept setting", "sweep.x", "", keys, base)]
        if second := axis("second setting", "sweep.y", NONE, [NONE, *keys], base):
            axes.append(second)
        left, right = st.columns(2)
        with left:
            said = (
                "A count from 0, LOW:HIGH, or several numbers. Explore has other seeds, so that what is best here is "
            )
            said += "judged there on fresh ones."
            state.widget(st.text_input, "seeds", "sweep.seeds", SEEDS, max_chars=MOST_LETTERS, help=said)
        taken = {entry["sweep"] for entry in sweeps} | {*runners().names(path)}
        free = plans.free_name(taken)
        with right:
            said = "letters, digits, '.', '_' and '-'"
            state.widget(st.text_input, "name", "sweep.name", "", max_chars=100, placeholder=free, help=said)
        name = state.kept("sweep.name", "").strip() or free
        try:
            wanted = Wanted(
                state.scene().preset,
                base,
                tuple(plans.whole(one) for one in axes if one),
                plans.page_seeds(state.kept("sweep.seeds", SEEDS)),
            )
            wanted.product()
            if name in taken:
                raise ConfigError("name", f"{name!r} is taken; {free!r} is free")
            size, pace = measured(path, sweeps, wanted, name)
        except ConfigError as error:
            st.error(state.plain(str(error)), icon=":material/error:")
            st.button("Run", key="w.start", disabled=True, **START)
            return
        total = size.settings * len(wanted.seeds)
        said = " × ".join((_count(size.settings, "setting"), _count(len(wanted.seeds), "seed")))
        seconds, how = plans.estimate(size, base, pace)
        said += f" = **{_count(total, 'run')}** in {_count(size.calls, 'call')}, about **{plans.duration(seconds)}**"
        st.markdown(said, help=f"estimated {how}")
        if wanted.left_out:
            said = ", ".join(wanted.left_out)
            st.caption(f"{said}: not every swept method has it, so each takes its own default.")
        command = wanted.command(name, path)
        if st.button("Run", key="w.start", disabled=bool(problem), **START):
            begin(path, name, command, before=0, total=total)
        with st.expander("The same on a command line", icon=":material/terminal:"):
            st.code(shlex.join(command), language="bash", wrap_lines=True)
            st.caption("Or as a file, for `toybench sweep FILE`; its first line says with which flags.")
            st.download_button(
                f"{name}.toml",
                wanted.file(name, path),
                file_name=f"{name}.toml",
                mime="application/toml",
                on_click="ignore",
                icon=":material/download:",
            )


def base_of() -> Run:
    """The configuration of the scene that is swept from, and the widget that chooses it."""
    runs = state.scene().runs
    letters = [*LETTERS[: len(runs)]]
    if state.kept("sweep.from", letters[0], state.one_of(*LETTERS)) not in letters:
        state.keep("sweep.from", letters[0])
    if len(runs) > 1:
        said = {letter: f"{letter.upper()} · {title(run)}" for letter, run in zip(letters, runs)}
        more: dict[str, Any] = {"options": letters, "format_func": said.get, "width": "stretch", "required": True}
        state.widget(st.segmented_control, "from a configuration of Explore", "sweep.from", letters[0], **more)
    base = runs[letters.index(state.kept("sweep.from", letters[0]))]
    if len(runs) == 1:
        st.caption(f"from **{title(base)}** on preset {state.scene().preset}, as it is on Explore")
    return base


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'s'[: count != 1]}"


def measured(
    path: Path, sweeps: list[dict[str, Any]], wanted: Wanted, name: str
) -> tuple[plans.Size, plans.Pace | None]:
    """How much the sweep is, and how long its like took; made beside the page.

    Raises:
        ConfigError: it is no sweep.
    """
    done = sum(entry["done"] for entry in sweeps)
    asked = [ask("plan", (wanted, name), plans.measure_plan(wanted, name))]
    if done:
        asked.append(ask("pace", (path, wanted.base, done), plans.measure_pace(path, wanted.base)))
    state.follow(asked, st.empty())
    if asked[0].state != "done":
        name, _, problem = (asked[0].problem or "plan: was dropped").partition(": ")
        raise ConfigError(name, problem)
    return asked[0].result, asked[1].result if len(asked) > 1 else None


def axis(said: str, name: str, default: str, keys: list[str], base: Any) -> str | None:
    """Widgets for a key and its values, which are kept as one text, ``KEY=VALUES``; nothing where none is chosen."""
    kept = state.kept(name, default, lambda asked: asked if asked == NONE == default else plans.read_axis(asked))
    kept = kept or f"outer.lr={plans.suggested(base, 'outer.lr')}"
    key, _, values = kept.partition("=")
    kind, low, high, points = _range_of(values)
    own = {part: f"w.{name}.{part}" for part in ("key", "kind", "low", "high", "points", "list", "choice")}
    now = st.session_state

    def another_key() -> None:
        if chosen := now[own["key"]]:
            state.keep(name, NONE if chosen == NONE else f"{chosen}={plans.suggested(base, chosen)}")

    def another_kind() -> None:
        if (chosen := now[own["kind"]]) == "list":
            with suppress(ConfigError):
                listed = [" ".join(own) for own in read_words(key, values)[:50]]
                state.keep(name, f"{key}={','.join(listed)}")
        elif chosen:
            ends = (low, high, points) if kind != "list" else _range_of(plans.suggested(base, key))[1:]
            state.keep(name, f"{key}={chosen}:{':'.join(map(str, ends))}")

    def another_range() -> None:
        ends = (str(now[own[part]]).replace(":", "").strip() for part in ("low", "high", "points"))
        state.keep(name, f"{key}={kind}:{':'.join(ends)}")

    def another_list() -> None:
        state.keep(name, f"{key}={now[own['list']]}")

    def another_choice() -> None:
        state.keep(name, f"{key}={','.join(now[own['choice']])}")

    st.session_state[own["key"]] = key
    options = keys if key in keys else [*keys, key]
    st.selectbox(said, options, key=own["key"], on_change=another_key, help=_help(key))
    if key == NONE:
        return None
    form = plans.kind_of(key)
    if form == "choice":
        now[own["choice"]] = [value for value in values.split(",") if value]
        st.multiselect("values", plans.options_of(key), key=own["choice"], on_change=another_choice)
    elif form == "words":
        now[own["list"]] = values
        st.text_input("values, with commas between", key=own["list"], on_change=another_list, max_chars=MOST_LETTERS)
    else:
        now[own["kind"]] = kind
        st.segmented_control(
            "range", RANGES, key=own["kind"], on_change=another_kind, label_visibility="collapsed", required=True
        )
        if kind == "list":
            now[own["list"]] = values
            st.text_input(
                "values, with commas between", key=own["list"], on_change=another_list, max_chars=MOST_LETTERS
            )
        else:
            now[own["low"]], now[own["high"]], now[own["points"]] = low, high, points
            columns = st.columns(3)
            columns[0].text_input("from", key=own["low"], on_change=another_range, max_chars=30)
            columns[1].text_input("to", key=own["high"], on_change=another_range, max_chars=30)
            columns[2].number_input("points", key=own["points"], on_change=another_range, step=1, format="%d")
    return kept


def _range_of(values: str) -> tuple[str, str, str, int]:
    """A range's kind, ends and number of points; of a list its kind alone."""
    kind, *rest = values.split(":")
    if kind in ("log", "linear") and len(rest) == 3 and rest[2].strip().isdecimal():
        return kind, rest[0], rest[1], min(int(rest[2]), 10**9)
    return "list", "", "", 2


def _help(key: str) -> str | None:
    """What a setting is, for a tooltip."""
    if key == NONE:
        return "two settings give a heat map, or a line for each value of the second"
    if (found := plans.field_of(key)) is None:
        return None
    unit = f" [{found[0].metadata['unit']}]" if found[0].metadata["unit"] else ""
    return found[0].metadata["help"] + unit


def begin(path: Path, name: str, command: list[str], *, before: int, total: int) -> None:
    """Start a process at a sweep, and show it."""
    try:
        runners().get(path, name).start(command, before=before, total=total)
    except ConfigError as error:
        st.error(state.plain(str(error)), icon=":material/error:")
        return
    state.keep("sweep.show", name)
    state.keep("sweep.name", "")
    st.rerun()


# What came of it


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
        st.caption(f":material/check: all {total:,} runs are done, begun {_when(entry)}")
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


def results(path: Path, entry: dict[str, Any], running: bool) -> None:
    """The figure and the best settings of a sweep."""
    name = entry["sweep"]
    asked = state.kept("sweep.figure", ""), state.kept("sweep.along", "")
    key = (path, name, entry["created"], entry["done"], entry["runs"], *asked)
    job = ask("outcome", key, read_outcome(path, name, *asked))
    last = st.session_state.get("sweep.last")
    if running and last and last[0] == name:
        job.wait(0.3)  # until it is there, the last one is shown
    else:
        state.follow([job], st.empty())
    outcome = _result(job)
    if outcome is not None:
        st.session_state["sweep.last"] = name, outcome
    elif running and last and last[0] == name:
        outcome = last[1]
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
