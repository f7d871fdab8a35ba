"""Tuning, clusters and ranks, on losses that are formulas of the settings."""

import numpy as np
import pytest

from tests.formulas import BASE, SEEDS, formula, make, valley
from toybench.clusters import CLUSTERS, LEVELS, VERY, sec_per_step
from toybench.config import ConfigError
from toybench.leaderboard import (
    Contestant,
    enter,
    planned_runs,
)
from toybench.loading import overlay
from toybench.presets import load_preset
from toybench.statistics import rank_intervals
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


# Where a run is dear


@pytest.mark.parametrize("best", (0.01, 0.2, 0.35, 3.0))
def test_a_climb_ends_between_worse_neighbours_after_few_runs(best):
    asked = []
    tuning = climb(make, 0.2, [1000], formula(valley(best), asked))
    assert abs(np.log2(tuning.best / best)) <= 0.26 and not tuning.on_edge
    assert sum(asked) == len(tuning.rates) <= 5 + abs(np.log2(best / 0.2)) + 1


def test_a_climb_keeps_other_settings_at_every_rate_and_in_what_it_chose():
    made = []

    def noted(tuned):
        made.append(tuned)
        return make({"outer.lr": tuned["outer.lr"]})

    tuning = climb(noted, 0.2, [1000], formula(valley(0.2), []), settings={"outer.exponent": 2.0})
    assert {one["outer.exponent"] for one in made} == {2.0} and {one["outer.lr"] for one in made} == {*tuning.rates}
    assert tuning.changes == {"outer.lr": tuning.best, "outer.exponent": 2.0}


def test_a_climb_that_finds_no_floor_says_so():
    tuning = climb(make, 0.2, [1000, 1001], formula(lambda run, seed: 1 / (1 + run.outer.lr)))
    assert tuning.on_edge and len(tuning.rates) == 5 + CLIMBS and tuning.best == tuning.rates[-1]
