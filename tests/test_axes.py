"""Axes: what a file and a command line expand to."""

import math
import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toybench.axes import Axes, Range, axes_of_file, axes_of_words, differences, drawn, log_spaced, make_range, varied
from toybench.config import ConfigError
from toybench.loading import dump_run, overlay
from toybench.presets import load_preset

BASE = load_preset("fast")


def of_file(text):
    return Axes(axes_of_file(tomllib.loads(text).get("sweep", {})), []).runs(BASE)


def of_words(grids=(), zips=(), draws=(), samples=None, *, sobol=False, seed=0):
    return Axes([], axes_of_words(grids, zips, draws, samples, sobol=sobol, seed=seed)).runs(BASE)


def at(*keys):
    """What runs have at some dotted keys, a tuple a run."""

    def value(run, key):
        section, _, name = key.partition(".")
        return dump_run(run)[section].get(name)

    return lambda runs: [tuple(value(run, key) for key in keys) for run in runs]


RATES = at("outer.lr")


# Products, zips, cases


def test_axes_are_multiplied_the_last_fastest():
    runs = of_words(["outer.lr=0.1,0.2", "cluster.grace=0,1,2"])
    assert at("outer.lr", "cluster.grace")(runs) == [(a, b) for a in (0.1, 0.2) for b in (0, 1, 2)]


def test_zipped_keys_move_together():
    runs = of_words(["cluster.grace=0,1"], [["outer.lr=0.1,0.2", "outer.momentum=0.5,0.6"]])
    expected = [(g, *pair) for g in (0, 1) for pair in ((0.1, 0.5), (0.2, 0.6))]
    assert at("cluster.grace", "outer.lr", "outer.momentum")(runs) == expected


def test_cases_are_points_each_with_keys_of_its_own():
    text = """
    [[sweep.cases]]
    outer.method = "sgd"
    outer.lr = 0.5
    [[sweep.cases]]
    outer.method = "delayed_nesterov"
    "outer.period" = 8
    [sweep.grid]
    cluster.grace = [0, 1]
    """
    runs = of_file(text)
    assert at("cluster.grace", "outer.method", "outer.period")(runs) == [
        (g, *case) for g in (0, 1) for case in (("sgd", None), ("delayed_nesterov", 8))
    ]


def test_no_axes_are_one_run():
    assert of_file("") == of_words() == [BASE]
    assert Axes([], []).count == 1


def test_a_configuration_that_comes_twice_is_kept_once():
    assert RATES(of_words(["outer.lr=0.1,0.2,0.1,1e-1"])) == [(0.1,), (0.2,)]
    assert len(of_words(["outer.lr=0.1,0.2", "task.points=1024,1024"])) == 2


@pytest.mark.parametrize("swapped", [False, True])
def test_a_method_and_its_settings_may_be_on_different_axes_in_any_order(swapped):
    grids = ["outer.lr=0.1,0.2", "outer.method=sgd,nesterov"]
    runs = of_words(grids[::-1] if swapped else grids)
    assert set(at("outer.method", "outer.lr")(runs)) == {(m, r) for m in ("sgd", "nesterov") for r in (0.1, 0.2)}


def test_an_axis_of_the_file_stands_whatever_method_a_flag_chooses():
    axes = Axes(
        axes_of_file({"grid": {"outer": {"lr": [0.1, 0.2]}}}),
        axes_of_words(["outer.method=sgd,nesterov"], [], [], None, sobol=False, seed=0),
    )
    runs = axes.runs(BASE)
    assert at("outer.lr", "outer.method")(runs) == [(r, m) for r in (0.1, 0.2) for m in ("sgd", "nesterov")]
    assert axes.count == 4


# Ranges

ENDS = st.floats(1e-30, 1e30)


@given(a=ENDS, b=ENDS, points=st.integers(2, 40), log=st.booleans())
def test_a_range_goes_from_end_to_end_and_never_beyond(a, b, points, log):
    low, high = sorted((a, b))
    if low == high:
        return
    numbers = make_range("k", low, high, log).at(np.linspace(0, 1, points))
    assert numbers[0] == low and numbers[-1] == high and len(numbers) == points
    assert numbers == sorted(numbers)


