"""The plan of the page Sweep: what is wanted, what it costs, and the button that starts it."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

import streamlit as st

from toybench.axes import read_words
from toybench.config import ConfigError, Run
from toybench.narrate import title
from toybench.views import plans, state
from toybench.views.plans import Wanted
from toybench.views.scene import LETTERS, MOST_LETTERS
from toybench.views.sweeps import NONE, SEEDS, ask, begin, runners

RANGES = ("log", "linear", "list")
START: dict[str, Any] = {"type": "primary", "width": "stretch", "icon": ":material/play_arrow:"}


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
