"""Two contests side by side: Kendall's tau against SciPy's, its interval and null, and the command."""

import json

import numpy as np
import pytest
from scipy import stats

from toybench.cli import main
from toybench.compare import REFERENCE, Side, agreement, compare, kendall, markdown, read_contest, sentence, sides
from toybench.config import ConfigError

NAMES = (REFERENCE, *"abcdefghi")


def side(means, seeds=4, noise=0.0, title="one"):
    draw = np.random.default_rng(1)
    losses = np.array(means, float)[:, None] + noise * draw.normal(size=(len(means), seeds))
    return Side(title, "very-4", NAMES[: len(means)], losses)


def at(means):
    """A side of any number of methods."""
    return Side("one", "c", tuple(map(str, range(len(means)))), np.array(means, float)[:, None] + np.zeros(2))


def contest(path, means, cluster="very-4", seeds=3, **more):
    rows = [
        {"name": name, "losses": [mean + 1e-3 * s for s in range(seeds)]} | more for name, mean in zip(NAMES, means)
    ]
    path.write_text(json.dumps({"clusters": {cluster: rows}}))
    return str(path)


@pytest.mark.parametrize("values", (100, 4))
def test_tau_is_scipys_with_and_without_ties(values):
    draw = np.random.default_rng(0)
    for _ in range(20):
        x, y = draw.integers(values, size=(2, 9)).astype(float)
        np.testing.assert_allclose(kendall(x, y), stats.kendalltau(x, y).statistic, rtol=1e-12)


def test_a_weight_is_how_often_a_method_is_there():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2, 7))
    weight = draw.integers(4, size=7)
    often = stats.kendalltau(np.repeat(x, weight), np.repeat(y, weight)).statistic
    np.testing.assert_allclose(kendall(x, y, weight), often, rtol=1e-12)


def test_equal_orders_agree_and_opposite_ones_disagree():
    means = np.linspace(1, 2, 10)
    same, opposite = agreement(side(means), side(means**2)), agreement(side(means), side(-means + 5))
    assert (same.tau, same.low, same.high) == (1, 1, 1) and same.behind == 0
    assert opposite.tau == -1 and opposite.behind == pytest.approx(100 * (4 / 3 - 1))
    assert same.chance == opposite.chance < 0.001 and same.within == (1, 1)


def test_chance_is_the_exact_null_of_an_order():
    draw = np.random.default_rng(3)
    x = np.arange(8.0)
    for y in draw.normal(size=(3, 8)):
        exact = stats.kendalltau(x, y, method="exact").pvalue
        assert agreement(side(x + 9), side(y + 9)).chance == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize("count", (6, 10, 17))
def test_what_is_needed_for_5_per_cent_is_the_least_that_fewer_reach(count):
    """The null comes in steps, so its 95 % quantile may be reached by more than 5 %."""
    means = np.arange(1.0, count + 1)
    needed, pairs = agreement(at(means), at(means)).needed, count * (count - 1) / 2
    draw = np.random.default_rng(9)
    null = np.abs([kendall(means, draw.permutation(means)) for _ in range(20_000)])
    assert (null >= needed - 1e-9).mean() < 0.056  # as drawn anew
    assert (null >= needed - 2 / pairs - 1e-9).mean() > 0.044


def test_noise_between_seeds_widens_the_interval_and_shows_within():
    means = np.linspace(1, 2, 10)
    quiet, noisy = (agreement(side(means), side(means, noise=noise)) for noise in (0.001, 2.0))
    assert noisy.high - noisy.low > 0.3 > quiet.high - quiet.low
    assert quiet.within[1] > 0.9 > 0.6 > noisy.within[1]