@given(shares=st.lists(st.floats(0, 1), min_size=1), log=st.booleans())
def test_a_draw_stays_within_its_range(shares, log):
    low, high = 0.1234567891, 0.1234569999  # closer than the digits that are kept
    assert all(low <= number <= high for number in Range(low, high, log).at(np.array(shares)))


def test_spacing():
    assert RATES(of_words(["outer.lr=log:0.01:1:3"])) == [(0.01,), (0.1,), (1.0,)]
    assert RATES(of_words(["outer.lr=linear:0:1:5"])) == [(0.0,), (0.25,), (0.5,), (0.75,), (1.0,)]
    numbers = make_range("k", 1e-300, 1e300, True).at(np.linspace(0, 1, 5))
    np.testing.assert_allclose(np.diff(np.log(numbers)), math.log(1e300) / 2, rtol=1e-5)


# A file and flags say the same

SAME = [
    ("[sweep.grid]\nouter.lr = [0.1, 0.2]\ncluster.grace = [0, 1]", (["outer.lr=0.1,0.2", "cluster.grace=0,1"],)),
    ('[sweep.grid]\n"outer.lr" = { log = [0.01, 1], points = 7 }', (["outer.lr=log:0.01:1:7"],)),
    (
        "[sweep.grid]\nouter.lr = { linear = [0.12345678, 0.9876543], points = 7 }",
        (["outer.lr=linear:0.12345678:0.9876543:7"],),
    ),
    ("[sweep.grid]\ncluster.local_steps = { linear = [2, 10], points = 5 }", (["cluster.local-steps=linear:2:10:5"],)),
    ("[sweep.grid]\ncluster.barrier = [true, false]", (["cluster.barrier=true,false"],)),
    ("[sweep.grid]\ncluster.sec_per_step = [[1, 1], [1, 2, 4]]", (["cluster.sec-per-step=1 1,1 2 4"],)),
    ('[sweep.grid]\nouter.method = ["sgd", "adam"]', (["outer.method=sgd,adam"],)),
    (
        "[[sweep.zip]]\nouter.lr = [0.1, 0.2]\nouter.momentum = { linear = [0, 0.5], points = 2 }",
        ([], [["outer.lr=0.1,0.2", "outer.momentum=linear:0:0.5:2"]]),
    ),
    (
        "[sweep.draw]\nsamples = 20\nouter.lr = { log = [0.01, 1] }\ncluster.local_steps = [2, 3, 4]",
        ([], [], ["outer.lr=log:0.01:1", "cluster.local_steps=2,3,4"], 20),
    ),
]


@pytest.mark.parametrize("text, words", SAME)
def test_a_file_and_flags_give_the_same_runs(text, words):
    runs = of_file(text)
    assert runs == of_words(*words) and len(runs) > 1


def test_a_file_and_flags_draw_the_same_sobol_points():
    text = (
        "[sweep.draw]\nsamples = 6\nsobol = true\nseed = 3\nouter.lr = { log = [0.01, 1] }\nouter.momentum = [0, 0.5]"
    )
    words = ["outer.lr=log:0.01:1", "outer.momentum=0,0.5"]
    assert of_file(text) == of_words(draws=words, samples=6, sobol=True, seed=3)


# Draws


@pytest.mark.parametrize("sobol", [False, True])
def test_draws_are_settled_by_their_seed_and_stay_in_range(sobol):
    columns = {"outer.lr": Range(0.01, 1, True), "cluster.grace": Range(0, 2, False), "outer.momentum": [0.1, 0.5, 0.9]}
    first, again, other = (drawn(columns, 50, sobol=sobol, seed=seed) for seed in (0, 0, 1))
    assert first == again != other and len(first) == 50
    for point in first:
        assert 0.01 <= point["outer.lr"] <= 1 and 0 <= point["cluster.grace"] <= 2
    assert {point["outer.momentum"] for point in first} == {0.1, 0.5, 0.9}
    assert len({point["outer.lr"] for point in first}) == 50


@pytest.mark.parametrize("samples", [1, 2, 64])
def test_sobol_points_are_spread_evenly(samples):
    points = drawn({"a.a": Range(0, 1, False), "a.b": Range(0, 1, False)}, samples, sobol=True, seed=4)
    for key in ("a.a", "a.b"):
        cells = np.floor(np.array([point[key] for point in points]) * samples)
        assert sorted(np.minimum(cells, samples - 1)) == list(range(samples))


