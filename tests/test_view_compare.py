"""The Compare page: every widget, every message, and its query string."""

import csv
import io
import json
import os
import shlex
import shutil
import sqlite3
import tomllib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("streamlit")
from streamlit.testing.v1 import AppTest

from toybench.cli import main
from toybench.clusters import CLUSTERS
from toybench.curves import Curves
from toybench.leaderboard import contestants
from toybench.loading import dump_run, load_run, overlay
from toybench.presets import load_preset
from toybench.store import Call, Plan, Store
from toybench.study import vary
from toybench.views import charts_compare, compare_board, compare_paper, compare_records, stored
from toybench.views.scene import Scene

BASE = load_preset("fast")
RECORDS = Path(__file__).parent.parent / "experiments" / "records"
BOARD = json.loads((RECORDS / "leaderboard.json").read_text(encoding="utf-8"))
FIRST = next(iter(BOARD["clusters"]))  # what the page opens with
REPORT = json.loads((RECORDS / "paper" / "report.json").read_text(encoding="utf-8"))
CLAIMS = [claim for answer in REPORT["answers"].values() for claim in answer["claims"]]
SGD = overlay(BASE, {"outer.method": "sgd", "cluster.sec_per_step": [1.0, 2.0]})


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


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("TOYBENCH_STORE", str(tmp_path / "runs.sqlite"))
    return tmp_path / "runs.sqlite"


@pytest.fixture
def runs(path):
    """Sweep `rates` of runs 1 to 6, three configurations on two seeds, and two of SGD, one of which diverged."""
    fill(path, *(made_up(config(i), (0, 1), (0.7, 0.5, 0.6)[i]) for i in range(3)), sweep="rates")
    fill(path, made_up(SGD, (0,), 0.9), made_up(SGD, (1,), np.nan))
    return path


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
    test = AppTest.from_function(app, args=(records and str(records),), default_timeout=30)
    for name, value in query.items():
        test.query_params[name.replace("_", ".", 1)] = value
    return sound(test.run())


def sound(test):
    assert not test.exception and not any("page failed" in error.value for error in test.error)
    return test


def query_of(test):
    """What the query string says beside the scene."""
    found = {name: value if isinstance(value, str) else value[0] for name, value in test.query_params.items()}
    parts = ("compare", "records", "board", "paper")
    return {name: value for name, value in found.items() if name.partition(".")[0] in parts}


def pick(test, kind, label):
    return next(one for one in getattr(test, kind) if one.label == label)


def listed(test):
    return test.dataframe[0].value


def legend(test):
    return next((one.value for one in test.dataframe if "mean final loss" in one.value), None)


def select(test, *rows):
    """Rows selected, as by clicks."""
    key = test.dataframe[0].key
    test.session_state[key] = {"selection": {"rows": [*rows], "columns": [], "cells": []}}
    return sound(test.run())


def words(test):
    """All that the page says."""
    kinds = (test.error, test.warning, test.info, test.caption, test.markdown, test.code)
    return "\n".join(one.value for kind in kinds for one in kind)


def drawn(test):
    """The charts of the page, each as its specification."""
    return [json.loads(one.proto.spec) for one in test.get("vega_lite_chart")]


# Without a store


def test_where_no_run_was_made_it_says_how(path):
    test = opened()
    assert "No runs" in test.info[0].value and not test.error
    assert test.code[0].value.startswith("toybench sweep --grid") and str(path) in test.code[0].value
    assert not path.exists()  # looking makes none


def test_a_store_without_runs_says_how(path):
    Store(path).close()
    assert "No runs" in opened().info[0].value


def other_program(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")


def newer_version(path):
    Store(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda path: path.write_text("no database, not at all " * 100), "not a database"),
        (other_program, "another program"),
        (newer_version, "has version 99"),
        (lambda path: path.mkdir(), "runs.sqlite"),
    ],
)
def test_what_is_no_store_is_told_in_a_line(path, make, said):
    make(path)
    test = opened()
    assert said in test.error[0].value and "TOYBENCH_STORE" in words(test)
    assert len(test.button_group) + len(test.segmented_control) >= 1  # the other parts are still there


