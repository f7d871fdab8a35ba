"""The accelerator parts end to end at a test's size: they keep what they found, and are taken up where they stopped."""

import json

import pytest

pytest.importorskip("flax")
from experiments.accelerator.__main__ import main
from experiments.accelerator.bench import read_document
from lm.contest import Contest
from lm.loop import Stopped
from toybench.compare import read_contest, sides
from toybench.leaderboard import REFERENCE


def small(part, out, *words):
    assert main([part, "--small", "--out", str(out), "--scratch", str(out / "scratch"), *words]) == 0
    return read_document(out / f"{part}.json")["units"]


def test_ceilings(tmp_path, capsys):
    units = small("ceilings", tmp_path)
    assert len(units) == 3 and all(unit["rate"] > 0 for unit in units.values())
    said = capsys.readouterr().out
    assert "TFLOP/s" in said and "GB/s" in said and said.rstrip().endswith("finished")


def test_the_notebook_is_taken_up_where_it_stopped(tmp_path, capsys):
    main(["notebook", "--small", "--out", str(tmp_path), "--eager-visits", "0", "--seconds", "0.001"])
    assert "stopped before" in capsys.readouterr().out and not (tmp_path / "notebook.json").exists()
    units = small("notebook", tmp_path, "--eager-visits", "0")
    runs = {name: unit for name, unit in units.items() if "loss" in unit}
    assert len(runs) == 4 and all(unit["loss"][-1] < 1.6 for unit in runs.values())
    assert units["adamw"]["masked"] and not units["adamw unmasked"]["masked"]
    again = small("notebook", tmp_path, "--eager-visits", "0", "--seconds", "0.001")
    assert again == units  # nothing is done twice
    assert "share of AdamW's memory bound" in capsys.readouterr().out


def test_a_campaign_is_taken_up_run_by_run(tmp_path, monkeypatch, capsys):
    measure, trained = Contest.measure, []

    def counted(self, runs, seeds, **more):
        lacking = [seed for run in runs for seed in self.lacking(run, seeds)]
        if lacking and len(trained) == 2:
            raise Stopped(1)
        trained.extend(lacking)
        return measure(self, runs, seeds, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Contest, "measure", counted)
        units = small("confirm-20m", tmp_path)
    assert "stopped before very-4, sync nesterov" in capsys.readouterr().out
    assert len(trained) == 2 and {"plan", "start"} <= units.keys()
    monkeypatch.setattr(Contest, "measure", lambda *a, **k: trained.append(0) or measure(*a, **k))
    assert small("confirm-20m", tmp_path)["start"] == units["start"]
    document = read_contest(str(tmp_path / "confirm-20m.leaderboard.json"))
    [board] = sides(document, "lm").values()
    assert set(board.names) == {REFERENCE, "nesterov"} and board.losses.shape == (2, 2)
    for row in document["clusters"]["very-4"]:
        assert len(row["rates"]) >= 3 and len(row["tuning_losses"]) == len(row["rates"])
    assert document["seeds"]["tuning"] == [1000] and not set(document["seeds"]["reported"]) & {1000}
    assert (tmp_path / "confirm-20m.start.json").exists()
    with pytest.raises(SystemExit):  # of the runs there, but their parameters are gone
        (tmp_path / "confirm-20m.start.json").unlink()
        main(["confirm-20m", "--small", "--out", str(tmp_path)])
    assert "is gone" in capsys.readouterr().err


@pytest.mark.slow
def test_toy_throughput(tmp_path, capsys):
    units = small("toy-throughput", tmp_path)
    assert units["sweep"]["runs"] == 64 and units["profile"]["operations"]
    assert all(unit["share_of_copy"] > 0 for name, unit in units.items() if name.startswith("batch "))
    assert "sweep of 64 runs" in capsys.readouterr().out


@pytest.mark.slow
def test_lm_throughput_says_what_a_device_lacks(tmp_path):
    units = small("lm-throughput", tmp_path)
    failed = [name for name, unit in units.items() if "failed" in unit]
    assert len(units) == 3 and failed == [name for name in units if "cudnn" in name]
    assert all(unit["tokens_per_second"] > 0 for name, unit in units.items() if name not in failed)


@pytest.mark.slow
def test_the_notebook_beside_an_eager_loop(tmp_path, capsys):
    pytest.importorskip("torch")
    unit = small("notebook", tmp_path, "--eager-visits", "1")["eager"]
    assert unit["hidden"] == 64 and unit["visit_seconds"] > 0
    assert "as fast as eager PyTorch's" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("part", "boards"), [("confirm-workers", 2), ("confirm-60m", 2)])
def test_the_other_campaigns(tmp_path, part, boards):
    units = small(part, tmp_path)
    document = json.loads((tmp_path / f"{part}.leaderboard.json").read_text())
    assert len(document["clusters"]) == boards == sum(name.startswith("board ") for name in units)
