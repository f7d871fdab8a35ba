"""One stored run on demand, and what lists and draws the same on the command line."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import streamlit as st

from toybench.config import ConfigError
from toybench.loading import dump_run, load_run
from toybench.selection import text
from toybench.views import state, stored
from toybench.views.scene import MOST_LETTERS
from toybench.views.stored import Listing


def check_numbers(text: str) -> str:
    """Numbers of runs, or nothing.

    Raises:
        ValueError: they are no numbers.
    """
    if len(text) > MOST_LETTERS or not all(w.isascii() and w.isdigit() and int(w) < 2**63 for w in text.split()):
        raise ValueError
    return text


def details(listing: Listing, chosen: list[int]) -> None:
    """The configuration of a run and where it comes from."""
    options = ["", *map(str, chosen or listing.numbers)]
    opened = bool(state.kept("records.run", "", state.one_of(*options)))
    with st.expander("One run: configuration and provenance", icon=":material/info:", expanded=opened):
        names = {"": "none"}
        number = state.pick(
            st.selectbox, "run", "records.run", options, format_func=lambda n: names.get(n, n), width=160
        )
        if number:
            one_run(listing, int(number))


def one_run(listing: Listing, number: int) -> None:
    """A run's configuration as a file, beside its provenance."""
    found = stored.describe(listing.path, listing.changed, number)
    file, toml = f"run-{number}.toml", as_toml(listing.path, number, found)
    left, right = st.columns(2)
    left.code(toml, "toml", height=470)
    right.dataframe(provenance(found), hide_index=True, height=320)
    right.download_button(f"Download {file}", toml, file, icon=":material/download:", on_click="ignore")
    right.code(f"toybench run {file} --seeds {found['seed']}:{found['seed'] + 1}", "bash")


def as_toml(path: Path, number: int, found: dict[str, Any]) -> str:
    """A run's configuration as a file that `toybench run` takes."""
    import tomli_w

    tables, said = found["configuration"], ""
    try:
        tables = dump_run(load_run(tables))  # in the order of the settings
    except ConfigError as error:  # made by a toybench with other settings
        said = f"# This toybench refuses it: {error}\n"
    return f"# Run {number} of {path}, seed {found['seed']}\n{said}\n{tomli_w.dumps(tables)}"


def provenance(found: dict[str, Any]) -> list[dict[str, str]]:
    """How a run ended, and where it comes from."""
    final = {f"final {name}": value for name, value in found["final"].items()}
    lines = {name: "not finite" if value is None else f"{value:.6g}" for name, value in final.items()}
    lines |= {
        "diverged": text(found["diverged"]),
        "simulated time": f"{found['simulated_time']:,.1f} s",
        "wall time": f"{found['seconds']:.3g} s",
        "made": found["created"],
        "sweeps": ", ".join(found["sweeps"]) or "none",
        "commit": found["commit"] or "unknown",
    }
    lines |= {str(name): str(value) for name, value in found["maker"].items()}
    return [{"of the run": name, "value": value} for name, value in lines.items()]


def command(path: Path, *words: str) -> list[str]:
    """The words of a command line on the store."""
    store = [] if path == Path("results/runs.sqlite") else ["--store", str(path)]
    return ["toybench", *words, *store]


def command_lines(listing: Listing, columns: list[str]) -> None:
    """What lists, draws and exports the same runs on the command line."""
    flags, metric = listing.choice.flags(), state.kept("records.metric", "loss")
    order = ["--sort", listing.order] if listing.order != "run" else []
    lines = [
        command(listing.path, "records", *flags, *(["--columns", *columns] if columns else []), *order),
        command(listing.path, "plot", "curves", *flags, *(["--metric", metric] if metric != "loss" else [])),
        command(listing.path, "records", "export", "runs.csv", *flags),
    ]
    with st.expander("The same on the command line", icon=":material/terminal:"):
        st.code("\n".join(map(shlex.join, lines)), "bash", wrap_lines=True)
        st.caption("`plot curves` draws all runs that pass the filters, the ten best configurations.")
