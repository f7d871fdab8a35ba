"""What came of a sweep, as the page shows it: figures, the best settings, what is chosen."""

import json
import time

import pytest

from tests.pages import drawn, move, query_of, told, until, widget
from tests.sweep_page import TINY, flat, open_page, product, read, stored
from toybench.loading import overlay
from toybench.records import maker
from toybench.store import Store
from toybench.views import outcomes, sweep_shown
from toybench.views.charts_sweep import chart_of, legend_of
from toybench.views.runner import Runner


def specification(outcome):
    """The figure as a browser gets it, which Altair checks, and its text."""
    chart = chart_of(outcome).to_dict()
    return chart, json.dumps(chart)


def test_a_range_of_rates_is_a_line_with_its_best_marked(path):
    stored(path, product("outer.lr", [0.1, 0.2, 0.4, 0.8]), [1.2, 1.0, 1.1, 3.0])
    outcome = read(path)
    assert (outcome.figure, outcome.x, outcome.done, outcome.swept.log) == ("lines", "outer.lr", 8, ["outer.lr"])
    [line] = outcome.drawn["lines"]
    assert line["best"] == {"rate": 0.2, "loss": pytest.approx(1.005), "edge": None} and line["diverged"] == [
        0,
        0,
        0,
        2,
    ]
    chart, text = specification(outcome)
    assert '"type": "log"' in text and '"best"' in text
    assert chart["layer"][3]["mark"]["shape"] == "cross"
    assert "star: the best" in legend_of(outcome) and "diverged" in legend_of(outcome)
    assert outcome.best[0].settings == {"outer.lr": 0.2}


def test_the_best_at_an_edge_is_told(path):
    stored(path, product("outer.momentum", [0.0, 0.3, 0.6, 0.9]), [1.2, 1.1, 1.05, 1.0])
    outcome = read(path)
    assert outcome.swept.log == [] and outcome.drawn["lines"][0]["best"]["edge"] == "high"
    assert outcome.drawn["lines"][0]["rates"][0] == 0.0  # it has a place on a linear axis
    assert '"type": "linear"' in specification(outcome)[1] and "edge" in legend_of(outcome)


def test_two_numbers_are_a_heat_map_or_lines(path):
    stored(path, product("outer.lr", [0.1, 0.2, 0.4], "outer.momentum", [0.1, 0.5]), [3, 2.5, 1.5, 1, 2, 1.2])
    outcome = read(path)
    assert (outcome.figure, outcome.x) == ("heat map", "outer.lr")
    assert outcome.drawn["best"] == {"x": 0.1, "y": 0.5, "loss": pytest.approx(1.005)}
    assert outcome.swept.figures() == ["heat map", "lines"]
    assert "#D55E00" in specification(outcome)[1]
    turned = read(path, x="outer.momentum")
    assert turned.x == "outer.momentum" and turned.drawn["mean"].shape == (3, 2)
    lines = read(path, figure="lines")
    assert len(lines.drawn["lines"]) == 2 and lines.drawn["keys"] == ["outer.momentum"]
    specification(turned), specification(lines)


def test_methods_are_lines_and_keep_their_colours_while_others_come(path):
    runs = product("outer.lr", [0.1, 0.2], "outer.method", ["sgd", "nesterov", "mla"])
    stored(path, runs, [3, 2.5, 1.5, 1, 2, 1.2], lacking=(0, 1))
    outcome = read(path)
    assert outcome.figure == "lines" and outcome.swept.keys == ["outer.method", "outer.lr"]
    assert {row.settings["outer.method"] for row in outcome.best} == {"nesterov", "mla"}
    scale = chart_of(outcome).to_dict()["layer"][0]["encoding"]["color"]["scale"]
    assert scale["domain"] == ["nesterov", "mla"] and len(set(scale["range"])) == 2
    with Store(path) as store:
        store.add([flat(runs[0]), flat(runs[1])], maker(), seconds=0.1, commit=None)
    later = chart_of(read(path)).to_dict()["layer"][0]["encoding"]["color"]["scale"]
    assert dict(zip(later["domain"], later["range"])).items() >= dict(zip(scale["domain"], scale["range"])).items()


def test_a_sweep_that_has_just_begun_shows_what_there_is(path):
    runs = product("outer.lr", [0.1, 0.2, 0.4], "outer.momentum", [0.1, 0.5])
    stored(path, runs, lacking=range(1, 6))
    outcome = read(path)
    assert outcome.figure == "heat map" and outcome.done == 2
    domain = specification(outcome)[0]["layer"][0]["encoding"]["x"]["scale"]["domain"]
    assert domain == ["0.1", "0.2", "0.4"]  # the axes are those of the whole
    dots = read(path, figure="lines")
    assert dots.figure == "dots" and len(dots.drawn["rows"]) == 1 and "two rates" in dots.said
    specification(dots)
    stored(path, product("outer.lr", [0.7, 0.8]), lacking=range(2), name="empty")
    assert read(path, name="empty") is None


