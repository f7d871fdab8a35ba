"""The page that sweeps settings: plans, starts, watches and shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from toybench.views import state
from toybench.views.sweep_form import form
from toybench.views.sweep_shown import show_sweep
from toybench.views.sweeps import names_of, publish, runners, stored


def body() -> None:
    """The page."""
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


def nothing_yet() -> None:
    """What stands in the place of a sweep."""
    with st.container(border=True):
        st.markdown("**No sweep yet.**")
        st.write(
            "Choose one or two settings and their ranges, and start: every combination is trained on every seed, in a "
            "process of its own, into the store. The figure fills in as runs are done."
        )
