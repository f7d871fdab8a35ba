"""The Compare page's query string, and what its parts remember."""

import pytest

from tests.compare_page import (
    BOARD,
    FIRST,
    asked_of,
    badges,
    config,
    fill,
    fill_as_usual,
    legend,
    made_up,
    opened,
    pick,
    select,
)
from tests.pages import drawn, sound


@pytest.fixture
def runs(path):
    fill_as_usual(path)
    return path


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
    assert asked_of(test) == DEFAULT.get(query.get("compare"), {})
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
    assert asked_of(test) == {
        "records.sweep": "rates",
        "records.where": "outer.method=nesterov",
        "records.columns": "outer.lr inner.lr",
        "records.order": "down",
        "records.runs": "6 5 4",
        "records.run": "5",
        "records.metric": "accuracy",
    }
    again = opened(**{name.replace(".", "_", 1): value for name, value in asked_of(test).items()})
    assert asked_of(again) == asked_of(test) and drawn(again) == drawn(test)
    assert all(one.value.equals(other.value) for one, other in zip(again.dataframe, test.dataframe, strict=True))


def test_what_could_not_be_shown_stays_in_the_query_string(path):
    test = opened(records_sweep="rates", records_runs="3")
    assert asked_of(test) == {"records.sweep": "rates", "records.runs": "3"}
    fill(path, *(made_up(config(i), (0, 1), 0.5) for i in range(3)), sweep="rates")
    assert list(legend(sound(test.run()))["seeds"]) == [1]


def test_the_parts_remember_their_choices(runs):
    test = opened(records_sweep="rates", paper_verdict="undecided")
    test.segmented_control[0].set_value("paper")
    test = sound(test.run())
    assert badges(test) == 2
    test.segmented_control[0].set_value("records")
    assert asked_of(sound(test.run())) == {"records.sweep": "rates"}
