"""The leaderboard and its commands, on losses that are formulas of the settings: only one test trains."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.formulas import BASE, SEEDS, formula, valley
from toybench.cli import main
from toybench.clusters import CLUSTERS
from toybench.leaderboard import (
    REFERENCE,
    Contestant,
    Seeds,
    board,
    contestants,
    enter,
    hold,
    judge,
    markdown,
    planned_runs,
    save,
)
from toybench.loading import overlay
from toybench.outer import METHODS
from toybench.statistics import interval, relative_gap
from toybench.study import ASYNC, SYNC, vary
from toybench.tuning import (
    OCTAVES,
    STEPS,
    climb,
)
from toybench.views.compare_board import scene_of

# A contest


def quality(run, seed):
    """Sync Nesterov 1, a better and a worse method, and one a little worse than its seeds' noise can tell."""
    noise = np.random.default_rng(seed).normal()
    own = 0.02 * np.random.default_rng([seed, len(str(run.outer))]).normal()
    depth = {"SGD": 1.3, "Poly": 0.8, "Momentum": 1.003}.get(type(run.outer).__name__, 1.0)
    depth = depth if not run.cluster.barrier else 1.0
    return valley(0.1, depth + 0.05 * noise + own * (type(run.outer).__name__ == "Momentum"))(run, 0)


WHO = {
    name: Contestant({"cluster.barrier": False, "outer.method": name})
    for name in ("sgd", "poly", "momentum", "control")
}


def test_verdicts_are_on_the_corrected_interval_and_a_method_is_undecided_against_itself():
    found, control = hold(BASE, {**WHO, "nesterov": Contestant({"cluster.barrier": False})}, SEEDS, formula(quality))
    rows = {row["name"]: row for row in found}
    assert control == {"gap": (0, 0, 0), "verdict": "undecided"}
    assert {name: row["verdict"] for name, row in rows.items()} == {
        REFERENCE: "reference",
        "sgd": "worse",
        "poly": "better",
        "momentum": "undecided",
        "control": "undecided",
        "nesterov": "undecided",
    }
    assert rows["control"]["gap"] == (0, 0, 0)
    for row in rows.values():
        wide, narrow = row["gap_corrected"], row["gap"]
        assert wide.low <= narrow.low <= narrow.mean <= narrow.high <= wide.high
    assert [row["rank"].mean for row in found] == sorted(row["rank"].mean for row in found)


def test_a_diverged_run_counts_as_the_untrained_model_and_a_target_never_reached_as_the_whole_time():
    def loss(run, seed):
        return np.nan if type(run.outer).__name__ == "SGD" else valley(0.1)(run, seed)

    rows = {row["name"]: row for row in hold(BASE, {"sgd": WHO["sgd"]}, SEEDS, formula(loss))[0]}
    assert rows["sgd"]["diverged"] == 8 and rows["sgd"]["loss"].mean == 2.0
    assert rows["sgd"]["reached"] == 0 and rows["sgd"]["time_ratio"] == (1, 1, 1)


def test_everybody_is_in_and_all_settings_are_real():
    everybody = contestants()
    assert set(METHODS) <= set(everybody) and REFERENCE in everybody
    for one in everybody.values():
        for other in one.also:
            overlay(BASE, {**one.changes, **other, "outer.lr": 0.1})


def test_a_leaderboard_is_written_as_it_grows(tmp_path):
    clusters = {name: CLUSTERS[name] for name in ("none-4", "very-4")}
    measure, documents = formula(quality), []
    for document in board(BASE, clusters, WHO, SEEDS, measure):
        save(document | {"preset": "fast"}, tmp_path)
        documents.append(json.loads((tmp_path / "leaderboard.json").read_text()))
        text = (tmp_path / "leaderboard.md").read_text()
        assert text == markdown(documents[-1]) and text.count("\n| ") >= 5 * len(documents)
        assert (tmp_path / "leaderboard.png").read_bytes().startswith(b"\x89PNG")
    assert [list(document["clusters"]) for document in documents] == [["none-4"], ["none-4", "very-4"]]


def test_judging_needs_no_order():
    entries = {
        name: enter(BASE, name, one, SEEDS, formula(quality))
        for name, one in {**WHO, REFERENCE: Contestant({"cluster.barrier": True})}.items()
    }
    backwards = dict(reversed(entries.items()))
    key = partial(sorted, key=lambda row: row["name"])
    assert [r["gap"] for r in key(judge(entries))] == [r["gap"] for r in key(judge(backwards))]


