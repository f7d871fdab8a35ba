"""The Promote page: from a configuration of the toy to a run of a language model."""

from __future__ import annotations

from typing import Any

import streamlit as st

from toybench.config import ConfigError, Run
from toybench.loading import dump_run, load_run
from toybench.narrate import title
from toybench.selection import text
from toybench.views import state, trained
from toybench.views.scene import LETTERS

KEPT = ("cluster", "outer")  # what a language-model run takes over as it is


def body(bridge: Any, launch: Any) -> None:
    """The page; `bridge` is the module `lm.promote`, `launch` is `lm.launch`."""
    st.markdown("### From the toy to a language model")
    st.caption(
        "A promoted configuration keeps its cluster and its outer optimizer to the letter; task, inner optimizer and "
        "budget become those of the model's size."
    )
    choices = {  # of widgets: their default, and what reads them from the query string
        "from": ("a", state.one_of(*LETTERS, "record")),
        "run": ("", str),
        "size": ("20m", state.one_of(*bridge.SIZES)),
        "accelerator": ("h100", state.one_of(*bridge.ACCELERATORS)),
        "utilisation": (40, _share),
    }
    for name, choice in choices.items():
        state.kept(name, *choice)
    try:
        run, said = source()
        if run is None:
            state.desk().keep_only(state.session(), ())  # what another page began
        else:
            promoted(bridge, launch, run, said)
    finally:  # also where a message stands instead
        state.publish({name: (state.kept(name), default) for name, (default, _) in choices.items()})


def promoted(bridge: Any, launch: Any, run: Run, said: str) -> None:
    """The language-model run that a configuration becomes, what it takes, and where it is small, its training."""
    sizes, devices = [*bridge.SIZES], bridge.ACCELERATORS
    left, middle, right = st.columns([2, 2, 2])
    with left:
        size = state.pick(st.segmented_control, "size of the model", "size", sizes, "20m")
    with middle:
        more: dict[str, Any] = {"format_func": lambda name: devices[name].name}
        device = state.pick(st.selectbox, "accelerator", "accelerator", [*devices], "h100", **more)
    with right:
        text = "of the accelerator's peak in bfloat16: assumed here, until it is measured"
        more = {"min_value": 1, "max_value": 100, "format": "%d %%", "help": text}
        share = state.widget(st.slider, "utilisation", "utilisation", 40, _share, **more)
    after = bridge.promote(run, size)
    estimated(bridge.estimate(after, device, share / 100))
    name = f"{size}.toml"
    left, right = st.columns(2, vertical_alignment="center")
    more: dict[str, Any] = {
        "mime": "application/toml",
        "icon": ":material/download:",
        "width": "stretch",
        "type": "primary",
    }
    file = bridge.write_toml(after, said, size)
    left.download_button(f"the run file {name}", file, name, **more)
    right.code(f"python -m lm train {name}", language="bash")
    trained.body(launch, run, state.scene().seeds, after, file, size)
    left, right = st.columns(2)
    with left:
        st.markdown(":material/lock: kept")
        settings(run, KEPT)
    with right:
        st.markdown(":material/swap_horiz: changed")
        changed = bridge.changes(run, after)
        columns = {"setting": [c.key for c in changed], "toy": [text_of(c.before) for c in changed]}
        columns |= {"language model": [text_of(c.after) for c in changed]}
        st.dataframe(columns, hide_index=True, width="stretch", height=460)


def _share(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100:
        raise ValueError
    return number


def text_of(value: Any) -> str:
    """A setting's value, or a dash where there is no such setting."""
    return text(tuple(value) if isinstance(value, list) else value)


def estimated(taken: Any) -> None:
    """Parameters, tokens, operations, memory, hours."""
    shown = (
        ("parameters", f"{taken.parameters / 1e6:.1f} M"),
        ("tokens", f"{taken.tokens / 1e9:.2f} G" if taken.tokens >= 1e8 else f"{taken.tokens / 1e6:.2f} M"),
        ("operations", f"{taken.operations:.2g}"),
        (
            "memory of one device",
            f"{taken.memory / 1e9:.1f} GB" if taken.memory >= 1e8 else f"{taken.memory / 1e6:.1f} MB",
        ),
        (f"hours of one {taken.accelerator.name}", f"{taken.hours:.2g}"),
    )
    for column, (label, value) in zip(st.columns(len(shown)), shown):
        column.markdown(f":small[:gray[{label}]]  \n**{value}**")
    by_part = ", ".join(f"{name} {part.each * part.times:,}" for name, part in taken.parts.items())
    st.caption(f"{taken.parameters:,} parameters: {by_part}.")
    st.caption(f"Gigabytes of one device that computes a visit at a time: {taken.footprint.told}.")
    if not taken.fits:
        st.warning(f"More than one {taken.accelerator.name} holds.", icon=":material/memory:")


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
