"""Widgets made from the settings themselves: their type, bounds, unit, help; only where to slide is told here."""

from __future__ import annotations

import math
import types
import typing
from dataclasses import fields
from typing import Any, Literal

import streamlit as st

from toybench.clusters import LEVELS, sec_per_step
from toybench.config import ConfigError, Run, annotations_of, describe
from toybench.loading import CHOICES
from toybench.narrate import method_name
from toybench.outer import METHODS, method_of
from toybench.selection import value_of
from toybench.study import ARMS
from toybench.views import state
from toybench.views.scene import tuned
from toybench.views.tex import lines
from toybench.views.warned import warned

TOGETHER = "on"
OWN = "own"  # speeds that are of no level
MOST_WORKERS = 16  # that the slider goes to, and that have a field each

# Where a slider goes from, to, and in which steps; a range of factors 2^(1/8); or the values themselves.
LOG = "log"
RANGES: dict[str, tuple | list] = {
    "cluster.local_steps": (1, 200, 1),
    "cluster.grace": (0.0, 10.0, 0.1),
    "outer.lr": (2**-10, 4.0, LOG),
    "outer.momentum": (0.0, 0.99, 0.01),
    "outer.activation": (0.0, 1.0, 0.05),
    "outer.exponent": (0.0, 2.0, 0.05),
    "inner.lr": (1e-6, 0.1, LOG),
    "inner.momentum": (0.0, 0.99, 0.01),
    "task.classes": (2, 16, 1),
    "task.clusters": (1, 32, 1),
    "task.noise": (0.0, 1.5, 0.01),
    "task.dimension": [2, 4, 8, 16, 32, 64, 128, 256, 512],
    "task.hidden": [4, 8, 16, 32, 64, 128, 256],
    "task.batch": [1, 2, 4, 8, 16, 32, 64, 128],
    "task.output_scale": (1.0, 10_000.0, LOG),
    "budget.rounds": (1, 200, 1),
    "budget.evaluations": (1, 100, 1),
}
LABELS = {
    "lr": "learning rate",
    "local_steps": "local steps H",
    "grace": "grace period",
    "barrier": "barrier: wait for everybody",
    "dynamic_steps": "DyLU: fewer steps on slower workers",
    "coalesce": "one step a group",
    "momentum": "momentum β",
    "period": "period N",
    "activation": "activation c",
    "rounds": "rounds R",
}


def shared(key: str) -> bool:
    """Whether a setting is of the problem, not of the remedy."""
    return key.startswith(("task.", "inner.", "budget.")) or key in ("cluster.sec_per_step", "cluster.local_steps")


def put(i: int, changes: dict[str, Any]) -> None:
    """Change configuration `i` of the scene, or say why it cannot be.

    Where configurations move together, a shared setting moves in all that have it at the same value.
    """
    scene = state.scene()
    moved = [i]
    if state.kept("together", TOGETHER) == TOGETHER and all(shared(key) for key in changes):
        own = [[value_of(run, key) for key in changes] for run in scene.runs]
        moved = [j for j, values in enumerate(own) if values == own[i]]
    try:
        with warned() as odd:
            for j in moved:
                scene = scene.change(j, changes)
        state.put_scene(scene)
        for said in odd:
            state.complain(said)
    except ConfigError as error:
        state.complain(str(error))


def setting(i: int, key: str, **more: Any) -> None:
    """The widget of a setting of configuration `i`."""
    run, (section, _, name) = state.scene().runs[i], key.partition(".")
    settings = getattr(run, section)
    field = next(f for f in fields(settings) if f.name == name)
    annotation, value = annotations_of(type(settings))[name], getattr(settings, name)
    where = f"c.{i}.{key}"
    unit = f" [{field.metadata['unit']}]" if field.metadata["unit"] else ""
    label = LABELS.get(name, name.replace("_", " ")) + unit
    common = {"key": where, "help": field.metadata["help"], "on_change": _changed, "args": (i, key), **more}
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if bool in options:
        st.session_state[where] = value
        st.toggle(label, **common)
    elif typing.get_origin(annotation) is Literal:
        st.session_state[where] = value
        st.selectbox(label, typing.get_args(annotation), **common)
    elif key in RANGES:
        _slider(label, value, RANGES[key], where, common)
    elif int in options or float in options:
        _number(label, value, options, where, common, field.metadata["bounds"])
    else:
        st.caption(f"{label}: {describe(annotation)} ({value})")


