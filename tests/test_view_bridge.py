"""The toy beside the language model on the Compare page."""

import json
import shutil

import pytest

from tests.compare_page import RECORDS, opened, words
from tests.pages import drawn

DOCUMENT = json.loads((RECORDS / "bridge" / "compare.json").read_text(encoding="utf-8"))


def test_the_record_is_shown_with_its_tau_and_every_method(path):
    test = opened(compare="bridge")
    assert f"{DOCUMENT[0]['agreement']['tau']:+.2f}" in words(test)
    table, rows = test.dataframe[0].value, DOCUMENT[0]["rows"]
    assert list(table["method"]) == [row["name"] for row in rows]
    assert list(table["gap1"]) == pytest.approx([row["gap"][1][0] for row in rows])
    assert len(drawn(test)) == 1


def test_a_record_that_is_not_there_says_how_to_make_it(path, tmp_path):
    test = opened(tmp_path, compare="bridge")
    assert "toybench compare" in words(test) and not test.dataframe


@pytest.mark.parametrize("change", [lambda d: d[0].pop("agreement"), lambda d: d[0]["rows"][0].pop("gap"), list.clear])
def test_a_damaged_record_is_a_line(path, tmp_path, change):
    shutil.copytree(RECORDS / "bridge", tmp_path / "bridge")
    damaged = json.loads(json.dumps(DOCUMENT))
    change(damaged)
    (tmp_path / "bridge" / "compare.json").write_text(json.dumps(damaged))
    test = opened(tmp_path, compare="bridge")
    assert not test.dataframe and len(test.error) + len(test.info) == 1


def test_several_pairs_of_clusters_are_chosen_among(path, tmp_path):
    (tmp_path / "bridge").mkdir()
    other = json.loads(json.dumps(DOCUMENT[0])) | {"clusters": ["moderate-4", "very-4"]}
    (tmp_path / "bridge" / "compare.json").write_text(json.dumps([*DOCUMENT, other]))
    test = opened(tmp_path, compare="bridge")
    assert list(test.segmented_control[1].options) == ["very-4", "moderate-4, very-4"]
