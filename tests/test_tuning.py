"""Tuning and the leaderboard, on losses that are formulas of the settings: only the last test trains."""

import json
from functools import partial

import numpy as np
import pytest

from toybench.cli import main
from toybench.clusters import CLUSTERS, LEVELS, VERY, sec_per_step
from toybench.config import ConfigError
from toybench.curves import Curves
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
from toybench.presets import load_preset
from toybench.statistics import rank_intervals
from toybench.study import ASYNC, SYNC, vary
from toybench.tuning import (
    CLIMBS,
    FINALISTS,
    MORE_OCTAVES,
    OCTAVES,
    SCOUTS,
    STEPS,
    climb,
    dense,
    run_off,
    scout,
    tune,
    tune_each,
)

BASE = load_preset("fast")
SEEDS = Seeds(range(1000, 1003), range(1010, 1014), range(8))


def make(tuned):
    return overlay(BASE, dict(tuned))


def formula(loss, asked=None):
    """A `measure` whose final loss is a formula of a run and a seed; it notes how many runs were asked for."""

    def measure(runs, seeds):
        if asked is not None:
            asked.append(len(runs) * len(seeds))
        found = []
        for run in runs:
            final = np.array([loss(run, seed) for seed in seeds])
            curve = np.stack([np.full(len(seeds), 2.0), final], axis=1)
            steps, time = np.tile([0, 100], (len(seeds), 1)), np.tile([0.0, 10.0], (len(seeds), 1))
            found.append(Curves(run, tuple(seeds), steps, time, {"loss": curve}))
        return found

    return measure


def valley(best, depth=1.0):
    return lambda run, seed: depth + 0.01 * np.log2(run.outer.lr / best) ** 2 + 1e-4 * (seed % 7)


# Rates


def test_a_dense_range_has_so_many_rates_to_the_octave():
    rates = dense(0.03)
    assert len(rates) == OCTAVES * STEPS + 1 and rates[0] == 0.03
    np.testing.assert_allclose(np.diff(np.log2(rates)), 1 / STEPS, atol=0.02)


@pytest.mark.parametrize("best", [1e-5, 2e-4, 0.004, 0.07, 0.9, 2.9, 20.0])
def test_a_scout_finds_the_octaves_of_the_best_rate(best):
    rates = scout(make, [0, 1], formula(valley(best)))
    assert rates[0] < best < rates[-1]


def test_a_scout_gives_up_somewhere():
    asked = []
    scout(make, [0, 1], formula(lambda run, seed: run.outer.lr, asked))
    assert sum(asked) == 2 * (len(SCOUTS) + 2 * MORE_OCTAVES)


@pytest.mark.parametrize("best", [0.011, 0.1, 0.9])
def test_tuning_finds_the_best_rate_beyond_the_range_too(best):
    tuning = tune(make, dense(0.03), [0, 1, 2], formula(valley(best)))
    assert abs(np.log2(tuning.best / best)) <= 0.5 / STEPS + 0.01
    assert tuning.rates == tuple(sorted(tuning.rates)) and not tuning.on_edge
    assert len(tuning.losses) == len(tuning.rates) and {len(row) for row in tuning.losses} == {3}


def test_a_second_valley_is_not_stepped_over():
    """Deep and narrow, between two rates an octave apart."""

    def loss(run, seed):
        away = np.log2(run.outer.lr / 0.11)
        return 1 + 0.01 * np.log2(run.outer.lr / 0.06) ** 2 - (0.5 if abs(away) < 0.1 else 0.0)

    assert abs(np.log2(tune(make, dense(0.03), [0], formula(loss)).best / 0.11)) < 0.1


def test_other_settings_are_tuned_with_the_rate():
    def loss(run, seed):
        return valley(0.1 if run.outer.momentum == 0.5 else 0.2, 1.0 - 0.1 * (run.outer.momentum == 0.5))(run, seed)

    also = ({"outer.momentum": 0.9}, {"outer.momentum": 0.5})
    each = tune_each(make, dense(0.05), [0], formula(loss), also)
    assert [t.settings for t in each] == list(also)
    best = tune(make, dense(0.05), [0], formula(loss), also)
    assert best.changes["outer.momentum"] == 0.5 and abs(best.changes["outer.lr"] - 0.1) < 0.005


def test_tuning_never_asks_for_more_runs_than_it_says():
    for best in (1e-6, 0.1, 1e6):
        asked = []
        who = Contestant({}, ({}, {"outer.momentum": 0.5}))
        enter(BASE, "one", who, SEEDS, formula(valley(best), asked))
        assert sum(asked) <= planned_runs(who, SEEDS)


