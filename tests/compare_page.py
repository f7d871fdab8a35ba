"""What the tests of the Compare page share: the page, and the runs and records that it shows."""

import json
from pathlib import Path

import numpy as np

from tests.pages import open_script, query_of, sound
from toybench.curves import Curves
from toybench.loading import overlay
from toybench.presets import load_preset
from toybench.store import Call, Plan, Store

BASE = load_preset("fast")
SGD = overlay(BASE, {"outer.method": "sgd", "cluster.sec_per_step": [1.0, 2.0]})
RECORDS = Path(__file__).parent.parent / "experiments" / "records"
BOARD = json.loads((RECORDS / "leaderboard.json").read_text(encoding="utf-8"))
FIRST = next(iter(BOARD["clusters"]))  # what the page opens with


# Runs


def config(i):
    return overlay(BASE, {"outer.lr": 0.1 * (i + 1)})


def made_up(run, seeds, last, points=4):
    """Curves that fall to a last loss, a little higher with every seed."""
    fall = np.linspace(2.0, last, points)
    loss = np.array([fall + 0.01 * s * np.arange(points) for s in seeds])
    steps = np.tile(np.arange(points) * 8, (len(seeds), 1))
    return Curves(run, tuple(seeds), steps, steps * 0.5, {"loss": loss, "accuracy": 1 - loss / 4})


def fill(path, *results, sweep=None, maker="c0de"):
    """Runs in a store, as a sweep if it has a name."""
    with Store(path) as store:
        if sweep:
            seeds, runs = results[0].seeds, [result.run for result in results]
            calls = [Call(tuple(range(len(runs))), seeds, len(runs))]
            store.begin(Plan(sweep, runs, seeds, calls), {"code": maker})
        store.add(results, {"code": maker}, seconds=0.5, commit="abc")


def fill_as_usual(path):
    """Sweep `rates` of runs 1 to 6, three configurations on two seeds, and two of SGD, one of which diverged."""
    fill(path, *(made_up(config(i), (0, 1), (0.7, 0.5, 0.6)[i]) for i in range(3)), sweep="rates")
    fill(path, made_up(SGD, (0,), 0.9), made_up(SGD, (1,), np.nan))


# The page


def app(records):
    """The page as the app has it, and another to go to."""
    from functools import partial
    from pathlib import Path

    import streamlit as st

    from toybench.views import compare, state

    body = partial(compare.body, Path(records) if records else None)
    pages = [
        st.Page(partial(state.page, body), title="Compare", url_path="compare", default=True),
        st.Page(lambda: st.title("there"), title="Explore", url_path="explore"),
    ]
    state.know_pages({page.title.lower(): page for page in pages})
    st.navigation(pages).run()


def opened(records=RECORDS, **query):
    """The page of a query string, names with _ for their first dot."""
    asked = {name.replace("_", ".", 1): value for name, value in query.items()}
    return sound(open_script(app, asked, records and str(records)))


def asked_of(test):
    """What the query string says beside the scene."""
    parts = ("compare", "records", "board", "paper")
    return {name: value for name, value in query_of(test).items() if name.partition(".")[0] in parts}


def pick(test, kind, label):
    """The widget of a label."""
    return next(one for one in getattr(test, kind) if one.label == label)


def select(test, *rows):
    """Rows selected, as by clicks."""
    key = test.dataframe[0].key
    test.session_state[key] = {"selection": {"rows": [*rows], "columns": [], "cells": []}}
    return sound(test.run())


def legend(test):
    """The table of the drawn configurations, if there is one."""
    return next((one.value for one in test.dataframe if "mean final loss" in one.value), None)


def words(test):
    """All that the page says."""
    kinds = (test.error, test.warning, test.info, test.caption, test.markdown, test.code)
    return "\n".join(one.value for kind in kinds for one in kind)


def badges(test):
    """How many verdicts the page shows."""
    return sum(one.value.count("-badge[") for one in test.markdown)