def _changed(i: int, key: str) -> None:
    put(i, {key: st.session_state[f"c.{i}.{key}"]})


def _slider(label: str, value: Any, along: tuple | list, where: str, common: dict[str, Any]) -> None:
    if isinstance(along, list) or along[2] == LOG:
        seen = st.session_state.setdefault("seen", {}).setdefault(where, set())
        seen.add(value)  # and stays, so that the slider does not change under the hand
        options = sorted({*(along if isinstance(along, list) else log_values(along[0], along[1])), *seen})
        st.session_state[where] = value
        st.select_slider(label, options, format_func=lambda number: f"{number:g}", **common)
        return
    low, high, step = along
    low, high = min(low, value), max(high, value)
    st.session_state[where] = value
    st.slider(label, low, high, step=step, format=None if isinstance(step, int) else "%g", **common)


def log_values(low: float, high: float) -> list[float]:
    """From `low` to `high` by eighths of an octave, to three digits."""
    count = round(8 * math.log2(high / low))
    return [float(f"{low * (high / low) ** (i / count):.3g}") for i in range(count + 1)]


def _number(label: str, value: Any, options: tuple, where: str, common: dict[str, Any], bounds: dict) -> None:
    whole, cast = int in options, int if int in options else float
    low, high = (bounds.get(side) for side in ("at_least", "at_most"))
    more = {"min_value": None if low is None else cast(low), "max_value": None if high is None else cast(high)}
    st.session_state[where] = value
    if whole:
        st.number_input(label, value=None, step=1, placeholder="as by default", **more, **common)
    else:
        st.number_input(label, value=None, step=abs(value or 1.0) / 10, format="%g", **more, **common)


def cluster(i: int) -> None:
    """How many workers, how fast, and when they restart."""
    run = state.scene().runs[i]
    seconds, where = run.cluster.sec_per_step, f"c.{i}"
    levels = [*LEVELS] + [OWN] * (level_of(seconds) == OWN)
    st.session_state[f"{where}.workers"] = run.cluster.workers
    st.slider(
        "workers k", 1, max(MOST_WORKERS, run.cluster.workers), key=f"{where}.workers", on_change=_workers, args=(i,)
    )
    st.session_state[f"{where}.level"] = level_of(seconds)
    text = "spread of the workers' seconds per step; 'very' has the published toy's"
    st.select_slider(
        "heterogeneity", levels, key=f"{where}.level", on_change=_level, args=(i,), help=text, disabled=len(seconds) < 2
    )
    with st.expander("each worker's seconds per step"):
        if len(seconds) <= MOST_WORKERS:
            columns = st.columns(2)
            for w, own in enumerate(seconds):
                key = f"{where}.seconds.{w}"
                st.session_state[key] = own
                more = {"min_value": 0.001, "value": None, "step": own / 10, "format": "%g", "key": key}
                columns[w % 2].number_input(f"worker {w}", on_change=_speed, args=(i, w), **more)
        else:
            st.caption(f"{len(seconds)} workers: {min(seconds):g} to {max(seconds):g} s")
    setting(i, "cluster.local_steps")
    setting(i, "cluster.barrier")
    setting(i, "cluster.dynamic_steps", disabled=run.cluster.barrier)
    setting(i, "cluster.grace", disabled=run.cluster.barrier)
    with st.expander("groups and shards"):
        setting(i, "cluster.coalesce", disabled=run.cluster.barrier)
        setting(i, "cluster.quorum", disabled=run.cluster.barrier)
        setting(i, "cluster.sharding")
        setting(i, "cluster.shards")
        setting(i, "task.partition")


