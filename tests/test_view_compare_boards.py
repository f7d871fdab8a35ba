"""The leaderboard and the report on the paper on the Compare page, and records that are not as they should be."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.compare_page import BOARD, FIRST, RECORDS, asked_of, badges, opened, pick, words
from tests.pages import drawn, sound
from toybench.clusters import CLUSTERS
from toybench.leaderboard import contestants
from toybench.loading import overlay
from toybench.presets import load_preset
from toybench.study import vary
from toybench.views import compare_board, compare_paper
from toybench.views.scene import Scene

REPORT = json.loads((RECORDS / "paper" / "report.json").read_text(encoding="utf-8"))
CLAIMS = [claim for answer in REPORT["answers"].values() for claim in answer["claims"]]


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
    assert asked_of(test)["board.cluster"] == "very-4" and asked_of(test)["board.view"] == "gaps"
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
    assert asked_of(test)["board.entry"] == "delayed_nesterov + DyLU"
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


@pytest.mark.parametrize("verdict", ["agrees", "disagrees", "undecided", "ours"])
def test_statements_are_filtered_by_verdict(path, verdict):
    test = opened(compare="paper")
    test.segmented_control[1].set_value(verdict)
    test = sound(test.run())
    own = [one for one in CLAIMS if (not one["of_the_paper"] if verdict == "ours" else passed(one, verdict))]
    assert badges(test) == len(own) > 0 and asked_of(test) == {"compare": "paper", "paper.verdict": verdict}
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