def test_a_runoff_mends_the_choice_of_a_few_lucky_seeds():
    """On the tuning seeds a rate far off looks best; over more seeds it does not."""

    def loss(run, seed):
        lucky = 0.3 if seed < 1004 and 0.05 < run.outer.lr < 0.055 else 0.0
        return valley(0.06)(run, 0) - lucky + 0.2 * (0.05 < run.outer.lr < 0.055)

    measure = formula(loss)
    tunings = tune_each(make, dense(0.03), range(1000, 1004), measure)
    assert 0.05 < tunings[0].best < 0.055
    decided = run_off(make, tunings, range(1004, 1012), measure)
    assert 0.055 < decided.best < 0.065 and len(decided.runoff) == FINALISTS
    expected = measure([make({"outer.lr": decided.best})], range(1000, 1012))[0].final_loss.mean()
    assert decided.loss == pytest.approx(expected)
    assert decided.rates == tunings[0].rates and decided.changes["outer.lr"] == decided.best


# Clusters


def test_the_very_heterogeneous_four_are_the_published_ones():
    assert sec_per_step(4, "very") == list(VERY)


@pytest.mark.parametrize("workers", [1, 2, 4, 8, 16])
def test_levels_keep_the_mean_and_grow_apart(workers):
    spreads = []
    for level in LEVELS:
        seconds = sec_per_step(workers, level)
        assert len(seconds) == workers and seconds == sorted(seconds)
        assert np.mean(seconds) == pytest.approx(np.mean(VERY), rel=1e-3)
        spreads.append(seconds[-1] / seconds[0])
    assert spreads[0] == pytest.approx(1) and (workers == 1 or np.all(np.diff(spreads) > 0))


def test_more_workers_are_spread_as_the_four():
    """The middle of every pair of eight lies where the four lie."""
    four, eight = np.log(sec_per_step(4, "very")), np.log(sec_per_step(8, "very"))
    pairs = (eight[::2] + eight[1::2]) / 2
    np.testing.assert_allclose(pairs - pairs.mean(), four - four.mean(), atol=0.2)


@pytest.mark.parametrize("workers, level", [(4, "extremely"), (0, "very")])
def test_a_cluster_that_cannot_be(workers, level):
    with pytest.raises(ConfigError, match="heterogeneity"):
        sec_per_step(workers, level)


def test_every_cluster_is_one():
    for _, changes in CLUSTERS.values():
        overlay(load_preset("default"), changes)


# Ranks


def test_ranks_of_methods_far_apart():
    losses = np.arange(4)[:, None] + 0.01 * np.random.default_rng(0).normal(size=(4, 10))
    assert [tuple(rank) for rank in rank_intervals(losses[::-1])] == [(r, r, r) for r in (4.0, 3.0, 2.0, 1.0)]


def test_equal_methods_share_their_rank():
    losses = np.random.default_rng(0).normal(size=(1, 10)).repeat(3, axis=0)
    assert [rank.mean for rank in rank_intervals(losses)] == [2.0, 2.0, 2.0]


def test_ranks_are_uncertain_where_seeds_disagree():
    losses = np.random.default_rng(1).normal(size=(2, 6))
    assert [(rank.low, rank.high) for rank in rank_intervals(losses)] == [(1.0, 2.0)] * 2


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


@pytest.mark.parametrize("best", (0.01, 0.2, 0.35, 3.0))
def test_a_climb_ends_between_worse_neighbours_after_few_runs(best):
    asked = []
    tuning = climb(make, 0.2, [1000], formula(valley(best), asked))
    assert abs(np.log2(tuning.best / best)) <= 0.51 and not tuning.on_edge
    assert sum(asked) == len(tuning.rates) <= 3 + abs(np.log2(best / 0.2)) + 1


def test_a_climb_that_finds_no_floor_says_so():
    tuning = climb(make, 0.2, [1000, 1001], formula(lambda run, seed: 1 / (1 + run.outer.lr)))
    assert tuning.on_edge and len(tuning.rates) == 3 + CLIMBS and tuning.best == tuning.rates[-1]


def test_a_contest_may_search_otherwise_and_keeps_the_losses_of_every_seed():
    def search(make, who, seeds, measure):
        return climb(make, 0.2, seeds.tuning, measure)

    who = {"sgd": contestants()["sgd"]}
    rows, _ = hold(BASE, who, SEEDS, formula(valley(0.05)), search=search)
    assert {row["name"] for row in rows} == {REFERENCE, "sgd"}
    for row in rows:
        assert row["settings"]["outer.lr"] == 0.05 and len(row["losses"]) == len(SEEDS.reported)
        assert np.mean(row["losses"]) == row["loss"].mean