def test_a_store_that_another_process_writes_to_is_shown_as_it_was(runs):
    with closing(sqlite3.connect(runs, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM runs WHERE id = 1")
        assert len(listed(opened())) == 8
        other.execute("ROLLBACK")


def test_new_runs_are_seen_at_once(runs):
    test = opened()
    with Store(runs):  # kept open: what is written is in the log beside the file
        fill(runs, made_up(config(5), (0,), 0.4))
        assert len(listed(sound(test.run()))) == 9
        with Store(runs) as store:
            store.remove([9])
        assert len(listed(sound(test.run()))) == 8


# The table


def test_runs_are_listed_with_what_they_differ_in(runs):
    test = opened()
    table = listed(test)
    assert f"8 runs of 4 configurations in `{runs}`" in words(test)
    assert list(table["run"]) == list(range(1, 9))
    assert list(table["loss"][:6]) == pytest.approx([0.7, 0.73, 0.5, 0.53, 0.6, 0.63])
    columns = ["run", "cluster.sec_per_step", "outer.method", "outer.lr", "seed", "loss", "diverged"]
    assert [*table] == [*columns, "simulated_time", "created"]  # and no momentum, which SGD has not
    assert list(table["cluster.sec_per_step"][6:]) == ["1 2", "1 2"]
    assert list(table["diverged"]) == [""] * 7 + ["diverged"]
    assert query_of(test) == {}


def test_a_sweep_is_chosen(runs):
    test = opened()
    pick(test, "selectbox", "sweep").select("rates")
    assert list(listed(sound(test.run()))["run"]) == [1, 2, 3, 4, 5, 6]
    assert query_of(test) == {"records.sweep": "rates"} and "diverged" not in listed(test)
    assert list(listed(opened(records_sweep="rates"))["run"]) == [1, 2, 3, 4, 5, 6]


def test_runs_are_filtered_as_on_the_command_line(runs):
    test = opened()
    test.text_input[0].set_value('outer.method=sgd "cluster.sec-per-step=1 2"')
    assert list(listed(sound(test.run()))["run"]) == [7, 8]
    assert list(listed(opened(records_where="outer.lr=0.2"))["run"]) == [3, 4]


@pytest.mark.parametrize(
    "where, said",
    [
        ("outer.foo=1", "outer.foo: unknown key"),
        ("outer.lr", "expected KEY=VALUE"),
        ('cluster.sec_per_step="1 2', "quotation mark is not closed"),
        ("outer.lr=x", "expected a number"),
        ("outer.method=nothing", "unknown 'nothing'"),
    ],
)
def test_a_filter_that_cannot_be_is_told_and_mended(runs, where, said):
    test = opened(records_where=where)
    assert said in test.error[0].value and not test.dataframe
    assert test.text_input[0].value == where and query_of(test) == {"records.where": where}
    test.text_input[0].set_value("")
    assert len(listed(sound(test.run()))) == 8 and not test.error


def test_a_filter_that_nothing_passes_is_told(runs):
    test = opened(records_where="outer.lr=17")
    assert "No run has these settings" in test.info[0].value and not test.dataframe


def test_runs_are_sorted_either_way_and_what_has_no_loss_comes_last(runs):
    test = opened()
    pick(test, "selectbox", "sort by").select("loss")
    assert list(listed(sound(test.run()))["run"]) == [3, 4, 5, 6, 1, 2, 7, 8]
    pick(test, "selectbox", "order").select("down")
    assert list(listed(sound(test.run()))["run"]) == [7, 2, 1, 6, 5, 4, 3, 8]
    assert query_of(test) == {"records.sort": "loss", "records.order": "down"}
    rates = opened(records_sweep="rates", records_sort="outer.lr", records_order="down")
    assert list(listed(rates)["run"]) == [6, 5, 4, 3, 2, 1]


def test_what_cannot_be_sorted_by_any_more_gives_way(runs):
    test = opened(records_sort="outer.lr", records_order="down")
    assert listed(test)["run"][0] == 8
    pick(test, "selectbox", "order").select("up")
    test.multiselect[0].set_value(["accuracy"])
    assert list(listed(sound(test.run()))["run"]) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert query_of(test) == {"records.columns": "accuracy"} and not test.warning


def test_columns_are_chosen_and_come_back_when_all_are_taken_away(runs):
    test = opened()
    test.multiselect[0].set_value(["accuracy", "inner.lr"])
    table = listed(sound(test.run()))
    assert {"accuracy", "inner.lr"} <= {*table} and "outer.lr" not in table
    assert table["accuracy"][0] == pytest.approx(1 - 0.7 / 4)
    assert {*listed(opened(records_columns="accuracy inner.lr"))} == {*table}
    test.multiselect[0].set_value([])
    assert "outer.lr" in listed(sound(test.run())) and query_of(test) == {}


def test_no_more_rows_than_a_page_takes(runs, monkeypatch):
    monkeypatch.setattr(stored, "SHOWN", 3)
    test = opened(records_order="down")
    assert "the first 3 of 8 runs" in words(test)
    assert list(listed(test)["run"]) == [8, 7, 6]
    assert list(listed(opened())["run"]) == [1, 2, 3]


# Curves


def test_all_runs_of_few_configurations_are_drawn(runs):
    test = opened()
    table, charts = legend(test), drawn(test)
    assert list(table["seeds"]) == [2, 2, 2, 2] and list(table["diverged"]) == [0, 0, 0, 1]
    assert list(table["mean final loss"][:3]) == ["0.5150", "0.6150", "0.7150"]
    assert [chart["layer"][0]["encoding"]["x"]["title"] for chart in charts] == [
        "local steps, all workers",
        "simulated time (s)",
    ]


def test_selected_runs_are_drawn_and_kept_in_the_query_string(runs):
    test = select(opened(), 2, 3, 6)
    assert query_of(test)["records.runs"] == "3 4 7"
    assert list(legend(test)["seeds"]) == [2, 1]
    again = opened(records_runs="3 4 7")
    assert legend(again).equals(legend(test)) and query_of(again)["records.runs"] == "3 4 7"
    assert len(legend(select(again))) == 4 and query_of(again) == {}


def test_a_selection_is_of_runs_and_not_of_places(runs):
    test = opened(records_runs="3 4")
    pick(test, "selectbox", "sort by").select("loss")
    assert query_of(sound(test.run()))["records.runs"] == "3 4"
    assert list(legend(test)["mean final loss"]) == ["0.5150"]


def test_a_run_that_is_not_listed_is_told(runs):
    test = opened(records_runs="3 999")
    assert "Not among the listed runs: 999" in words(test) and query_of(test) == {"records.runs": "3"}
    assert "Not among" not in words(sound(test.run()))


def test_of_many_configurations_runs_must_be_selected(path):
    fill(path, *(made_up(config(i), (0,), 1 - 0.01 * i) for i in range(12)))
    test = opened()
    assert "Select runs" in test.info[0].value and legend(test) is None and not drawn(test)
    assert test.button[0].disabled
    test = select(test, *range(12))
    assert len(legend(test)) == 10 and "The best 10 of 12 configurations" in words(test)
    assert "of the best 4" in words(test) and not test.button[0].disabled


def test_another_metric_is_drawn(runs):
    test = opened(records_metric="accuracy")
    assert drawn(test)[0]["layer"][1]["encoding"]["y"]["title"] == "accuracy"
    test.segmented_control[1].set_value("loss")
    assert drawn(sound(test.run()))[0]["layer"][1]["encoding"]["y"]["title"] == "loss (nats)"


def test_runs_that_were_made_again_are_counted(runs):
    fill(runs, made_up(config(0), (0, 1), 0.3), maker="other")
    test = opened(records_where="outer.lr=0.1")
    assert "2 runs were made again" in words(test)
    assert list(legend(test)["mean final loss"]) == ["0.3150"]  # the latest counts


def test_long_curves_are_thinned_and_bands_drawn_of_the_best():
    from toybench.plots.curves import numbers

    settings = [made_up(config(i), (0, 1), 0.5 + 0.1 * i, points=5000) for i in range(6)]
    settings.append(made_up(SGD, (0,), 0.1, points=2))
    found = numbers(settings)
    points = charts_compare.points(found, [str(i) for i in range(7)], "local_steps")
    counts = points.groupby("line").size()
    assert counts.max() <= 300 and counts["0"] == 2
    assert points[points["line"] == "1"]["x"].iloc[[0, -1]].tolist() == [0, 4999 * 8]
    wide = {line: bool((own["high"] > own["low"]).any()) for line, own in points.groupby("line")}
    assert wide == {"0": False, "1": True, "2": True, "3": True, "4": False, "5": False, "6": False}


@pytest.mark.parametrize("count", [1, 2, 299, 300, 301, 599, 10_000])
def test_thinning_keeps_both_ends(count):
    kept = charts_compare.thinned(range(count))
    assert kept[0] == 0 and kept[-1] == count - 1 and len(kept) == len(set(kept)) <= 300


# One run, and what leaves the page


def test_a_run_shows_its_configuration_and_where_it_comes_from(runs):
    test = opened()
    assert len(test.code) == 1  # on demand only
    pick(test, "selectbox", "run").select("7")
    test = sound(test.run())
    assert load_run(tomllib.loads(test.code[0].value)) == SGD and query_of(test) == {"records.run": "7"}
    table = test.dataframe[-1].value.set_index("of the run")["value"]
    assert table["commit"] == "abc" and table["code"] == "c0de" and float(table["final loss"]) == pytest.approx(0.9)
    assert test.get("download_button")[-1].label == "Download run-7.toml"
    assert test.code[1].value == "toybench run run-7.toml --seeds 0:1"
    assert opened(records_run="7").code[0].value == test.code[0].value


def test_runs_of_another_version_of_toybench_are_told(runs):
    tables = dump_run(config(0))
    tables["outer"]["flux"] = 3
    with closing(sqlite3.connect(runs)) as connection:
        connection.execute("UPDATE configs SET document = ? WHERE id = 1", [json.dumps(tables)])
        connection.commit()
    test = opened(records_run="1")
    assert "These runs cannot be drawn: outer.flux" in test.error[0].value and len(listed(test)) == 8
    toml = pick_code(test, "[outer]")
    assert "refuses it: outer.flux" in toml and tomllib.loads(toml)["outer"]["flux"] == 3


def pick_code(test, part):
    return next(one.value for one in test.code if part in one.value)


def test_selected_configurations_go_to_the_explore_page(runs):
    test = opened(records_runs="4 7")
    button = test.button[0]
    assert button.label == "Explore these 2"
    test = sound(button.click().run())
    assert test.title[0].value == "there"
    assert test.session_state["scene"] == Scene("fast", (0, 1), (config(1), SGD))


def test_no_more_than_four_go_to_the_explore_page(path):
    fill(path, *(made_up(config(i), (0,), 1 - 0.01 * i) for i in range(6)))
    button = opened().button[0]
    assert button.label == "Explore the best 4"
    assert button.click().run().session_state["scene"].runs == tuple(config(i) for i in (5, 4, 3, 2))


def test_the_listed_rows_are_a_csv(runs):
    assert opened(records_sweep="rates").get("download_button")[0].label == "6 rows as CSV"
    rows = [{"run": 1, "cluster.sec_per_step": [1.0, 2.0], "loss": None}, {"run": 2, "cluster.sec_per_step": [3.0]}]
    found = [*csv.reader(io.StringIO(compare_records.as_csv(rows)))]
    assert found == [["run", "cluster.sec_per_step", "loss"], ["1", "1.0 2.0", ""], ["2", "3.0", ""]]


def test_the_command_lines_of_the_page_work(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs.parent)
    query = {"where": 'outer.method=sgd cluster.sec_per_step="1 2"', "columns": "outer.lr accuracy", "sort": "loss"}
    test = opened(**{f"records_{name}": value for name, value in query.items()}, records_metric="accuracy")
    lines = [shlex.split(line) for line in pick_code(test, "toybench plot").splitlines()]
    assert [line[1] for line in lines] == ["records", "plot", "records"] and "accuracy" in lines[1]
    assert main(lines[0][1:]) == 0 and "2 of 2 runs" in capsys.readouterr().out
    assert main(lines[1][1:]) == 0 and (runs.parent / "results" / "curves.png").exists()
    assert main(lines[2][1:]) == 0 and (runs.parent / "runs.csv").read_text(encoding="utf-8").count("\n") == 3


# The leaderboard


@pytest.mark.parametrize("cluster", BOARD["clusters"])
def test_a_cluster_has_its_table(path, cluster):
    test = opened(compare="leaderboard", board_cluster=cluster)
    table, rows = test.dataframe[0].value, BOARD["clusters"][cluster]
    assert list(table["method"]) == [row["name"] for row in rows]
    assert list(table["verdict"]) == [row["verdict"] for row in rows]
    assert list(table["gap"]) == pytest.approx([row["gap"][0] for row in rows])
    assert table["rank_text"][0] == f"[{rows[0]['rank'][1]:g}, {rows[0]['rank'][2]:g}]"
    assert table["reached"][0] == f"{rows[0]['reached']}/12"
    text = words(test)
    assert "1000–1003" in text and "1004–1011" in text and "200–211" in text and "Negative control" in text


def test_a_cluster_and_a_view_are_chosen(path):
    test = opened(compare="leaderboard")
    test.segmented_control[1].set_value("very-4")
    test.segmented_control[2].set_value("gaps")
    test = sound(test.run())
    assert query_of(test)["board.cluster"] == "very-4" and query_of(test)["board.view"] == "gaps"
    assert not test.dataframe and len(drawn(test)) == 1
    assert drawn(test)[0]["layer"][1]["encoding"]["y"]["sort"] == [row["name"] for row in BOARD["clusters"]["very-4"]]


def test_all_clusters_are_one_map(path):
    test = opened(compare="leaderboard", board_view="clusters")
    chart = drawn(test)[0]
    assert chart["layer"][0]["encoding"]["x"]["sort"] == [CLUSTERS[name][0] for name in BOARD["clusters"]]
    entries = compare_board.entries(BOARD, "very-4")
    assert {entry["method"]: entry["said"] for entry in entries}["delayed_nesterov + DyLU"] == "(-2.1)"
    assert {entry["method"]: entry["said"] for entry in entries}["heloco + DyLU"] == "-7.1"


def test_the_edge_is_marked():
    board = json.loads(json.dumps(BOARD))
    board["clusters"]["very-4"][0]["on_edge"] = True
    first, second, *_ = compare_board.entries(board, "very-4")
    assert first["settings"] == "lr 0.646 (edge)" and "edge" not in second["settings"]


def test_an_entry_goes_to_the_explore_page_as_it_was_reported(path):
    test = opened(compare="leaderboard", board_cluster="very-8")
    pick(test, "selectbox", "entry").select("delayed_nesterov + DyLU")
    test = sound(test.run())
    assert query_of(test)["board.entry"] == "delayed_nesterov + DyLU"
    test = sound(test.button[0].click().run())
    assert test.title[0].value == "there"
    row = next(row for row in BOARD["clusters"]["very-8"] if row["name"] == "delayed_nesterov + DyLU")
    base = overlay(load_preset("default"), CLUSTERS["very-8"][1])
    run = vary(base, contestants()["delayed_nesterov + DyLU"].changes | row["settings"])
    assert test.session_state["scene"] == Scene("default", tuple(range(200, 212)), (run,))
    assert run.cluster.dynamic_steps and len(run.cluster.sec_per_step) == 8


@pytest.mark.parametrize("cluster", BOARD["clusters"])
def test_every_entry_can_be_explored(cluster):
    for row in BOARD["clusters"][cluster]:
        [run] = compare_board.scene_of(BOARD, cluster, row["name"], row["settings"]).runs
        assert list(run.cluster.sec_per_step) == CLUSTERS[cluster][1]["cluster.sec_per_step"]
        assert run.outer.lr == row["settings"].get("outer.lr", run.outer.lr)


@pytest.fixture
def records(tmp_path):
    """A folder of records to break."""
    folder = tmp_path / "records"
    (folder / "paper").mkdir(parents=True)
    shutil.copy(RECORDS / "leaderboard.json", folder)
    shutil.copy(RECORDS / "paper" / "report.json", folder / "paper")
    return folder


@pytest.mark.parametrize("change", [{"name": "mine"}, {"settings": {"outer.flux": 1}}])
def test_an_entry_of_another_toybench_is_told(path, records, change):
    board = json.loads(json.dumps(BOARD))
    board["clusters"][FIRST][0] |= change
    (records / "leaderboard.json").write_text(json.dumps(board), encoding="utf-8")
    test = sound(opened(records, compare="leaderboard").button[0].click().run())
    assert len(test.error) == 1 and ("mine" in test.error[0].value or "outer.flux" in test.error[0].value)


def test_numbers_that_are_not_finite_are_shown_as_lacking(path, records):
    board = json.loads(json.dumps(BOARD))
    board["clusters"][FIRST][0] |= {"gap": [None] * 3, "time_ratio": [None] * 3, "gap_corrected": [None] * 3}
    (records / "leaderboard.json").write_text(json.dumps(board), encoding="utf-8")
    for view in compare_board.VIEWS:
        assert "Negative control" in words(opened(records, compare="leaderboard", board_view=view))
    assert "[–, –]" in list(opened(records, compare="leaderboard").dataframe[0].value["gap_text"])


# The report on the paper


def test_the_report_counts_the_papers_statements(path):
    test = opened(compare="paper")
    assert [(one.label, one.value) for one in test.metric] == [
        ("statements of the paper", "51"),
        ("agrees", "39"),
        ("disagrees", "10"),
        ("undecided", "2"),
    ]
    assert badges(test) == len(CLAIMS) and len(test.get("image")) == len(REPORT["answers"])
    assert "reported on 200-211" in words(test)


def badges(test):
    return sum(one.value.count("-badge[") for one in test.markdown)


@pytest.mark.parametrize("verdict", ["agrees", "disagrees", "undecided", "ours"])
def test_statements_are_filtered_by_verdict(path, verdict):
    test = opened(compare="paper")
    test.segmented_control[1].set_value(verdict)
    test = sound(test.run())
    own = [one for one in CLAIMS if (not one["of_the_paper"] if verdict == "ours" else passed(one, verdict))]
    assert badges(test) == len(own) > 0 and query_of(test) == {"compare": "paper", "paper.verdict": verdict}
    assert badges(opened(compare="paper", paper_verdict=verdict)) == len(own)


def passed(claim, verdict):
    return claim["of_the_paper"] and claim["verdict"] == verdict


def test_a_question_has_its_statements_figure_and_settings(path):
    test = opened(compare="paper")
    pick(test, "selectbox", "question").select("figure_05")
    test = sound(test.run())
    answer = REPORT["answers"]["figure_05"]
    assert badges(test) == len(answer["claims"]) and len(test.get("image")) == 1
    assert list(test.dataframe[0].value[""]) == [row["label"] for row in answer["rows"]]
    assert "SGD outside is comparable" in words(test) and "-5.13 [-5.80,\u00a0-4.47]" in words(test)
    assert "SGD inside at the best of five inner rates" in words(test)


def test_a_question_without_such_a_verdict_is_told(path):
    test = opened(compare="paper", paper_question="figure_06", paper_verdict="disagrees")
    assert "No statement" in test.info[0].value and badges(test) == 0


def test_a_figure_that_is_not_there_is_told(path, records):
    test = opened(records, compare="paper", paper_question="figure_06")
    assert "Its figure is not here" in test.info[0].value and badges(test) == 3


def test_statements_are_no_markdown():
    assert compare_paper.literal("a | b\n$x$ [c](d) :red[e] <f>") == r"a \| b \$x\$ \[c\]\(d\) \:red\[e\] \<f\>"


# Records that are not as they should be


@pytest.mark.parametrize("part, file", [("leaderboard", "leaderboard.json"), ("paper", "paper/report.json")])
class TestRecords:
    def test_that_are_not_there_are_told(self, path, records, part, file):
        (records / file).unlink()
        for folder in (None, records, records / "nowhere"):
            test = opened(folder, compare=part)
            assert len(test.info) == 1 and "checkout" in words(test) and len(test.code) == 1
            assert {"leaderboard": "toybench leaderboard", "paper": "experiments.paper"}[part] in test.code[0].value

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"clusters": {"a": 3}, "answers": 3}', "\x00\xff"])
    def test_that_are_broken_are_told(self, path, records, part, file, text):
        (records / file).write_text(text, encoding="latin-1")
        test = opened(records, compare=part)
        assert len(test.error) == 1 and Path(file).name in test.error[0].value and len(test.code) == 1

    def test_that_change_are_read_anew(self, path, records, part, file):
        test = opened(records, compare=part)
        assert not test.error
        (records / file).write_text("{}", encoding="utf-8")
        os.utime(records / file, ns=(1, 1))
        assert len(sound(test.run()).error) == 1

    def test_that_are_empty_are_told(self, path, records, part, file):
        (records / file).write_text(json.dumps(BOARD | {"clusters": {}} | {"answers": {}}), encoding="utf-8")
        assert len(opened(records, compare=part).info) == 1


# The query string

DEFAULT = {
    "leaderboard": {
        "compare": "leaderboard",
        "board.cluster": FIRST,
        "board.entry": BOARD["clusters"][FIRST][0]["name"],
    },
    "paper": {"compare": "paper"},
}


@pytest.mark.parametrize(
    "query",
    [
        {"compare": "nothing"},
        {"records_sweep": "<script>"},
        {"records_sort": "outer.period"},
        {"records_order": "sideways"},
        {"records_columns": "outer.foo"},
        {"records_columns": "fame"},
        {"records_runs": "1; DROP TABLE runs"},
        {"records_runs": "-1"},
        {"records_runs": "9" * 40},
        {"records_runs": "1 " * 3000},
        {"records_run": "999"},
        {"records_metric": "fame"},
        {"compare": "leaderboard", "board_cluster": "mars"},
        {"compare": "leaderboard", "board_view": "pie"},
        {"compare": "leaderboard", "board_entry": "nobody"},
        {"compare": "paper", "paper_verdict": "maybe"},
        {"compare": "paper", "paper_question": "figure_99"},
    ],
)
def test_what_cannot_be_in_a_query_string_is_told_and_left_out(runs, query):
    test = opened(**query)
    assert len(test.warning) == 1 and not test.error
    assert query_of(test) == DEFAULT.get(query.get("compare"), {})
    assert not sound(test.run()).warning  # once


def test_a_query_string_reproduces_the_page(runs):
    test = opened()
    pick(test, "selectbox", "sweep").select("rates")
    pick(test, "selectbox", "order").select("down")
    test.text_input[0].set_value("outer.method=nesterov")
    test.multiselect[0].set_value(["outer.lr", "inner.lr"])
    test.segmented_control[1].set_value("accuracy")
    test = select(sound(test.run()), 0, 1, 2)
    pick(test, "selectbox", "run").select("5")
    test = sound(test.run())
    assert query_of(test) == {
        "records.sweep": "rates",
        "records.where": "outer.method=nesterov",
        "records.columns": "outer.lr inner.lr",
        "records.order": "down",
        "records.runs": "6 5 4",
        "records.run": "5",
        "records.metric": "accuracy",
    }
    again = opened(**{name.replace(".", "_", 1): value for name, value in query_of(test).items()})
    assert query_of(again) == query_of(test) and drawn(again) == drawn(test)
    assert all(one.value.equals(other.value) for one, other in zip(again.dataframe, test.dataframe, strict=True))


def test_what_could_not_be_shown_stays_in_the_query_string(path):
    test = opened(records_sweep="rates", records_runs="3")
    assert query_of(test) == {"records.sweep": "rates", "records.runs": "3"}
    fill(path, *(made_up(config(i), (0, 1), 0.5) for i in range(3)), sweep="rates")
    assert list(legend(sound(test.run()))["seeds"]) == [1]


def test_the_parts_remember_their_choices(runs):
    test = opened(records_sweep="rates", paper_verdict="undecided")
    test.segmented_control[0].set_value("paper")
    test = sound(test.run())
    assert badges(test) == 2
    test.segmented_control[0].set_value("records")
    assert query_of(sound(test.run())) == {"records.sweep": "rates"}
