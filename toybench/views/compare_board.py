"""The second part of the Compare page: outer methods, each at its own best settings, on clusters of all kinds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from toybench.clusters import CLUSTERS
from toybench.config import ConfigError
from toybench.leaderboard import REFERENCE, changes_of, contestants
from toybench.loading import overlay
from toybench.study import vary
from toybench.views import charts_compare, recorded, state
from toybench.views.scene import MOST_SEEDS, Scene, preset_run

FILE = "leaderboard.json"
MAKER = "toybench leaderboard"
DEFAULTS = {"board.cluster": "", "board.view": "table", "board.entry": ""}
VIEWS = {"table": "Table", "gaps": "Gaps", "clusters": "All clusters"}
HOW = """\
Preset {preset}. Every method's rates were tuned on seeds {tuning}, the best five decided on {runoff} too, and the
winner is reported on {reported}, seeds that decided nothing.

- **Rank**: by final loss, with its 95 % bootstrap interval.
- **Settings**: those tuned; *edge* where the best lay at the end of the range that was tried.
- **Gap**: final loss above {reference}'s at equal local steps, per cent, paired by seed, with its 95 % t-interval.
- **Verdict**: on the interval corrected for the number of comparisons on that cluster (Bonferroni).
- **Time**: simulated time to {reference}'s final loss as a share of its time; 1 where it is never reached.
- **Reached**: on how many of the reported seeds."""
CHOSEN = "color: {}; font-weight: 600"


def body(records: Path | None) -> None:
    """The leaderboard of one cluster, or of all."""
    maker = MAKER if records is None else f"{MAKER} --out {records}"
    try:
        document = recorded.document(records, FILE)
        boards = recorded.read_as(lambda: {c: entries(document, c) for c in document["clusters"]}, FILE, MAKER)
        how = recorded.read_as(lambda: how_made(document), FILE, MAKER)
    except ConfigError as error:
        recorded.message(error, maker)
        return
    if not any(boards.values()):
        recorded.message(recorded.Missing("records", "the leaderboard is empty"), maker)
        return
    cluster, view = choose(boards)
    rows = boards[cluster]
    send(document, cluster, rows)
    if view == "table":
        table(rows)
    elif view == "gaps":
        st.altair_chart(charts_compare.gaps(rows, REFERENCE), width="stretch")
        st.caption("Thick: 95 % interval; thin: corrected for the number of comparisons, which decides the verdict.")
    else:
        cells = [row | {"cluster": title(name)} for name, board in boards.items() for row in board]
        st.altair_chart(charts_compare.clusters(cells, [title(name) for name in boards]), width="stretch")
        st.caption(f"Final loss above {REFERENCE} (%), each at its own best settings; in brackets: undecided.")
    with st.expander("How this was made, and what the columns mean", icon=":material/help:"):
        st.markdown(how)
        said = control(document, cluster)
        if said:
            st.markdown(said)


def title(cluster: str) -> str:
    """A cluster in words."""
    return CLUSTERS[cluster][0] if cluster in CLUSTERS else cluster


def choose(boards: Mapping[str, Any]) -> tuple[str, str]:
    """The cluster, and what to see of it."""
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        cluster = state.pick(st.segmented_control, "cluster", "board.cluster", [*boards], format_func=title)
    with right:
        view = state.pick(st.segmented_control, "show", "board.view", [*VIEWS], format_func=lambda name: VIEWS[name])
    return cluster, view


def how_made(document: Mapping[str, Any]) -> str:
    """How the entries were tuned, on which seeds."""
    seeds = {name: recorded.span(document["seeds"][name]) for name in ("tuning", "runoff", "reported")}
    preset = ", ".join([f"`{document['preset']}`", *changes_of(document)])
    return HOW.format(preset=preset, reference=REFERENCE, **seeds)


def control(document: Mapping[str, Any], cluster: str) -> str:
    """What the negative control says on a cluster."""
    found = document.get("control", {}).get(cluster)
    if not found:
        return ""
    interval = f"{found['gap'][0]:+.2f} {recorded.between(found['gap'], '+.2f')} %"
    return f"Negative control, async Nesterov against itself, tuned apart: {interval}, {found['verdict']}."


def entries(document: Mapping[str, Any], cluster: str) -> list[dict[str, Any]]:
    """The rows of a cluster as the table and the figures take them."""
    seeds = len(document["seeds"]["reported"])
    return [
        {
            "method": row["name"],
            "tuned": dict(row["settings"]),
            "settings": recorded.setting_words(row["settings"]) + (" (edge)" if row["on_edge"] else ""),
            "rank": row["rank"][0],
            "rank_text": recorded.between(row["rank"], "g"),
            "loss": row["loss"][0],
            "gap": row["gap"][0],
            "low": row["gap"][1],
            "high": row["gap"][2],
            "gap_text": recorded.between(row["gap"]),
            "wide_low": row["gap_corrected"][1],
            "wide_high": row["gap_corrected"][2],
            "wide_text": recorded.between(row["gap_corrected"]),
            "verdict": row["verdict"],
            "time": row["time_ratio"][0],
            "time_text": recorded.between(row["time_ratio"], ".2f"),
            "reached": f"{row['reached']}/{seeds}",
            "diverged": row["diverged"],
            "said": ("({})" if row["verdict"] == "undecided" else "{}").format(recorded.said(row["gap"][0], "+.1f")),
        }
        for row in document["clusters"][cluster]
    ]


def send(document: Mapping[str, Any], cluster: str, rows: list[dict[str, Any]]) -> None:
    """A method's entry, and a button that opens it on the Explore page."""
    by_name = {row["method"]: row for row in rows}
    left, middle, right = st.columns([3, 1.6, 6], vertical_alignment="bottom")
    with left:
        name = state.pick(st.selectbox, "entry", "board.entry", [*by_name])
    row = by_name[name]
    help = "this entry on the Explore page: its cluster and tuned settings over the preset, on the reported seeds"
    pressed = middle.button("Explore this", icon=":material/tune:", help=help, type="primary", width="stretch")
    gap = f"gap {recorded.said(row['gap'], '+.1f')} % {row['gap_text']}, {row['verdict']}"
    right.markdown(f"rank {row['rank']:g} {row['rank_text']} · {row['settings'] or 'nothing tuned'} · {gap}")
    if pressed:
        try:
            state.put_scene(scene_of(document, cluster, name, row["tuned"]))
        except ConfigError as error:
            st.error(state.plain(str(error)), icon=":material/error:")
        else:
            state.go("explore")


