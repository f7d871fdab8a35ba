"""The runs of the Compare page: listed, filtered, sorted, drawn, taken away."""

import csv
import io
import json
import shlex
import sqlite3
import tomllib
from contextlib import closing

import pytest

from tests.compare_page import SGD, asked_of, config, fill, fill_as_usual, legend, made_up, opened, pick, select, words
from tests.pages import drawn, newer, of_another_program, sound
from toybench.cli import main
from toybench.loading import dump_run, load_run
from toybench.store import Store
from toybench.views import charts_compare, compare_records, stored
from toybench.views.scene import Scene


@pytest.fixture
def runs(path):
    fill_as_usual(path)
    return path


def listed(test):
    return test.dataframe[0].value


# Without a store


def test_where_no_run_was_made_it_says_how(path):
    test = opened()
    assert "No runs" in test.info[0].value and not test.error
    assert test.code[0].value.startswith("toybench sweep --grid") and str(path) in test.code[0].value
    assert not path.exists()  # looking makes none


def test_a_store_without_runs_says_how(path):
    Store(path).close()
    assert "No runs" in opened().info[0].value


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda path: path.write_text("no database, not at all " * 100), "not a database"),
        (of_another_program, "another program"),
        (newer, "has version 99"),
        (lambda path: path.mkdir(), "runs.sqlite"),
    ],
)
def test_what_is_no_store_is_told_in_a_line(path, make, said):
    make(path)
    test = opened()
    assert said in test.error[0].value and "TOYBENCH_STORE" in words(test)
    assert pick(test, "segmented_control", "part").value == "records"  # which leads to the others


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
    assert asked_of(test) == {}


def test_a_sweep_is_chosen(runs):
    test = opened()
    pick(test, "selectbox", "sweep").select("rates")
    assert list(listed(sound(test.run()))["run"]) == [1, 2, 3, 4, 5, 6]
    assert asked_of(test) == {"records.sweep": "rates"} and "diverged" not in listed(test)
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
    assert test.text_input[0].value == where and asked_of(test) == {"records.where": where}
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
    assert asked_of(test) == {"records.sort": "loss", "records.order": "down"}
    rates = opened(records_sweep="rates", records_sort="outer.lr", records_order="down")
    assert list(listed(rates)["run"]) == [6, 5, 4, 3, 2, 1]


def test_what_cannot_be_sorted_by_any_more_gives_way(runs):
    test = opened(records_sort="outer.lr", records_order="down")
    assert listed(test)["run"][0] == 8
    pick(test, "selectbox", "order").select("up")
    test.multiselect[0].set_value(["accuracy"])
    assert list(listed(sound(test.run()))["run"]) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert asked_of(test) == {"records.columns": "accuracy"} and not test.warning


def test_columns_are_chosen_and_come_back_when_all_are_taken_away(runs):
    test = opened()
    test.multiselect[0].set_value(["accuracy", "inner.lr"])
    table = listed(sound(test.run()))
    assert {"accuracy", "inner.lr"} <= {*table} and "outer.lr" not in table
    assert table["accuracy"][0] == pytest.approx(1 - 0.7 / 4)
    assert {*listed(opened(records_columns="accuracy inner.lr"))} == {*table}
    test.multiselect[0].set_value([])
    assert "outer.lr" in listed(sound(test.run())) and asked_of(test) == {}


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
    assert asked_of(test)["records.runs"] == "3 4 7"
    assert list(legend(test)["seeds"]) == [2, 1]
    again = opened(records_runs="3 4 7")
    assert legend(again).equals(legend(test)) and asked_of(again)["records.runs"] == "3 4 7"
    assert len(legend(select(again))) == 4 and asked_of(again) == {}


def test_a_selection_is_of_runs_and_not_of_places(runs):
    test = opened(records_runs="3 4")
    pick(test, "selectbox", "sort by").select("loss")
    assert asked_of(sound(test.run()))["records.runs"] == "3 4"
    assert list(legend(test)["mean final loss"]) == ["0.5150"]


def test_a_run_that_is_not_listed_is_told(runs):
    test = opened(records_runs="3 999")
    assert "Not among the listed runs: 999" in words(test) and asked_of(test) == {"records.runs": "3"}
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
    assert load_run(tomllib.loads(test.code[0].value)) == SGD and asked_of(test) == {"records.run": "7"}
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