def test_a_comparison_keeps_what_both_have_and_leaves_the_control_out(tmp_path):
    rows = [{"name": name, "losses": [1.0 + i, 2.0 + i]} for i, name in enumerate((*NAMES, "control"))]
    first = sides({"clusters": {"c": rows}}, "one")["c"]
    assert "control" not in first.names
    second = Side("two", "c", ("i", "b", REFERENCE, "elsewhere"), np.array([[1.0, 1.1], [2, 2.1], [3, 3.1], [4, 4]]))
    found = compare(first, second)
    assert {row["name"] for row in found["rows"]} == {"i", "b", REFERENCE}
    [reference] = [row for row in found["rows"] if row["name"] == REFERENCE]
    assert reference["gap"][0] == (0, 0, 0) == reference["gap"][1]
    [best] = [row for row in found["rows"] if row["name"] == "i"]
    assert best["rank"][1].mean == 1 and best["gap"][1].mean == pytest.approx(100 * (np.mean([1 / 3, 1.1 / 3.1]) - 1))
    with pytest.raises(ConfigError, match="needs 3 or more"):
        compare(first, second, ["b"])
    with pytest.raises(ConfigError, match="'a' is not in both"):
        compare(first, second, ["a"])


def test_the_sentence_says_what_the_numbers_say():
    means = np.linspace(1, 2, 10)
    upright, upside_down = (compare(side(means, title="toy"), side(m, title="lm")) for m in (means, 5 - means))
    shuffled = compare(side(means), side(means[[5, 1, 9, 3, 0, 7, 2, 8, 4, 6]]))
    assert "on the toy predicts that on the lm" in sentence(upright)
    assert ": better than chance" in sentence(upright)
    assert "the other way round" in sentence(upside_down)
    assert "not clearly better than chance" in sentence(shuffled)


def test_the_command_prints_writes_and_is_json(tmp_path, capsys):
    means = np.linspace(1, 2, 10)
    first, second = contest(tmp_path / "a.json", means), contest(tmp_path / "b.json", means[::-1] + 3, seeds=2)
    assert main(["compare", first, second, "--json", "--out", str(tmp_path / "out")]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert found["agreement"]["tau"] == -1 and len(found["rows"]) == 10 and found["seeds"] == [3, 2]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"compare.json", "compare.md", "compare-very-4.png"}
    assert main(["compare", first, second, "--methods", "a", "b", "--titles", "here", "there"]) == 0
    assert "here" in capsys.readouterr().out