# The commands


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["tune", "--methods", "sgdd"], ["methods", "sgdd", "'sgd'"]),
        (["tune", "--methods", "sgd", "--also", "outer.period=1,2"], ["outer.period", "sgd has no such setting"]),
        (["tune", "--also", "nonsense"], ["nonsense"]),
        (["tune", "--seeds", "1000:1003"], ["seeds", "1000", "tuning"]),
        (["tune", "--seeds", "5:6"], ["seeds", "two"]),
        (["tune", "--spend", "10"], ["spend", "10", "runs at most"]),
        (["tune", "--outer.method", "sgd"], ["outer.method", "--methods"]),
        (["tune", "--outer.lr", "0.1"], ["outer.lr", "tuned"]),
        (["tune", "--also", "outer.lr=0.1,0.2"], ["also", "outer.lr"]),
        (["tune", "--also", "outer.method=sgd,poly"], ["also", "outer.method"]),
        (["tune", "--also", "inner.optimizer=sgd,adamw"], ["also", "inner.optimizer"]),
        (["tune", "--methods", "sgd", "--outer.momentum", "0.5"], ["outer.momentum", "sgd has no such setting"]),
        (["leaderboard", "--clusters", "huge"], ["clusters", "huge"]),
        (["leaderboard", "sgdd"], ["method", "sgdd"]),
        (["leaderboard", "--spend", "10"], ["spend"]),
        (["leaderboard", "--outer.lr", "0.1"], ["outer.lr", "tuned"]),
        (["leaderboard", "--cluster.dynamic-steps"], ["cluster.dynamic_steps", "differ by"]),
        (["leaderboard", "--cluster.sec-per-step", "1", "2"], ["cluster.sec_per_step", "differ by"]),
        (["leaderboard", "--inner.lr", "-1"], ["inner.lr", "-1"]),
        (["leaderboard", "--clusters", "very-8", "--cluster.join", "0", "0", "0", "0"], ["cluster.join", "8 workers"]),
    ],
)
def test_bad_input_is_one_line(arguments, parts, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        main([*arguments, "--preset", "fast"])
    printed = capsys.readouterr()
    assert exit.value.code == 2 and printed.out == "" and printed.err.count("\n") == 1
    assert all(part in printed.err for part in parts) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["tune", "--methods", "sgd", "poly"], ["leaderboard", "sgd"]])
