"""The Workers page: real runs as they go, from the status that each writes into its folder."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from toybench.config import ConfigError
from toybench.records import read_json
from toybench.views import charts, state

EVERY = 1.0  # seconds between two looks
SILENT = 10.0  # seconds after which a run that is not done is not going on either
START = "toybench run --preset fast --engine threads --pace 0.1"
COLUMNS = {
    "worker": "worker",
    "state": "state",
    "seconds_per_step": st.column_config.NumberColumn("s a step", format="%.3g"),
    "steps": st.column_config.NumberColumn("steps", help="of the visit that it makes"),
    "for": st.column_config.NumberColumn("for (s)", format="%.1f", help="that it has been at it"),
    "staleness": st.column_config.NumberColumn("staleness", help="of its last push"),
    "loss": st.column_config.NumberColumn("loss", format="%.4f", help="of its last visit"),
    "visits": st.column_config.NumberColumn("visits", help="that have arrived"),
}


def body() -> None:
    """Choose a run, and watch it."""
    st.markdown("#### Real workers")
    folders = found_in(state.store_path().parent)
    if not folders:
        st.info(f"No real run in {state.plain(str(state.store_path().parent))} yet.", icon=":material/hourglass_empty:")
        st.code(START, language="bash")
        return
    names = {str(folder): folder for folder in folders}
    folder = names[st.selectbox("Run, the latest first", list(names), key="w.real.folder")]
    going = goes_on(folder)

    def live() -> None:
        if going and not goes_on(folder):
            st.rerun()
        look(folder)

    st.fragment(live, run_every=EVERY)() if going else live()


def found_in(folder: Path) -> list[Path]:
    """The folders of real runs, the latest first."""
    paths = [*folder.glob("*/status.json"), *folder.glob("*/*/status.json")]
    return [path.parent for path in sorted(paths, key=lambda path: -path.stat().st_mtime)]


def goes_on(folder: Path) -> bool:
    """Whether a run is neither done nor silent."""
    path = folder / "status.json"
    try:
        return not read_json(path)["done"] and time.time() - path.stat().st_mtime < SILENT
    except (ConfigError, KeyError, OSError):
        return False


def look(folder: Path) -> None:
    """A run as its status has it."""
    try:
        status = read_json(folder / "status.json")
        figures(status, going=goes_on(folder))
        left, right = st.columns(2)
        with left:
            st.dataframe(pd.DataFrame(status["workers"]), column_config=COLUMNS, hide_index=True, width="stretch")
            tally(status["counts"])
        with right:
            curve(status["points"])
        if (folder / "real.json").exists():
            departures(read_json(folder / "real.json"))
            st.code(f"toybench replay {shlex.quote(str(folder))}", language="bash")
    except (ConfigError, KeyError, TypeError) as error:
        st.error(f"{state.plain(str(folder))}: {state.plain(str(error))}", icon=":material/error:")


def figures(status: dict[str, Any], going: bool) -> None:
    """How far it is, and how fast."""
    done, total = status["local_steps"], status["total_steps"]
    there = sum(worker["state"] != "gone" for worker in status["workers"])
    how = "done" if status["done"] else "going on" if going else "stopped: --resume goes on with it"
    st.progress(min(1.0, done / total), f"{done:,} of {total:,} local steps, {how}")
    if status["failed"]:
        st.error(state.plain(status["failed"]), icon=":material/error:")
    cells = {
        "workers": f"{there} of {len(status['workers'])}",
        "arrivals": f"{status['arrivals']:,}",
        "a minute": f"{status['arrivals_per_minute']:,.0f}",
        "MB a second": f"{status['bytes_per_second'] / 1e6:.3g}",
        "visits lost": f"{status['lost']:,}",
        "held-out loss": f"{status['points'][-1][3]['loss']:.4f}" if status["points"] else "",
    }
    for column, (name, value) in zip(st.columns(len(cells)), cells.items()):
        column.metric(name, value)


def tally(counts: dict[str, int]) -> None:
    """Pushes, by what the server answered."""
    said = [f"{count:,} {name}" for name, count in sorted(counts.items()) if not name.startswith("bytes")]
    st.caption("Pushes and workers: " + state.plain(", ".join(said)) if said else "No pushes yet.")


def curve(points: Sequence[Sequence[Any]]) -> None:
    """The held-out loss against the wall clock."""
    if len(points) < 2:
        st.info("No evaluation yet.", icon=":material/hourglass_empty:")
        return
    loss = np.array([np.nan if point[3]["loss"] is None else point[3]["loss"] for point in points], float)
    line = {
        "title": "real",
        "seconds": np.array([point[2] for point in points]),
        "mean": loss,
        "low": None,
        "high": None,
    }
    st.altair_chart(charts.curves([line], "seconds", "loss", 0), width="stretch")


def departures(document: dict[str, Any]) -> None:
    """A finished run beside what the cluster model says."""
    st.markdown("##### Beside its simulation, told the measured speeds")
    st.dataframe(pd.DataFrame(document["predicted"]).rename(columns={"name": ""}), hide_index=True)
