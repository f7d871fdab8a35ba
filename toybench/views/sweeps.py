"""What the parts of the page Sweep share: the store's sweeps, the processes at them, work at the desk, the address."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from toybench.config import ConfigError
from toybench.store import Store
from toybench.views import state
from toybench.views.jobs import Job
from toybench.views.runner import Runners
from toybench.views.scene import LETTERS

SEEDS = "0:4"  # not those of the scene: what is chosen here is judged there on others
NONE = "none"
CHOICES = {"sweep.from": LETTERS[0], "sweep.x": "", "sweep.y": NONE, "sweep.seeds": SEEDS, "sweep.name": ""}
CHOICES |= {"sweep.show": "", "sweep.figure": "", "sweep.along": ""}


@st.cache_resource(show_spinner=False)
def runners() -> Runners:
    """The sweeps that run, for all pages."""
    return Runners()


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


def ask(kind: str, key: tuple, work: Callable[[Job], Any]) -> Job:
    """Work at the desk; what this page wanted before of the same kind is dropped."""
    wanted: dict[str, tuple] = st.session_state.setdefault("sweep.wanted", {})
    wanted[kind] = (f"sweep.{kind}", *key)
    job = state.desk().ask(state.session(), wanted[kind], work)
    state.desk().keep_only(state.session(), wanted.values())
    return job


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