def scene_of(document: Mapping[str, Any], cluster: str, name: str, tuned: Mapping[str, Any]) -> Scene:
    """An entry as it was reported.

    Raises:
        ConfigError: a cluster or a method that this toybench does not know.
    """
    known = contestants()
    if cluster not in CLUSTERS or name not in known:
        raise ConfigError("leaderboard", f"this toybench has no {cluster if cluster not in CLUSTERS else name!r}")
    base = overlay(preset_run(document["preset"]), {**document.get("changes", {}), **CLUSTERS[cluster][1]})
    run = vary(base, {**known[name].changes, **tuned})
    return Scene(document["preset"], tuple(document["seeds"]["reported"][:MOST_SEEDS]), (run,))


def table(rows: list[dict[str, Any]]) -> None:
    """The entries, the least loss first."""
    config = st.column_config
    columns = {
        "rank": config.NumberColumn("rank", format="%g", width=50),
        "rank_text": config.Column("95 %", width=75),
        "method": config.Column("method", width=190),
        "settings": config.Column("best settings", width=300),
        "loss": config.NumberColumn("final loss", format="%.4f", width=75),
        "gap": config.NumberColumn("gap (%)", format="%+.1f", width=65),
        "gap_text": config.Column("95 %", width=105),
        "verdict": config.Column("verdict", width=85),
        "time": config.NumberColumn("time", format="%.2f", width=55),
        "time_text": config.Column("95 %", width=90),
        "reached": config.Column("reached", width=65),
    }
    if any(row["diverged"] for row in rows):
        columns["diverged"] = config.Column("diverged", width=65)
    frame = pd.DataFrame(rows)[[*columns]]
    colours = charts_compare.VERDICTS
    style = frame.style.map(lambda verdict: CHOSEN.format(colours.get(verdict, "inherit")), subset=["verdict"])
    st.dataframe(style, hide_index=True, column_config=columns, height="content", placeholder="–")