def test_a_dry_run_says_how_many_runs_and_makes_none(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main([*command, "--preset", "fast", "--dry-run", "--json"])
    assert json.loads(capsys.readouterr().out)["most_runs"] > 100 and list(tmp_path.iterdir()) == []


def test_tune_for_real_and_again_from_the_store(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [
        "tune",
        "--preset",
        "fast",
        "--methods",
        "control",
        "--tuning-seeds",
        "1000:1001",
        "--runoff-seeds",
        "1001:1003",
        "--seeds",
        "200:202",
        "--json",
    ]
    documents = []
    for _ in range(2):
        main([*command, "--task.points", "256", "--budget.rounds", "3"])
        documents.append(json.loads(capsys.readouterr().out))
    assert documents[0] == documents[1]
    names = {row["name"]: row for row in documents[0]["methods"]}
    assert set(names) == {REFERENCE, "control"} and names["control"]["settings"]["outer.lr"] > 0
    assert len(names["control"]["rates"]) == len(names["control"]["tuning_losses"]) >= OCTAVES * STEPS + 1


def test_the_reference_is_tuned_alike_and_counted(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for also, times in (
        ([], 1),
        (["--also", "inner.lr=0.001,0.002,0.004"], 3),
        (["--also", "outer.momentum=0.5,0.9"], 2),
    ):
        main(["tune", "--preset", "fast", "--dry-run", "--json", *also])
        most = json.loads(capsys.readouterr().out)["most_runs"]
        one = planned_runs(Contestant({}), Seeds(range(4), range(8), range(12)))
        extra = 4 * (OCTAVES * STEPS + 1 + 16)
        reference = one + extra * (times - 1) * ("inner" in str(also))
        assert most == reference + one + extra * (times - 1)
    for names in (["sgd"], ["sync nesterov", "sgd"]):
        main(["leaderboard", *names, "--clusters", "very-4", "--preset", "fast", "--dry-run", "--json"])
        assert json.loads(capsys.readouterr().out)["most_runs"] == 2 * one


def test_a_leaderboard_of_a_changed_preset_says_so_and_is_run_with_it(monkeypatch, tmp_path):
    asked = []

    def noted(runs, seeds, store, progress):
        asked.extend(runs)
        return measure(runs, seeds)

    measure = formula(quality)
    monkeypatch.setattr("toybench.sweep.measure", noted)
    monkeypatch.chdir(tmp_path)
    words = ["leaderboard", "poly", "--clusters", "very-4", "--preset", "fast", "--out", "out"]
    main([*words, "--inner.reset", "true", "--outer.momentum", "0.5"])
    assert asked and {(run.inner.reset, run.outer.momentum) for run in asked} == {(True, 0.5)}
    document = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    assert document["changes"] == {"inner.reset": True, "outer.momentum": 0.5}
    said = "Preset `fast`, inner.reset true, outer.momentum 0.5; every"
    assert said in (tmp_path / "out" / "leaderboard.md").read_text()
    scene = scene_of(document, "very-4", "poly", {"outer.lr": 0.1})
    assert (scene.runs[0].inner.reset, scene.runs[0].outer.momentum) == (True, 0.5)


def test_another_method_keeps_what_the_base_says_beside_its_defaults():
    base = overlay(BASE, {"outer.momentum": 0.5, "outer.scale": "1/k"})
    for method, momentum in (("poly", 0.5), ("mla", 0.5), ("sgd", None)):
        outer = vary(base, {"outer.method": method}).outer
        assert outer.scale == "1/k" and getattr(outer, "momentum", None) == momentum
    assert vary(BASE, {"outer.method": "halos"}).outer == METHODS["halos"].settings()
    assert vary(base, {"outer.method": "poly", "outer.momentum": 0.8}).outer.momentum == 0.8


def test_synchronous_and_asynchronous_are_so_whatever_the_base():
    odd = overlay(BASE, {"cluster.dynamic_steps": True, "cluster.coalesce": True, "cluster.quorum": 2})
    for rules in (SYNC, ASYNC):
        cluster = vary(odd, {**rules, "outer.method": "nesterov"}).cluster
        assert (cluster.dynamic_steps, cluster.coalesce, cluster.quorum) == (False, False, 1)


def test_a_contest_may_search_otherwise_and_keeps_the_losses_of_every_seed():
    def search(make, who, seeds, measure):
        return climb(make, 0.2, seeds.tuning, measure)

    who = {"sgd": contestants()["sgd"]}
    rows, _ = hold(BASE, who, SEEDS, formula(valley(0.05)), search=search)
    assert {row["name"] for row in rows} == {REFERENCE, "sgd"}
    for row in rows:
        assert row["settings"]["outer.lr"] == 0.05 and len(row["losses"]) == len(SEEDS.reported)
        assert np.mean(row["losses"]) == row["loss"].mean


# The committed records

RECORDS = Path(__file__).parent.parent / "experiments" / "records"
ROWS = {
    "**sync** Nesterov + DyLU": "sync nesterov + DyLU",
    "Ordered Momentum + DyLU": "ormo + DyLU",
    "HeLoCo + DyLU": "heloco + DyLU",
    "DN + DyLU": "delayed_nesterov + DyLU",
    "HALoS": "halos",
    "HeLoCo": "heloco",
    "Momentum look-ahead + DyLU": "mla + DyLU",
    "Ringmaster": "ringmaster",
    "Poly": "poly",
    "SGD + DyLU": "sgd + DyLU",
    "SGD": "sgd",
    "Nesterov (async DiLoCo)": "nesterov",
}


def test_the_readme_shows_what_the_records_have():
    readme = (RECORDS.parent.parent / "README.md").read_text()
    boards = [json.loads((RECORDS / p / "leaderboard.json").read_text())["clusters"] for p in (".", "leaderboard-dylu")]
    table = readme[readme.index("| | 4 equal | slightly unequal | moderately | very | very, non-iid") :].split("\n\n")[
        0
    ]
    lines = table.splitlines()[2:]
    assert [line.split(" | ")[0][2:] for line in lines] == [*ROWS]
    for line, name in zip(lines, ROWS.values()):
        kept = boards[name not in [row["name"] for row in boards[0]["very-4"]]]
        said = []
        for rows in kept.values():
            [row] = [row for row in rows if row["name"] == name]
            gap = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*row["gap"])
            said.append(gap if row["verdict"] == "worse" else f"**{gap}**")
        assert line.split(" | ", 1)[1] == " | ".join(said) + " |"


def test_both_records_have_one_reference_and_dylu_behind_a_barrier_ends_where_the_readme_says():
    first, second = (
        json.loads((RECORDS / p / "leaderboard.json").read_text())["clusters"] for p in (".", "leaderboard-dylu")
    )
    ahead = {}
    for cluster, rows in second.items():
        old = {row["name"]: row for row in first[cluster]}
        new = {row["name"]: row for row in rows}
        np.testing.assert_allclose(new[REFERENCE]["losses"], old[REFERENCE]["losses"], rtol=1e-3)
        own = new["sync nesterov + DyLU"]["loss"][0]
        ahead[cluster] = [name for name in old if name != REFERENCE and old[name]["loss"][0] < own]
    unequal = ("slight-4", "moderate-4", "very-8", "very-16")
    assert [ahead[cluster] for cluster in unequal] == [[]] * 4 and ahead["very-4"] == ["heloco + DyLU"]
    took = [second[c][0]["time_ratio"][0] for c in (*unequal, "very-4")]
    text = " ".join((RECORDS.parent.parent / "README.md").read_text().split())
    assert f"{100 * min(took):.0f} to {100 * max(took):.0f} % of sync Nesterov's time" in text


def test_whom_dylu_harms_with_eight_workers_is_as_the_readme_says():
    text = " ".join((RECORDS.parent.parent / "README.md").read_text().split())
    rows = json.loads((RECORDS / "leaderboard.json").read_text())["clusters"]["very-8"]
    losses = {row["name"]: np.array(row["losses"]) for row in rows}
    both = [name for name in losses if f"{name} + DyLU" in losses and not name.startswith(("sync", "nesterov,"))]
    harm = {name: interval(relative_gap(losses[f"{name} + DyLU"], losses[name])) for name in both}
    assert len(both) == 7 and {name for name in both if harm[name].low > 0} == {"nesterov", "sgd", "mla", "heloco"}
    assert "with eight workers DyLU harms four of the seven there" in text
