"""The Promote page: from a configuration of the toy to a run of a language model."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import streamlit as st

from toybench.config import ConfigError, Run
from toybench.loading import dump_run, load_run
from toybench.narrate import title
from toybench.selection import text
from toybench.views import state
from toybench.views.scene import LETTERS

KEPT = ("cluster", "outer")  # what a language-model run takes over as it is
REPLACED = ("task", "inner", "budget")  # what the model's size decides


def body() -> None:
    """The page."""
    st.markdown("### From the toy to a language model")
    st.caption(
        "A promoted configuration keeps its cluster and its outer optimizer to the letter; task, inner optimizer and "
        "budget become those of the model's size."
    )
    run, said = source()
    choices = {"from": (state.kept("from", "a"), "a"), "run": (state.kept("run", ""), "")}
    state.publish(choices)
    if run is None:
        return
    st.markdown(f"**{said}**")
    left, right = st.columns(2)
    with left:
        st.markdown(":material/lock: kept")
        settings(run, KEPT)
    with right:
        st.markdown(":material/swap_horiz: replaced by the size's own")
        settings(run, REPLACED)
    downloads(run)
    st.info(
        "The language-model half of the project, `lm/`, is not there yet. Model sizes, parameters, tokens, memory, "
        "estimated hours and a small run on this machine will stand here when it is.",
        icon=":material/construction:",
    )


def source() -> tuple[Run | None, str]:
    """The configuration to promote, and where it comes from."""
    scene = state.scene()
    options = [*LETTERS[: len(scene.runs)], "record"]
    if state.kept("from", "a", state.one_of(*LETTERS, "record")) not in options:
        state.keep("from", "a")
    labels = {letter: f"{letter.upper()}: {title(run)}" for letter, run in zip(LETTERS, scene.runs)}
    chosen = state.widget(
        st.segmented_control,
        "configuration",
        "from",
        "a",
        options=options,
        format_func=lambda option: labels.get(option, "a record"),
    )
    if chosen != "record":
        i = LETTERS.index(chosen)
        return scene.runs[i], title(scene.runs[i])
    number = state.widget(st.text_input, "number of the run", "run", "", placeholder="as `toybench records` lists it")
    if not number.strip():
        st.info("Which run? The Compare page lists them with their numbers.", icon=":material/info:")
        return None, ""
    if not number.strip().isdecimal() or len(number) > 18:
        raise ConfigError("run", f"expected the number of a run, got {number[:40]!r}")
    run, seed = of_record(int(number))
    return run, f"run {number}: {title(run)}, seed {seed}"


def of_record(number: int) -> tuple[Run, int]:
    """The configuration and the seed of a stored run."""
    from toybench.store import Store

    with Store(state.store_path(), writable=False) as store:
        found = store.describe(number)
    return load_run(found["configuration"]), found["seed"]


def settings(run: Run, sections: tuple[str, ...]) -> None:
    """A table of the settings of some sections."""
    tables: dict[str, dict[str, Any]] = dump_run(run)
    rows = [(f"{section}.{key}", text(value)) for section in sections for key, value in tables[section].items()]
    columns = {"setting": [key for key, _ in rows], "value": [value for _, value in rows]}
    st.dataframe(columns, hide_index=True, width="stretch", height=min(38 + 35 * len(rows), 460))


def downloads(run: Run) -> None:
    """The configuration as files."""
    import tomli_w

    tables = dump_run(run)
    assert {*KEPT, *REPLACED} == {f.name for f in fields(Run)}
    part = {section: tables[section] for section in KEPT}
    left, right = st.columns(2)
    more: dict[str, Any] = {"mime": "application/toml", "icon": ":material/download:", "width": "stretch"}
    left.download_button("cluster and outer settings", tomli_w.dumps(part), "promote.toml", **more)
    right.download_button("the whole toy configuration", tomli_w.dumps(tables), "toy.toml", **more)
    st.caption("The first, laid over a language-model run, is what is promoted; `toybench run toy.toml` is the toy's.")
