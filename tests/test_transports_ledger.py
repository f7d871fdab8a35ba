"""What a server must not forget, on the disk: events that were cut off, checkpoints that were not finished."""

import shutil

import numpy as np
import pytest

from toybench.config import ConfigError
from toybench.transports.ledger import Ledger


def events(folder) -> list[dict]:
    return [frame.told for frame in Ledger(folder).read()]


def written(folder, count: int) -> Ledger:
    one = Ledger(folder)
    one.keep(one.roll(), {"n": -1}, [])
    for n in range(count):
        one.append({"n": n}, [np.arange(n)])
    return one


def test_an_event_that_is_cut_off_anywhere_was_never_there(tmp_path):
    written(tmp_path / "a", 3).close()
    whole = (tmp_path / "a" / "journal-0").read_bytes()
    seen = set()
    for end in range(len(whole) + 1):
        shutil.copytree(tmp_path / "a", tmp_path / f"{end}")
        (tmp_path / f"{end}" / "journal-0").write_bytes(whole[:end])
        found = [told["n"] for told in events(tmp_path / f"{end}")]
        assert found == [-1, 0, 1, 2][: len(found)]
        seen.add(len(found))
        one = Ledger(tmp_path / f"{end}")
        [*one.read()]
        one.open()
        one.append({"n": 7})
        one.close()
        assert [told["n"] for told in events(tmp_path / f"{end}")] == [*found, 7]
    assert seen == {1, 2, 3, 4}


def test_a_checkpoint_that_was_not_finished_is_none(tmp_path):
    """Events go on in the next journal while it is written."""
    one = written(tmp_path / "a", 3)
    one.roll()
    one.append({"n": 3})
    (tmp_path / "a" / "new-1").write_bytes(b"half of it")
    one.close()
    assert [told["n"] for told in events(tmp_path / "a")] == [-1, 0, 1, 2, 3]
    two = Ledger(tmp_path / "a")
    [*two.read()]
    two.open()
    two.keep(two.roll(), {"n": 100}, [])
    two.append({"n": 4})
    assert [told["n"] for told in events(tmp_path / "a")] == [100, 4]


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    one = written(tmp_path / "a", 2)
    number = one.roll()
    one.append({"n": 2})
    (tmp_path / "a" / f"checkpoint-{number}").write_bytes(b"nothing of use")
    assert [told["n"] for told in events(tmp_path / "a")] == [-1, 0, 1, 2]


def test_a_journal_damaged_in_its_middle_is_no_silent_loss(tmp_path):
    one = written(tmp_path / "a", 3)
    one.roll()
    one.append({"n": 3})
    path = tmp_path / "a" / "journal-0"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ConfigError, match="damaged at byte"):
        events(tmp_path / "a")


def test_a_folder_without_a_whole_checkpoint_is_not_begun_anew(tmp_path):
    written(tmp_path / "a", 2).close()
    (tmp_path / "a" / "checkpoint-0").write_bytes(b"nothing of use")
    with pytest.raises(ConfigError, match="no whole checkpoint"):
        events(tmp_path / "a")
