"""The last part of the Compare page: whether the toy's order of methods is the language model's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from toybench.compare import REFERENCE, Agreement, sentence
from toybench.config import ConfigError
from toybench.views import charts_compare, recorded, state

FILE = "bridge/compare.json"
MAKER = "toybench compare TOY/leaderboard.json LM/leaderboard.json"
DEFAULTS = {"bridge.clusters": ""}
HOW = (
    f"Gap: final loss above {REFERENCE}'s, per cent, each method at its own best outer rate, paired by seed, with its "
    "95 % t-interval. Rank: by final loss, with its 95 % bootstrap interval over the seeds. Tau's interval: bootstrap "
    "over methods and over the seeds of each side."
)


def body(records: Path | None) -> None:
    """The comparison of one pair of clusters."""
    maker = MAKER if records is None else f"{MAKER} --out {records / Path(FILE).parent}"
    try:
        found: Any = recorded.document(records, FILE)
        read = recorded.read_as(lambda: {clusters(one): shown(one) for one in found}, FILE, MAKER)
    except ConfigError as error:
        recorded.message(error, maker)
        return
    if not read:
        recorded.message(recorded.Missing("records", "the comparison is empty"), maker)
        return
    chosen = next(iter(read))
    if len(read) > 1:
        chosen = state.pick(st.segmented_control, "clusters", "bridge.clusters", [*read])
    document, rows = read[chosen]
    st.info(state.plain(sentence(document)), icon=":material/compare_arrows:")
    st.altair_chart(charts_compare.bridge(rows, document["titles"]), width="stretch")
    table(rows, document["titles"])
    st.caption(HOW)


def clusters(document: Mapping[str, Any]) -> str:
    """What a comparison is of."""
    return ", ".join(dict.fromkeys(document["clusters"]))


def shown(document: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A comparison, its agreement read, and its rows as the table and the figure take them."""
    found = document["agreement"]
    read = {**document, "agreement": Agreement(**{**found, "within": tuple(found["within"])})}
    rows = []
    for row in document["rows"]:
        flat = {"method": row["name"]}
        for side, (gap, rank) in enumerate(zip(row["gap"], row["rank"], strict=True)):
            flat |= {f"gap{side}": gap[0], f"low{side}": gap[1], f"high{side}": gap[2], f"rank{side}": rank[0]}
            flat |= {f"gap_text{side}": recorded.between(gap), f"rank_text{side}": recorded.between(rank, "g")}
        rows.append(flat)
    sentence(read)  # says whether it can be said
    return read, rows


def table(rows: list[dict[str, Any]], titles: list[str]) -> None:
    """Ranks and gaps on both sides, the toy's best first."""
    config = st.column_config
    columns = {"method": config.Column("method", width=170)}
    for side, title in enumerate(titles):
        columns[f"rank{side}"] = config.NumberColumn(f"rank, {title}", format="%g", width=70)
        columns[f"gap{side}"] = config.NumberColumn(f"gap (%), {title}", format="%+.2f", width=80)
        columns[f"gap_text{side}"] = config.Column("95 %", width=105)
    frame = pd.DataFrame(rows)[[*columns]]
    st.dataframe(frame, hide_index=True, column_config=columns, height="content", placeholder="–")
