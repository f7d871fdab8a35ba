"""The draw for many shards against the plain one: the same probabilities, and the same evenness in the long run."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toybench.shards import FewShards, ManyShards, shard_deficit


class Grid:
    """A generator whose numbers run through [0, 1) evenly."""

    def __init__(self, points):
        self.points, self.next = points, 0

    def random(self):
        self.next += 1
        return ((self.next - 1) % self.points + 0.5) / self.points


def twins(given, least=False):
    """The plain draw and the fast one in the same state."""
    few, many = FewShards(len(given), least), ManyShards(len(given), least)
    state = {"consumed": [*given], "visits": [*given]}
    few.restore(state)
    behind = np.array(given) * len(given) <= sum(given)
    many.restore(state | {"lagging": [*np.flatnonzero(behind)], "waiting": [*np.flatnonzero(~behind)]})
    return few, many


def shares(many, points=20_000):
    """How often each shard is drawn, of all draws that one pass through an even grid accepts."""
    rng, count = Grid(points * len(many.given)), np.zeros(len(many.given))
    while rng.next < rng.points:
        count[many.draw(rng)] += 1
    return count / count.sum()


@pytest.mark.parametrize(
    "given", [[0, 0, 0], [1, 0, 0], [3, 1, 0, 8], [5, 5, 5], [60, 60, 120, 0], [10, 20, 30, 40, 50], [7], [1, 2]]
)
def test_probabilities_are_those_of_eq_2(given):
    exact = shard_deficit(np.ones(len(given)), np.array(given))
    np.testing.assert_allclose(shares(twins(given)[1]), exact, atol=2e-4)


@pytest.mark.parametrize("given", [[0, 0, 0], [1, 0, 1], [4, 3, 4, 3, 3]])
def test_the_least_visited_are_drawn_alike(given):
    least = np.array(given) == min(given)
    np.testing.assert_allclose(shares(twins(given, least=True)[1]), least / least.sum(), atol=2e-4)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(1, 12), st.booleans())
def test_probabilities_stay_those_of_eq_2_along_a_run(steps, count, least):
    """Who lags and by how much is known in whole numbers at every moment, and is what the plain draw sees."""
    few, many, rng = FewShards(count, least), ManyShards(count, least), np.random.default_rng(0)
    for own in steps:
        lag = np.maximum(many.total - count * np.array(many.given), 0)
        given = few.visits if least else few.consumed
        exact = shard_deficit(np.ones(count), given)
        np.testing.assert_allclose(lag / lag.sum() if lag.sum() else np.full(count, 1 / count), exact, atol=1e-9)
        assert {*np.flatnonzero(lag)} <= {*many.lagging} and many.least == min(many.given)
        assert sorted([*many.lagging, *(s for level in many.waiting.values() for s in level)]) == [*range(count)]
        shard = many.draw(rng)
        assert exact[shard] > 0
        assert many.give(shard, own) == few.give(shard, own)


def test_a_long_run_has_the_plain_draws_distribution():
    """Chi-square of how often each of the lags is drawn, over runs of both: 8 shards, uneven steps."""
    counts = np.zeros((2, 8))
    for seed in range(400):
        for kind, count in zip((FewShards, ManyShards), counts):
            shards, rng = kind(8, least=False), np.random.default_rng([seed, kind is ManyShards])
            for steps in (60, 46, 23, 10, 60, 46, 23, 10, 60, 46):
                shard = shards.draw(rng)
                shards.give(shard, steps)
            count[sorted(range(8), key=lambda s: shards.consumed[s]).index(shard)] += 1
    both = counts[:, counts.sum(0) > 10]
    expected = both.sum(0) / 2
    assert ((both - expected) ** 2 / expected).sum() < 24.3  # 99.9 % of chi-square with 7 degrees of freedom


class Counting:
    """A generator that counts what it is asked for."""

    def __init__(self):
        self.rng, self.asked = np.random.default_rng(0), 0

    def random(self):
        self.asked += 1
        return self.rng.random()


@pytest.mark.parametrize("least", [False, True])
def test_a_draw_costs_the_same_for_any_number_of_shards(least):
    """Counted, not timed: random numbers, each of which costs the same, over some draws of every shard."""
    for count in (1_000, 30_000):
        shards, rng = ManyShards(count, least), Counting()
        for i in range(5 * count):
            shards.give(shards.draw(rng), 1 + i * 7919 % 60)
        assert rng.asked / (5 * count) < (1.001 if least else 6)


@pytest.mark.parametrize("kind", [FewShards, ManyShards])
@pytest.mark.parametrize("least", [False, True])
def test_a_state_goes_on_with_the_same_draws(kind, least):
    shards, rng = kind(20, least), np.random.default_rng(3)
    for i in range(77):
        shards.give(shards.draw(rng), 1 + i % 9)
    again, same = kind(20, least), np.random.default_rng(0)
    again.restore(json.loads(json.dumps(shards.state())))
    same.bit_generator.state = rng.bit_generator.state
    for i in range(200):
        first, second = shards.draw(rng), again.draw(same)
        assert (first, shards.give(first, 1 + i % 5)) == (second, again.give(second, 1 + i % 5))
