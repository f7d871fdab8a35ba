"""The Compare page: stored runs, the leaderboard, the report on the paper, and the toy beside a language model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from toybench.views import compare_board, compare_bridge, compare_paper, compare_records, state

PARTS = {
    "records": (":material/database: Records", compare_records.DEFAULTS),
    "leaderboard": (":material/leaderboard: Leaderboard", compare_board.DEFAULTS),
    "paper": (":material/article: Paper report", compare_paper.DEFAULTS),
    "bridge": (":material/compare_arrows: Toy and language model", compare_bridge.DEFAULTS),
}


def body(records: Path | None = None) -> None:
    """The page; `records` is the folder of the committed records, where there is one."""
    st.markdown("### Runs beside each other")
    part = state.widget(
        st.segmented_control,
        "part",
        "compare",
        "records",
        state.one_of(*PARTS),
        options=[*PARTS],
        format_func=lambda name: PARTS[name][0],
        label_visibility="collapsed",
        width="stretch",
    )
    try:
        if part == "records":
            compare_records.body()
        elif part == "leaderboard":
            compare_board.body(records)
        elif part == "bridge":
            compare_bridge.body(records)
        else:
            compare_paper.body(records)
    finally:  # also where a message stands instead of the part
        publish({"compare": "records"} | PARTS[part][1])


def publish(defaults: Mapping[str, str]) -> None:
    """Put this part's choices into the query string: what was chosen, or else still what it asked for."""
    kept, asked = st.session_state["kept"], st.session_state["asked"]
    state.publish({name: (kept.get(name, asked.get(name, default)), default) for name, default in defaults.items()})