def level_of(seconds: tuple[float, ...]) -> str:
    """The level of heterogeneity that gives these speeds, or `OWN`."""
    return next((level for level in LEVELS if tuple(sec_per_step(len(seconds), level)) == seconds), OWN)


def _workers(i: int) -> None:
    workers, own = st.session_state[f"c.{i}.workers"], state.scene().runs[i].cluster
    level = level_of(own.sec_per_step)
    if level != OWN:
        seconds = sec_per_step(workers, level)
    else:
        seconds = [own.sec_per_step[w % own.workers] for w in range(workers)]
    if own.quorum > workers:
        put(i, {"cluster.quorum": workers})
    put(i, {"cluster.sec_per_step": seconds})


def _level(i: int) -> None:
    level = st.session_state[f"c.{i}.level"]
    if level != OWN:
        put(i, {"cluster.sec_per_step": sec_per_step(state.scene().runs[i].cluster.workers, level)})


def _speed(i: int, w: int) -> None:
    seconds = [*state.scene().runs[i].cluster.sec_per_step]
    seconds[w] = st.session_state[f"c.{i}.seconds.{w}"]
    if seconds[w] is not None:
        put(i, {"cluster.sec_per_step": seconds})


def outer(i: int) -> None:
    """The outer method, its formula, and the settings that it has."""
    run = state.scene().runs[i]
    method, where = method_of(run.outer), f"c.{i}.outer.method"
    st.session_state[where] = method
    st.selectbox(
        "method",
        [*METHODS],
        key=where,
        on_change=_method,
        args=(i,),
        format_func=method_name,
    )
    for line in lines(METHODS[method].formula):
        st.markdown(f"${line}$")
    st.caption(f"{METHODS[method].source} ({METHODS[method].mark})")
    setting(i, "outer.lr")
    best = tuned_settings(run)
    if best and any(value_of(run, key) != value for key, value in best.items()):
        said = ", ".join(f"{key.removeprefix('outer.')} {value:g}" for key, value in best.items())
        st.button(f"use the tuned {said}", key=f"{where}.tuned", on_click=put, args=(i, best), type="tertiary")
    for field in fields(run.outer):
        if field.name not in ("lr", "scale"):
            setting(i, f"outer.{field.name}")
    setting(i, "outer.scale", disabled=run.cluster.barrier)


def _method(i: int) -> None:
    method = st.session_state[f"c.{i}.outer.method"]
    put(i, {"outer.method": method})
    put(i, tuned_settings(state.scene().runs[i]))


def tuned_settings(run: Run) -> dict[str, Any]:
    """What was tuned on the preset for such a method under such rules; nothing where that was not tried."""
    method, cluster = method_of(run.outer), run.cluster
    for arm, (_, changes) in ARMS.items():
        rules = all(getattr(cluster, key.partition(".")[2]) == v for key, v in changes.items() if key != "outer.method")
        if changes["outer.method"] == method and rules and not arm.endswith("_equal"):
            return tuned(state.scene().preset, arm)
    return {}


def inner(i: int) -> None:
    """The inner optimizer and its settings."""
    run, where = state.scene().runs[i], f"c.{i}.inner.optimizer"
    names = CHOICES["inner"][1]
    st.session_state[where] = next(name for name, cls in names.items() if cls is type(run.inner))
    st.selectbox("optimizer", [*names], key=where, on_change=_changed, args=(i, "inner.optimizer"))
    for field in fields(run.inner):
        setting(i, f"inner.{field.name}")


def section(i: int, name: str) -> None:
    """Every setting of a section."""
    for field in fields(getattr(state.scene().runs[i], name)):
        if field.name != "partition":  # stands with the shards
            setting(i, f"{name}.{field.name}")