@pytest.mark.parametrize(
    "runs, figure",
    [
        ([TINY], "dots"),
        (product("outer.method", ["sgd", "mla"]), "dots"),
        (product("cluster.barrier", [True, False]), "dots"),
        (product("cluster.sec_per_step", [[1.0, 1.0], [1.0, 2.0]], "outer.method", ["sgd", "mla"]), "heat map"),
        (product("cluster.shards", [None, 4, 8]), "dots"),
        ([overlay(TINY, {"outer.lr": 0.1 * i, "inner.lr": 0.01 * i}) for i in (1, 2, 3)], "heat map"),
        (
            [
                overlay(TINY, {f"outer.{k}": 0.1 * i, "inner.lr": 1e-3 / i, "cluster.grace": i})
                for i, k in ((1, "lr"), (2, "momentum"), (3, "lr"))
            ],
            "dots",
        ),
    ],
)
def test_every_shape_of_a_sweep_has_a_figure(path, runs, figure):
    stored(path, runs)
    outcome = read(path)
    assert outcome.figure == figure and outcome.settings == len(runs)
    assert len(specification(outcome)[1]) > 100 and legend_of(outcome)
    at = open_page()
    assert told(at) == [] and len(at.get("vega_lite_chart")) == 1


def test_large_sweeps_are_thinned_and_the_best_stays(path, monkeypatch):
    monkeypatch.setattr(outcomes, "MOST_POINTS", 10)
    monkeypatch.setattr(outcomes, "MOST_CELLS", 10)
    losses = [1.5] * 40
    losses[21] = 1.0
    stored(path, product("outer.lr", [0.01 * (i + 1) for i in range(20)], "outer.momentum", [0.1, 0.5]), losses)
    outcome = read(path, figure="heat map")
    assert outcome.figure == "lines" and outcome.swept.figures() == ["lines"]
    assert sum(len(line["rates"]) for line in outcome.drawn["lines"]) <= 14
    assert 0.02 in outcome.drawn["lines"][0]["rates"] and outcome.drawn["lines"][0]["best"]["rate"] == 0.02


def test_the_figure_is_chosen_and_in_the_address(path):
    stored(path, product("outer.lr", [0.1, 0.2, 0.4], "outer.momentum", [0.1, 0.5]))
    at = open_page()
    widget(at, "button_group", "w.sweep.figure").set_value("lines").run()
    widget(at, "button_group", "w.sweep.along").set_value("outer.momentum").run()
    query = query_of(at)
    assert query["sweep.figure"] == "lines" and query["sweep.along"] == "outer.momentum"
    [one], [other] = (page.get("vega_lite_chart") for page in (at, open_page(query)))
    assert one.proto.spec == other.proto.spec and "outer.momentum" in one.proto.spec


def test_what_is_chosen_for_x_outlives_the_figure_of_before(path, monkeypatch):
    stored(path, product("outer.lr", [0.1, 0.2, 0.4], "outer.momentum", [0.1, 0.5]))
    old = read(path, figure="lines")
    assert old.x == "outer.lr"
    monkeypatch.setattr(sweep_shown, "_result", lambda job: old)  # as while a sweep runs and the next is not read yet
    at = open_page()
    widget(at, "button_group", "w.sweep.along").set_value("outer.momentum").run()
    assert query_of(at)["sweep.along"] == "outer.momentum"


@pytest.fixture
def growing(path, monkeypatch):
    """A page at a sweep that runs: at every look it has another run, and reading it takes three looks.

    A function that looks once more, and the choices of figure and x with which a reading has begun.
    """
    runs, looks, begun = product("outer.lr", [0.1, 0.2, 0.4, 0.8], "outer.momentum", [0.1, 0.5, 0.7]), [0], []
    stored(path, runs, lacking=range(2, len(runs)))
    at = open_page()
    read_outcome = sweep_shown.read_outcome

    def slowly(*args):
        def work(job):
            begun.append(args[2:])
            ready = looks[0] + 3
            while looks[0] < ready:
                job.report()
                time.sleep(0.005)
            return read_outcome(*args)(job)

        return work

    def look():
        with Store(path) as store:
            store.add([flat(runs[2 + looks[0]])], maker(), seconds=0.1, commit=None)
        looks[0] += 1
        return at.run()

    monkeypatch.setattr(sweep_shown, "read_outcome", slowly)
    monkeypatch.setattr(Runner, "running", property(lambda self: True))
    yield look, begun
    looks[0] += 3  # what still reads may end


def test_a_figure_comes_though_runs_come_faster_than_they_are_read(growing):
    look, begun = growing
    rows = []
    for _ in range(10):
        at = look()
        assert told(at) == [] and len(drawn(at)) == 1
        rows.append(len(at.dataframe[0].value))
    assert rows == sorted(rows) and len(set(rows)) >= 3 and len(begun) <= 4


def test_another_choice_is_read_at_once(growing):
    look, begun = growing
    at = look()
    assert begun == [("heat map", "outer.lr")]
    move(at, "button_group", "w.sweep.figure", "lines")
    until(lambda: len(begun) == 2)
    assert begun[1] == ("lines", "outer.lr") and len(drawn(at)) == 1


def test_a_stored_sweep_is_chosen(path):
    stored(path, product("outer.lr", [0.1, 0.2]), name="one")
    stored(path, product("inner.lr", [0.1, 0.2]), name="two")
    at = open_page()
    widget(at, "selectbox", "w.sweep.show").set_value("one").run()
    assert query_of(at)["sweep.show"] == "one" and at.dataframe[0].value.columns[0] == "outer.lr"
