"""What the tests of the Sweep page share: the page, sweeps in a store, what came of them."""

import numpy as np

from tests.pages import open_script
from toybench.cli import build_parser
from toybench.commands import sweep as command
from toybench.config import ConfigError
from toybench.curves import Curves
from toybench.loading import overlay
from toybench.presets import load_preset
from toybench.records import maker
from toybench.store import Plan, Store
from toybench.sweep import plan_calls
from toybench.views import outcomes
from toybench.views.jobs import Desk
from toybench.views.scene import Scene, encode

FAST = load_preset("fast")
TINY = overlay(
    FAST,
    {"budget.rounds": 2, "budget.evaluations": 2, "task.points": 400, "task.held_out": 50, "cluster.local_steps": 3},
)
TINY_SCENE = encode(Scene("fast", runs=(TINY,)))


def open_page(query=TINY_SCENE):
    """The page of a query string, and another to go to."""

    def script():
        from functools import partial

        import streamlit as st

        from toybench.views import state, sweep

        pages = {
            "sweep": st.Page(partial(state.page, sweep.body), title="sweep", url_path="sweep", default=True),
            "explore": st.Page(lambda: st.write("explored"), title="explore", url_path="explore"),
        }
        state.know_pages(pages)
        st.navigation([*pages.values()]).run()

    return open_script(script, query)


def page(**query):
    """The page of the tiny configuration, with these choices in its address."""
    return open_page(TINY_SCENE | {f"sweep.{name}": value for name, value in query.items()})


def asked(words):
    """The runs and seeds that the command line would make."""
    assert words[0] == "toybench"
    return command.wanted(build_parser(words[1:]).parse_known(words[1:]))[:2]


def done(path, name="sweep"):
    """How many runs of a sweep are stored."""
    try:
        with Store(path, writable=False) as store:
            return next((entry["done"] for entry in store.sweeps() if entry["sweep"] == name), 0)
    except ConfigError:  # it is just being made
        return 0


def flat(run, loss=1.0, seeds=(0, 1)):
    shape = (len(seeds), 3)
    curve = np.full(shape, loss, np.float32) + np.array(seeds, np.float32)[:, None] * 0.01
    curve[:, 0] = 2.0
    return Curves(run, tuple(seeds), np.tile(np.arange(3), (len(seeds), 1)), np.ones(shape), {"loss": curve})


def stored(path, runs, losses=None, *, lacking=(), name="stored"):
    """A sweep in a store, as it would be if it came out so."""
    losses = losses or [1 + 0.1 * i for i in range(len(runs))]
    with Store(path) as store:
        store.begin(Plan(name, runs, (0, 1), plan_calls(runs, (0, 1))), maker())
        for i, run in enumerate(runs):
            if i not in lacking:
                store.add([flat(run, losses[i])], maker(), seconds=0.1, commit=None)


def product(first, values, second=None, others=(None,)):
    """A configuration for each combination of the values."""
    return [
        overlay(TINY, {first: value, **({second: other} if second else {})}) for other in others for value in values
    ]


def read(path, figure="", x="", name="stored"):
    """What the page shows of a sweep."""
    desk = Desk(threads=1)
    job = desk.ask("test", "outcome", outcomes.read_outcome(path, name, figure, x))
    assert job.wait(60) and job.state == "done", job.problem
    desk.close()
    return job.result