def test_fewer_samples_of_a_seed_are_the_first_of_more():
    for sobol in (False, True):
        few, many = (drawn({"a.a": Range(0, 1, False)}, n, sobol=sobol, seed=0) for n in (5, 8))
        assert few == many[:5]


# What cannot be


@pytest.mark.parametrize(
    "text, part",
    [
        ("sweep = 3", "expected tables grid, zip, cases, draw, got 3"),
        ("[sweep]\nouter.lr = [1]", "got outer"),
        ("[sweep]\ngrid = 3", "sweep.grid: expected a table"),
        ("[sweep.grid]\nouter.lr = []", "outer.lr: expected a list of values"),
        ("[sweep.grid]\nouter.lr = 0.1", "outer.lr: expected a list of values"),
        ("[sweep.grid]\nlr = [1]", "lr: unknown key"),
        ("[sweep.grid]\nouter.lrr = [1]", "outer.lrr"),
        ('[sweep.grid]\nouter.lr = ["0.1"]', "outer.lr: expected a number, got '0.1'"),
        ("[sweep.grid]\nouter.lr = [-1]", "outer.lr: must be >= 0"),
        ("[sweep.grid]\nouter = 3", "outer: expected a list"),
        ("[sweep.grid]\ncluster.local_steps = { linear = [1, 2], points = 4 }", "whole number"),
        ("[sweep.grid]\nouter.lr = { log = [0.1, 1] }", "points of a range"),
        ("[sweep.grid]\nouter.lr = { log = [0.1, 1], points = 2.5 }", "points of a range"),
        ("[sweep.grid]\nouter.lr = { log = [0.1, 1], points = true }", "points of a range"),
        ("[sweep.grid]\nouter.lr = { log = [0.1, 1], points = 1 }", "from 2 to 100000"),
        ("[sweep.grid]\nouter.lr = { log = [0.1, 1], linear = [0, 1], points = 3 }", "expected a list, or"),
        ("[sweep.grid]\nouter.lr = { log = [0.1, 1], pints = 3 }", "expected a list, or"),
        ("[sweep.grid]\nouter.lr = { log = [0.1], points = 3 }", "[LOW, HIGH]"),
        ("[sweep.grid]\nouter.lr = { log = 3, points = 3 }", "[LOW, HIGH]"),
        ("[sweep.grid]\nouter.lr = { log = [0, 1], points = 3 }", "0 < LOW < HIGH"),
        ("[sweep.grid]\nouter.lr = { linear = [1, 1], points = 3 }", "LOW < HIGH"),
        ("[sweep.grid]\nouter.lr = { linear = [0, inf], points = 3 }", "LOW < HIGH"),
        ("[sweep.grid]\nouter.lr = { linear = ['a', 'b'], points = 3 }", "two numbers"),
        ("[sweep.zip]\nouter.lr = [1]", "sweep.zip: expected a list of tables"),
        ("[sweep]\nzip = []", "sweep.zip: expected a list of tables"),
        ("[[sweep.zip]]\n", "zip: expected as many values of each key, got no keys"),
        ("[[sweep.zip]]\nouter.lr = [1]\nouter.momentum = [0, 0.5]", "outer.lr 1, outer.momentum 2"),
        ("[sweep]\ncases = [3]", "sweep.cases: expected a table"),
        ("[sweep]\ndraw = 3", "sweep.draw: expected a table"),
        ("[sweep.draw]\nsamples = 3", "draw: names no key"),
        ("[sweep.draw]\nouter.lr = { log = [0.1, 1] }", "samples: must be a whole number"),
        ("[sweep.draw]\nsamples = true\nouter.lr = [1]", "samples: must be a whole number"),
        ("[sweep.draw]\nsamples = 4\nseed = -1\nouter.lr = [1]", "seed"),
        ("[sweep.draw]\nsamples = 4\nseed = 'a'\nouter.lr = [1]", "seed"),
        ("[sweep.draw]\nsamples = 4\nsobol = 'yes'\nouter.lr = [1]", "sobol: must be true or false"),
        ("[sweep.draw]\nsamples = 4\nouter.lr = 3", "outer.lr: expected a list"),
        ("[sweep.grid]\nouter.lr = [1]\n[[sweep.cases]]\ncluster.grace = 1\n[[sweep.cases]]\nouter.lr = 2", "two axes"),
    ],
)
def test_a_file_that_cannot_be_is_one_line(text, part):
    with pytest.raises(ConfigError) as error:
        of_file(text)
    assert part in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "words, part",
    [
        (dict(grids=["outer.lr"]), "grid: expected SECTION.FIELD=VALUES"),
        (dict(grids=["lr=1"]), "grid: expected SECTION.FIELD=VALUES"),
        (dict(grids=["outer.lr="]), "outer.lr: expected values"),
        (dict(grids=["outer.lr=1,,2"]), "outer.lr: expected values"),
        (dict(grids=["outer.lr=log:1:2"]), "log:LOW:HIGH:N"),
        (dict(grids=["outer.lr=log:1:2:x"]), "points of a range, got 'x'"),
        (dict(grids=["outer.lr=log:1:2:100001"]), "points of a range"),
        (dict(grids=["outer.lr=log:2:1:3"]), "0 < LOW < HIGH"),
        (dict(grids=["outer.lr=linear:1:one:3"]), "two numbers"),
        (dict(grids=["outer.lr=nan"]), "outer.lr: must be finite"),
        (dict(grids=["outer.lrr=1"]), "did you mean 'lr'"),
        (dict(grids=["outre.lr=1"]), "unknown key; sections"),
        (dict(grids=["outer.lr=1 2"]), "outer.lr: expected a number"),
        (dict(grids=["outer.lr=1", "outer.lr=2"]), "outer.lr: is on two axes"),
        (dict(grids=["cluster.local-steps=1", "cluster.local_steps=2"]), "cluster.local_steps: is on two axes"),
        (dict(grids=["outer.lr=1"], zips=[["outer.lr=2"]]), "outer.lr: is on two axes"),
        (dict(zips=[["outer.lr=1", "outer.lr=2"]]), "zip: names a key twice"),
        (dict(zips=[["outer.lr=1,2", "outer.momentum=0"]]), "outer.lr 2, outer.momentum 1"),
        (dict(draws=["outer.lr=log:1:2"]), "--draw and --samples go together"),
        (dict(samples=3), "--draw and --samples go together"),
        (dict(draws=["outer.lr=log:1:2:3"], samples=3), "log:LOW:HIGH"),
        (dict(draws=["outer.lr=log:1:2"], samples=0), "samples: must be"),
        (dict(draws=["outer.lr=log:1:2"], samples=3, seed=-1), "seed"),
        (dict(draws=["outer.lr=1", "outer.lr=2"], samples=3), "draw: names a key twice"),
        (dict(draws=["cluster.local_steps=linear:1:9"], samples=3), "whole number"),
    ],
)
def test_words_that_cannot_be_are_one_line(words, part):
    with pytest.raises(ConfigError) as error:
        of_words(**words)
    assert part in str(error.value) and "\n" not in str(error.value)


