"""What a page remembers: the scene and the choices of its widgets, in the session and in the query string."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st

from toybench.config import ConfigError
from toybench.views.jobs import Desk, Job
from toybench.views.scene import LETTERS, Scene, decode, encode
from toybench.views.stories import stories

STORE = "TOYBENCH_STORE"  # the environment variable that names the file of the runs


@st.cache_resource(show_spinner=False)
def desk() -> Desk:
    """The threads that work for all pages."""
    made = Desk(alive=_is_open)
    atexit.register(made.close)
    return made


def _is_open(owner: str) -> bool:
    """Whether a page is still open somewhere; the server itself always is."""
    from streamlit.runtime import Runtime

    return owner in ("server", "alone") or not Runtime.exists() or Runtime.instance().is_active_session(owner)


def store_path() -> Path:
    """The file of the runs: the command line's, unless the environment names another."""
    return Path(os.environ.get(STORE) or "results/runs.sqlite")


def session() -> str:
    """What tells this page from the others that are open."""
    from streamlit.runtime.scriptrunner import get_script_run_ctx

    context = get_script_run_ctx()
    return context.session_id if context else "alone"


def begin() -> None:
    """At the first run of a session, what its query string asks for."""
    if "scene" in st.session_state:
        return
    asked = st.query_params.to_dict()
    scene, problems = decode(asked)
    if not any(key.partition(".")[0] in (*LETTERS, "preset") for key in asked):
        scene = replace(next(iter(stories().values())).scene, seeds=scene.seeds)
    st.session_state.update(scene=scene, asked=asked, kept={}, problems=problems)


def scene() -> Scene:
    return st.session_state["scene"]


def put_scene(scene: Scene) -> None:
    st.session_state["scene"] = scene


def know_pages(pages: Mapping[str, Any]) -> None:
    """The pages by name, for `go`."""
    st.session_state["pages"] = dict(pages)


def go(name: str) -> None:
    """Switch to another page."""
    st.switch_page(st.session_state["pages"][name])


def plain(said: str) -> str:
    """A message in Markdown without links and pictures: what an address or a store says must fetch nothing."""
    return said.replace("\\", r"\\").replace("[", r"\[")


def complain(problem: str) -> None:
    """Say it at the top of the page."""
    st.session_state["problems"] = [*st.session_state.get("problems", []), problem]


def show_problems() -> None:
    """All that was complained of in this run, or by a click before it."""
    for problem in dict.fromkeys(st.session_state.pop("problems", [])):
        st.warning(plain(problem), icon=":material/error:")


def kept(name: str, default: Any = None, read: Callable[[str], Any] = str) -> Any:
    """A choice of this session: at first what the query string says, as `read` reads it, else the default."""
    choices = st.session_state["kept"]
    if name not in choices:
        choices[name] = default
        if (asked := st.session_state["asked"].get(name)) is not None:
            try:
                choices[name] = read(asked)
            except (ValueError, ConfigError) as error:
                complain(str(error) if isinstance(error, ConfigError) else f"{name}: cannot be {asked[:80]!r}")
    return choices[name]


def keep(name: str, value: Any) -> None:
    st.session_state["kept"][name] = value


def one_of(*options: str) -> Callable[[str], str]:
    """Reads a text that must be one of some."""

    def read(text: str) -> str:
        if text not in options:
            raise ValueError
        return text

    return read


def widget(make: Callable, label: str, name: str, default: Any, read: Callable[[str], Any] = str, **more: Any) -> Any:
    """A widget that shows and changes a kept choice; a choice that is taken back by a click stays."""
    key = f"w.{name}"

    def changed() -> None:
        if (value := st.session_state[key]) is not None:
            keep(name, value)

    st.session_state[key] = kept(name, default, read)
    make(label, key=key, on_change=changed, **more)
    return kept(name)


def pick(make: Callable, label: str, name: str, options: Sequence[str], default: str = "", **more: Any) -> str:
    """A widget that chooses one of some texts; a choice that is no more among them gives way to the default."""
    default = default if default in options else options[0]
    if kept(name, default, one_of(*options)) not in options:
        keep(name, default)
    return widget(make, label, name, default, options=options, **more)


def publish(choices: Mapping[str, tuple[Any, Any]], *, with_scene: bool = True) -> None:
    """Put the scene, and the choices (value and default) that are not at their defaults, into the query string."""
    query = encode(scene()) if with_scene else {}
    query |= {name: str(value) for name, (value, default) in choices.items() if value != default}
    if st.query_params.to_dict() != query:
        st.query_params.from_dict(query)


BAR_AFTER, STOP_AFTER = 0.15, 1.5  # seconds; what is quicker needs none


def follow(jobs: Sequence[Job], place: Any, stop: Callable[[], None] | None = None) -> None:
    """Show how far some jobs are until all have ended. A change of any widget cuts it short, as all of a page.

    Args:
        jobs: all are waited for.
        place: an empty element, which is empty again at the end.
        stop: called when the user stops it.
    """
    bar, began, stoppable = None, time.monotonic(), False
    while not all(job.ended for job in jobs):
        next(job for job in jobs if not job.ended).wait(0.04)
        waited = time.monotonic() - began
        if bar is None and waited > BAR_AFTER:
            box = place.container()
            bar, button = box.empty(), box.empty()
        if bar is not None:
            said = next((job.said for job in jobs if job.state == "running"), "waiting for another page's work")
            bar.progress(sum(job.share for job in jobs) / len(jobs), f"{said} …")
            if stop is not None and not stoppable and waited > STOP_AFTER:
                button.button("Stop", key="stop", icon=":material/stop_circle:", on_click=stop)
                stoppable = True
    place.empty()


def page(body: Callable[[], None]) -> None:
    """A page: what goes wrong in it is said in it."""
    begin()
    top = st.container()
    try:
        body()
    except ConfigError as error:
        st.error(plain(str(error)), icon=":material/error:")
    except Exception as error:  # never a traceback: the app goes on
        st.error(plain(f"This page failed: {type(error).__name__}: {str(error)[:300]}"), icon=":material/error:")
        if os.environ.get("TOYBENCH_DEBUG"):
            raise
    with top:
        show_problems()