def test_clusters_of_other_names_are_paired(tmp_path, capsys):
    means = np.linspace(1, 2, 5)
    first = contest(tmp_path / "a.json", means)
    second = contest(tmp_path / "b.json", means, cluster="run")
    assert main(["compare", first, second, "--clusters", "very-4:run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["clusters"] == ["very-4", "run"]


@pytest.mark.parametrize(
    ("document", "words", "said"),
    [
        ("[1]", [], "is no leaderboard"),
        ("{", [], "not JSON"),
        ('{"clusters": {"c": [{"name": "a"}]}}', [], "lacks the losses of single seeds"),
        ('{"clusters": {}}', [], "has no methods"),
        ('{"clusters": {"c": [{"name": "a", "losses": [1, null]}]}}', [], "positive numbers"),
        ('{"clusters": {"c": [{"name": "a", "losses": [1, NaN]}]}}', [], "positive numbers"),
        ('{"clusters": {"c": [{"name": "a", "losses": 3}]}}', [], "positive numbers"),
        ('{"clusters": {"c": [{"name": "a", "losses": [1, true]}]}}', [], "positive numbers"),
        ('{"clusters": {"c": [{"name": "a", "losses": [1]}]}}', [], "two or more"),
        (
            '{"clusters": {"c": [{"name": "a", "losses": [1, 2]}, {"name": "b", "losses": [1, 2, 3]}]}}',
            [],
            "same seeds",
        ),
        (
            '{"clusters": {"c": [{"name": "a", "losses": [1, 2]}, {"name": "a", "losses": [1, 2]}]}}',
            [],
            "more than once",
        ),
        ('{"clusters": {"../c": [{"name": "a", "losses": [1, 2]}]}}', [], "odd name"),
        ('{"clusters": {"c": [{"name": ["a"], "losses": [1, 2]}]}}', [], "is no leaderboard"),
        ('{"clusters": [1]}', [], "is no leaderboard"),
        (None, ["--clusters", "very-5"], "did you mean 'very-4'"),
        (None, ["--methods", "zz"], "'zz' is not in both"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, document, words, said):
    good = contest(tmp_path / "good.json", np.linspace(1, 2, 5))
    if document is not None:
        (tmp_path / "bad.json").write_text(document)
    with pytest.raises(SystemExit) as end:
        main(["compare", good, str(tmp_path / "bad.json") if document is not None else good, *words])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_contest_without_the_reference_has_no_gaps_and_one_of_ties_no_order(tmp_path):
    losses = np.ones((3, 2))
    alike = Side("one", "c", (REFERENCE, "a", "b"), losses)
    with pytest.raises(ConfigError, match="no order"):
        compare(alike, alike)
    with pytest.raises(ConfigError, match=REFERENCE):
        compare(Side("one", "c", ("a", "b", "c"), losses), Side("two", "c", ("a", "b", "c"), losses))


def test_what_the_leaderboard_writes_can_be_read(tmp_path):
    path = contest(tmp_path / "a.json", np.linspace(1, 2, 5))
    assert sides(read_contest(path), "toy")["very-4"].losses.shape == (5, 3)


def test_ranks_of_few_seeds_have_no_interval(tmp_path, capsys):
    means = np.linspace(1, 2, 5)
    first, second = contest(tmp_path / "a.json", means, seeds=5), contest(tmp_path / "b.json", means, seeds=2)
    main(["compare", first, second, "--out", str(tmp_path / "out")])
    assert "| 2 [2, 2] | 2 |" in (tmp_path / "out" / "compare.md").read_text()


@pytest.mark.parametrize("name, with_dylu", (("c4_small", False), ("c4_visits", True)))
def test_the_run_files_say_where_toy_and_language_model_have_one_timeline(name, with_dylu):
    """Without DyLU the arrivals are the same; with it visits of 8 steps are divided otherwise than those of 60."""
    pytest.importorskip("flax")
    from dataclasses import replace
    from pathlib import Path

    from lm.promote import read_run
    from toybench.presets import load_preset
    from toybench.timeline import simulate

    run, _ = read_run(str(Path(__file__).parent.parent / "experiments" / f"{name}.toml"))
    toy, same = load_preset(), {}
    for dylu in (False, True):
        one, other = (simulate(replace(r.cluster, dynamic_steps=dylu), r.budget, 200) for r in (toy, run))
        names = ("worker", "shard", "pulled_at", "staleness")
        alike = len(one.time) == len(other.time)
        same[dylu] = alike and all(np.array_equal(getattr(one, n), getattr(other, n)) for n in names)
    assert same == {False: True, True: with_dylu}


def test_what_only_one_side_searched_is_told():
    losses = np.array([[1.0, 1.1], [2, 2.1], [3, 3.1]])
    names = (REFERENCE, "fedbuff", "mla")
    searched = {"fedbuff": {"outer.lr": 0.1, "outer.buffer_size": 4}, "mla": {"outer.lr": 0.1}, "gone": {"outer.x": 1}}
    toy = Side("toy", "c", names, losses, searched)
    model = Side("model", "c", names, losses, {"fedbuff": {"outer.lr": 3.2}, "mla": {"outer.lr": 0.2}})
    only = "On the toy more than the outer rate was searched for fedbuff (buffer_size 4); "
    told = compare(toy, model)["searched_apart"]
    assert told == only + "not so on the model."
    untold = Side("model", "c", names, losses)
    assert compare(toy, untold)["searched_apart"] == "" == compare(untold, toy)["searched_apart"]
    assert compare(model, toy)["searched_apart"] == told
    assert compare(toy, toy)["searched_apart"] == ""
    assert told in markdown([compare(toy, model)]) and "searched for" not in markdown([compare(toy, toy)])
    assert compare(toy, model, ["mla", REFERENCE, "fedbuff"])["searched_apart"] == told