# Differences


def test_differences_are_what_tells_runs_apart():
    runs = of_words(["outer.method=sgd,nesterov", "outer.lr=0.1,0.2"])
    found = differences(runs)
    assert len({tuple(sorted(d.items())) for d in found}) == 4
    assert {key for d in found for key in d} == {"outer.method", "outer.lr", "outer.momentum"}
    assert "outer.momentum" not in found[0]  # sgd has none
    assert differences([BASE]) == [{}] and differences([]) == []


@given(st.lists(st.sampled_from(["outer.lr", "outer.momentum", "cluster.grace", "inner.lr"]), unique=True))
def test_what_varies_is_what_was_changed(keys):
    assert set(varied([dump_run(BASE), dump_run(overlay(BASE, dict.fromkeys(keys, 0.123)))])) == set(keys)


@pytest.mark.parametrize(
    "values, log",
    [
        ([0.01, 0.1, 1], True),
        ([1, 0.1, 0.1, 0.01], True),
        ([0.1, 0.2, 0.3, 0.4], False),
        ([30, 60, 120], True),
        ([0, 0.1, 1, 10], False),
        ([-1, 1, 10], False),
        ([0.1, 0.8], True),
        ([0.1, 0.7], False),
        ([3], False),
        ([], False),
    ],
)
def test_numbers_that_stand_evenly_in_their_logarithms(values, log):
    assert log_spaced(values) is log
