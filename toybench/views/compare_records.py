"""The first part of the Compare page: the runs of the store as a table, and their curves over each other."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from toybench.config import ConfigError, Run
from toybench.curves import Curves
from toybench.plots.curves import numbers
from toybench.plots.style import MOST_LINES
from toybench.presets import preset_names
from toybench.selection import label, text
from toybench.views import charts_compare, compare_run, state, stored
from toybench.views.scene import LETTERS, MOST_SEEDS, Scene, differences
from toybench.views.stored import Choice, Listing

DEFAULTS = {
    "records.sweep": "",
    "records.where": "",
    "records.columns": "",
    "records.sort": "run",
    "records.order": "up",
    "records.runs": "",
    "records.run": "",
    "records.metric": "loss",
}
ARROWS = {"up": "↑ least first", "down": "↓ most first"}
NAMES = {"loss": "final loss", "simulated_time": "simulated time", "seconds": "wall seconds", "created": "made"}
METHOD = st.column_config.Column(width=150)
COLUMNS: dict[str, Any] = {
    "outer.method": METHOD,
    "loss": st.column_config.NumberColumn("final loss", format="%.4f"),
    "simulated_time": st.column_config.NumberColumn("simulated time (s)", format="localized"),
    "diverged": st.column_config.Column("", width="small"),
    "created": st.column_config.DatetimeColumn("made", format="YYYY-MM-DD HH:mm"),
}


def body() -> None:
    """Choose, list, draw."""
    path = state.store_path()
    try:
        changed = stored.stamp(path)
        sweeps = [sweep["sweep"] for sweep in stored.sweeps(path, changed)]
        every = stored.facts(path, changed, Choice())
    except ConfigError as error:
        no_store(path, error)
        return
    if not every.runs:
        no_runs(path)
        return
    listing = choose(path, changed, sweeps)
    if listing is not None:
        chosen = table(listing)
        overlay(listing, chosen)
        compare_run.details(listing, chosen)
        compare_run.command_lines(listing, state.kept("records.columns", "").split())


def no_store(path: Path, error: ConfigError) -> None:
    if not path.exists():
        no_runs(path)
        return
    st.error(state.plain(str(error)), icon=":material/error:")
    st.markdown(f"The environment variable `{state.STORE}` names another file.")


def no_runs(path: Path) -> None:
    st.info(f"No runs in `{path}` yet.", icon=":material/database:")
    st.markdown("The Sweep page makes some, and so does the command line:")
    words = ("sweep", "--grid", "outer.lr=log:0.01:1:9", "--seeds", "8", "--name", "rates")
    st.code(shlex.join(compare_run.command(path, *words)), "bash")


# What is listed


def choose(path: Path, changed: stored.Stamp, sweeps: list[str]) -> Listing | None:
    """The filters, and the runs that pass them, if any do."""
    places = st.columns([3, 6, 2.4, 2, 1.8], vertical_alignment="bottom")
    with places[0]:
        named = {"": "all runs"}
        sweep = state.pick(
            st.selectbox, "sweep", "records.sweep", ["", *sweeps], format_func=lambda name: named.get(name, name)
        )
    with places[1]:
        where = where_field()
    try:
        choice = Choice(sweep or None, stored.read_items(where))
        facts = stored.facts(path, changed, choice)
    except ConfigError as error:
        st.error(state.plain(str(error)), icon=":material/filter_alt_off:")
        return None
    if not facts.runs:
        st.info("No run has these settings.", icon=":material/filter_alt:")
        return None
    metrics = stored.metrics(path, changed)
    with places[4]:
        columns = choose_columns(facts, metrics)
    sortable = [*stored.ROW, *columns]
    with places[2]:
        order = state.pick(st.selectbox, "sort by", "records.sort", sortable, format_func=lambda c: NAMES.get(c, c))
    with places[3]:
        down = state.pick(st.selectbox, "order", "records.order", [*ARROWS], format_func=lambda o: ARROWS[o]) == "down"
    rows = stored.rows(path, changed, choice, columns, order, down)
    return Listing(path, changed, choice, facts, metrics, columns, order, rows)


def where_field() -> str:
    """The settings that a run must have."""
    help = "settings that a run must have, as after `--where`; a list in quotation marks"
    example = 'KEY=VALUE …, such as outer.method=sgd cluster.sec_per_step="1 1 2 8"'
    more = {"placeholder": example, "help": help, "max_chars": 500}
    return state.widget(st.text_input, "only runs with", "records.where", "", **more)


def choose_columns(facts: stored.Facts, metrics: list[str]) -> tuple[str, ...]:
    """The settings and metrics that the table shows; what the runs differ in, unless chosen."""
    asked = state.kept("records.columns", "", lambda words: " ".join(stored.check_columns(words.split(), metrics)))
    columns = stored.check_columns(asked.split(), metrics) or tuple(facts.varied) or ("outer.method", "outer.lr")
    key = "w.records.columns"

    def changed() -> None:
        state.keep("records.columns", " ".join(st.session_state[key]))

    st.session_state[key] = [*columns]
    options = list(dict.fromkeys([*columns, *facts.keys, *(name for name in metrics if name != "loss")]))
    with st.popover("Columns", icon=":material/view_column:", width="stretch"):
        help = "settings or final metrics; none: what the runs differ in"
        st.multiselect("columns", options, key=key, on_change=changed, help=help)
    return columns


def table(listing: Listing) -> list[int]:
    """The listed runs; the numbers of those that are selected, by the query string or by clicks."""
    plural = "s" * (listing.facts.configurations != 1)
    first = f"the first {stored.SHOWN} of " if listing.facts.runs > stored.SHOWN else ""
    counts = f"{first}{listing.facts.runs:,} runs of {listing.facts.configurations:,} configuration{plural}"
    st.caption(f"{counts} in `{listing.path}`")
    listed = listing.numbers
    asked = [int(word) for word in state.kept("records.runs", "", compare_run.check_numbers).split()]
    if lacking := [number for number in asked if number not in set(listed)]:
        st.warning(f"Not among the listed runs: {', '.join(map(str, lacking[:10]))}", icon=":material/filter_alt:")
    rows = [i for i, number in enumerate(listed) if number in set(asked)]
    shown = frame(listing)
    event: Any = st.dataframe(
        shown,
        key=f"records.table.{hash((*listed, *listing.columns))}",  # a selection is of rows, wherever they are now
        hide_index=True,
        column_config=formats(shown),
        height=min(38 + 35 * len(listed), 430),
        on_select="rerun",
        selection_mode="multi-row",
        selection_default={"selection": {"rows": rows}},
        placeholder="",
    )
    chosen = [listed[i] for i in event["selection"]["rows"] if i < len(listed)]
    state.keep("records.runs", " ".join(map(str, chosen)))
    return chosen


def frame(listing: Listing) -> pd.DataFrame:
    """The rows as a table."""
    names = ["run", *listing.columns, "seed", "loss", "diverged", "simulated_time", "created"]
    columns = {name: [row[name] for row in listing.rows] for name in names}
    if not any(columns["diverged"]):
        del columns["diverged"]
    else:
        columns["diverged"] = ["diverged" if one else "" for one in columns["diverged"]]
    for name in listing.columns:
        if any(isinstance(value, (list, bool)) for value in columns[name]):
            columns[name] = ["" if value is None else text(value) for value in columns[name]]
    return pd.DataFrame(columns).assign(created=pd.to_datetime(columns["created"], utc=True))


def formats(table: pd.DataFrame) -> dict[str, Any]:
    """How the columns are shown: of other numbers than `COLUMNS` all digits that tell them apart."""
    numbers = [str(name) for name in table.select_dtypes("float")]
    return {name: st.column_config.NumberColumn(format="%.6g") for name in numbers} | COLUMNS


# What is drawn


def overlay(listing: Listing, chosen: list[int]) -> None:
    """The curves of the selected runs, or of all where they are of few configurations."""
    facts = listing.facts
    if not chosen and (facts.configurations > MOST_LINES or facts.runs > stored.MOST_READ):
        few = f"at most {MOST_LINES} configurations and {stored.MOST_READ:,} runs"
        st.info(f"Select runs in the table to see their curves, or filter to {few}.", icon=":material/show_chart:")
        actions(listing, [])
        return
    try:
        settings = stored.settings(listing.path, listing.changed, listing.choice, tuple(sorted(chosen)))
    except ConfigError as error:  # made by a toybench with other settings, or removed meanwhile
        st.error(state.plain(f"These runs cannot be drawn: {error}"), icon=":material/error:")
        return
    actions(listing, settings)
    curves(settings, len(chosen) or facts.runs)


def actions(listing: Listing, settings: list[Curves]) -> None:
    """To the Explore page, and the listed runs as a file."""
    left, right, _ = st.columns([2, 2, 5])
    count = min(len(settings), len(LETTERS))
    said = "Explore this" if count < 2 else f"Explore {'these' if count == len(settings) else 'the best'} {count}"
    help = "on their own seeds; where these chose them, others are fairer: change them under Budget"
    if left.button(said, icon=":material/tune:", disabled=not settings, help=help, width="stretch", type="primary"):
        seeds = [seed for setting in settings[:count] for seed in setting.seeds]
        state.put_scene(scene_of([setting.run for setting in settings[:count]], seeds))
        state.go("explore")
    said = f"{len(listing.rows):,} rows as CSV"
    more: dict[str, Any] = {"icon": ":material/download:", "on_click": "ignore", "width": "stretch"}
    right.download_button(said, as_csv(listing.rows), "runs.csv", "text/csv", **more)


def as_csv(rows: list[dict[str, Any]]) -> str:
    """The listed rows, spaces between the items of a list."""
    from toybench.report import words

    return pd.DataFrame([{name: words(value) for name, value in row.items()} for row in rows]).to_csv(index=False)


def scene_of(runs: Sequence[Run], seeds: Sequence[int]) -> Scene:
    """Configurations over the preset that they differ from least."""
    preset = min(preset_names(), key=lambda name: sum(len(differences(name, run)) for run in runs))
    return Scene(preset, tuple(sorted(set(seeds))[:MOST_SEEDS]), tuple(runs))


def curves(settings: list[Curves], runs: int) -> None:
    """Against local steps and simulated time, and what the colours mean."""
    names = [name for name in settings[0].metrics if all(name in setting.metrics for setting in settings)]
    names.sort(key=lambda name: name != "loss")
    metric = state.pick(st.segmented_control, "metric", "records.metric", names, "loss", label_visibility="collapsed")
    drawn = numbers(settings, metric)
    labels = [label(line["settings"], drawn["keys"]) or "the one configuration" for line in drawn["lines"]]
    for column, x in zip(st.columns(2), charts_compare.AXES):
        column.altair_chart(charts_compare.curves(drawn, labels, x), width="stretch", key=f"records.curves.{x}")
    legend(drawn)
    said = [f"The best {MOST_LINES} of {len(settings)} configurations by final loss."] if drawn["left_out"] else []
    said.append("Means over the seeds; bands: 95 % t-intervals")
    said[-1] += f" of the best {charts_compare.BANDS}." if len(labels) > charts_compare.BANDS else "."
    if twice := runs - sum(len(setting.seeds) for setting in settings):
        said.append(f"{twice:,} runs were made again by other code or versions; the latest count.")
    st.caption(" ".join(said))


def legend(drawn: dict[str, Any]) -> None:
    """The lines as a table."""
    found = [
        {"line": charts_compare.swatch(i)}
        | {key: text(line["settings"].get(key)) for key in drawn["keys"]}
        | {"seeds": line["seeds"], "diverged": line["diverged"], "mean final loss": f"{line['final_loss']:.4f}"}
        for i, line in enumerate(drawn["lines"])
    ]
    config = {"line": st.column_config.ImageColumn("", width=70), "outer.method": METHOD}
    st.dataframe(found, hide_index=True, width="content", height="content", column_config=config)
