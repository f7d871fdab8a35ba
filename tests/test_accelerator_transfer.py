"""The transfer study: who is judged, what tau says of made-up orders, halves, and the committed record."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.accelerator import orders
from experiments.accelerator.orders import halves, own_board, searched_for, yardsticks
from experiments.accelerator.transfer import plain_study, sentence, study, toy_boards
from experiments.accelerator.transfer_report import markdown
from tests.corpora import refused
from toybench.compare import REFERENCE, Side, kendall, taus
from toybench.curves import Curves
from toybench.presets import load_preset
from toybench.study import ARMS, SEARCHED_FOR, findings

RECORDS = Path(__file__).parent.parent / "experiments" / "records"
OUTSIDE = ("mla", "heloco", "ormo", "sgd + DyLU", "halos", "ringmaster", "fedbuff", "fedasync")
NAMES = (REFERENCE, "nesterov", "sgd", *OUTSIDE)


def side(order, title="one", seeds=4, noise=0.0):
    """Final losses that rise by one per cent a place."""
    draw = np.random.default_rng(7)
    losses = 1 + 0.01 * np.argsort(np.argsort(order))[:, None] + noise * draw.normal(size=(len(NAMES), seeds))
    return Side(title, "very-4", NAMES, losses)


def test_the_own_board_is_found_whatever_a_board_changes_of_its_preset():
    boards = {'default, outer.scale "1/k"/very-4': None, "default/very-4": None, "default/none-4": None}
    assert own_board(boards, "very-4") == 'default, outer.scale "1/k"/very-4'
    assert own_board(boards, "none-4") == "default/none-4"


def test_a_board_with_other_settings_is_not_said_to_be_fixed_beforehand():
    toy, model = side(range(len(NAMES))), side(range(len(NAMES)), "model")
    for board, said in (
        ("default/very-4", "fixed before any language model ran."),
        ("default, inner.reset false/very-4", "with settings changed."),
    ):
        found = study({board: toy}, model)
        text = markdown([found], {"toy": ["a"], "lm": ["b"], "called": ["model"]}, [], [])
        assert f"that of the same cluster, {said}" in text


# Statistics


def test_many_choices_at_once_are_each_kendalls():
    draw = np.random.default_rng(0)
    x, y = draw.integers(4, size=9).astype(float), draw.normal(size=9)
    weights = draw.integers(3, size=(20, 9)).astype(float)
    weights[0] = [1, *[0] * 8]
    found = taus(x, y, weights)
    assert np.isnan(found[0])
    np.testing.assert_allclose(found, [kendall(x, y, weight) for weight in weights])


def test_a_board_is_chosen_on_other_methods_than_it_is_judged_on():
    truth = np.arange(12.0)
    draw = np.random.default_rng(1)
    found = halves({"own": -truth, "good": truth, "bad": draw.permutation(truth)}, "own", truth)
    assert found.judged == 1 and found.fixed == -1 and found.chosen["good"] == 1 and found.chance < 0.01
    # Of boards that know nothing the best is taken on one half; that it looks good there is worth nothing on the other.
    blind = {str(i): draw.permutation(truth) for i in range(20)}
    found = halves(blind, "0", truth)
    assert found.judged < 0.4 and found.chance > 0.01


def test_the_arms_searched_for_are_those_whose_numbers_move_the_findings():
    base = load_preset("fast")
    draw = np.random.default_rng(0)

    def curves(shift=0.0):
        loss = 1 + shift + 0.1 * draw.random((1, 6)).T @ np.ones((1, 3))
        steps = np.tile(np.arange(3), (6, 1))
        return Curves(base, tuple(range(6)), steps, steps.astype(float), {"loss": loss})

    results = {arm: curves() for arm in ARMS}
    told = lambda results: json.dumps([f.numbers for f in findings(results)], default=str)  # noqa: E731
    before = told(results)
    moved = {
        arm: {**results, arm: replace(results[arm], metrics={"loss": results[arm].metrics["loss"] * 1.5})}
        for arm in ARMS
    }
    assert {arm for arm in ARMS if told(moved[arm]) != before} == set(SEARCHED_FOR)


def test_equal_speeds_are_a_cluster_and_no_method():
    assert len(searched_for()) == len(SEARCHED_FOR) - 1
    assert {REFERENCE, "nesterov", "delayed_nesterov + DyLU"} <= set(searched_for())
    assert not set(OUTSIDE) & set(searched_for())


# The study


def test_the_verdict_is_taken_outside_the_findings():
    order = np.arange(len(NAMES))
    reversed_inside = order.copy()
    reversed_inside[1:3] = [50, -50]  # methods of F1-F8, put at both ends
    found = study({"toy/very-4": side(order)}, side(reversed_inside, "two"))
    assert found["verdict"].methods == OUTSIDE and found["verdict"].agreement.tau == 1
    assert found["all"][0].agreement.tau < 1
    assert "better than chance" in sentence(found) and "not clearly" not in sentence(found)
    rows = {row["name"]: row for row in found["rows"]}
    assert REFERENCE not in rows and rows["nesterov"]["searched_for"] and not rows["mla"]["searched_for"]


def test_what_cannot_be_judged_is_refused():
    order = np.arange(len(NAMES))
    one, other = side(order), side(order)
    refused(lambda: study({"toy/none-4": one}, other), "no leaderboard has the cluster 'very-4'")
    refused(lambda: study({"toy/very-4": one}, other.only([REFERENCE, "nesterov", "mla"])), "order needs 3")
    refused(lambda: study({"toy/very-4": one}, other.only(OUTSIDE)), "'sync nesterov'")
    alike = replace(other, losses=np.ones_like(other.losses))
    refused(lambda: study({"toy/very-4": one}, alike), "all end alike")
    path = str(RECORDS / "leaderboard.json")
    refused(lambda: toy_boards([path, path]), "more than one")


def test_methods_with_other_settings_are_laid_over_their_own():
    order = np.arange(len(NAMES))
    toy = replace(side(order), searched={"mla": {"outer.lr": 1, "outer.x": 3}, "halos": {"outer.y": 4}})
    model = replace(side(order, "two"), searched={name: {"outer.lr": 1} for name in NAMES})
    model.losses[NAMES.index("mla")] *= 1.5
    above = replace(side(order).only([REFERENCE, "mla"]), searched={"mla": {"outer.lr": 2, "outer.x": 3}})
    above = replace(above, losses=above.losses * (1 + 1e-6))  # another compilation's rounding
    found = study({"toy/very-4": toy}, model, [above])
    assert found["verdict"].agreement.tau < 1 and "mla (x 3), halos (y 4)" in found["searched_apart"]
    [one] = found["replaced"]
    assert one.methods == ("mla",) and one.gaps[0].mean == pytest.approx(3, abs=1e-3)
    assert one.outside.agreement.tau == one.every.agreement.tau == 1
    assert one.outside.methods == found["verdict"].methods and one.every.methods == found["all"][0].methods
    assert "halos (y 4)" in one.searched_apart and "mla" not in one.searched_apart
    said = markdown([found], {}, [], [])
    assert "these methods' gaps are mla +3.0 [+3.0, +3.0] %, and tau is +1.00" in said
    assert json.loads(json.dumps(plain_study(found)))["replaced"][0]["every"]["agreement"]["tau"] == 1


def test_a_rule_without_the_toy_is_judged_alike():
    order = np.arange(len(NAMES))
    best = order.copy()
    best[NAMES.index("sgd + DyLU")] = -1
    found = study({"toy/very-4": side(order)}, side(best, "two"))
    outside, every = found["rule"]
    pairs = len(OUTSIDE) * (len(OUTSIDE) - 1) // 2
    assert (outside.methods, outside.ordered, outside.others) == (len(OUTSIDE), len(OUTSIDE) - 1, 21)
    assert outside.by_rule == outside.ordered and outside.others_by_toy == outside.others == pairs - outside.ordered
    assert outside.by_toy == outside.ordered - 2 * OUTSIDE.index("sgd + DyLU")
    assert outside.chance < 0.01 and every.ordered == len(NAMES) - 2
    assert "methods with DyLU before those without" in markdown([found], {}, [], [])
    without = [name for name in NAMES if "DyLU" not in name]
    found = study({"toy/very-4": side(order)}, side(best, "two").only(without))
    assert found["rule"] == [None, None] and "with DyLU before" not in markdown([found], {}, [], [])


def test_only_boards_of_the_same_runs_are_laid_over(tmp_path, capsys):
    order = np.arange(len(NAMES))
    toy, model = side(order), side(order, "two")
    above = model.only([REFERENCE, "mla"])
    others = [
        replace(above, losses=above.losses * (1 + 1e-4)),
        replace(above, losses=above.losses[:, :2]),
        replace(above, cluster="very-8"),
        model.only(["mla"]),
    ]
    assert study({"toy/very-4": toy}, model, others)["replaced"] == []
    assert len(study({"toy/very-4": toy}, model, [above])["replaced"]) == 1
    from experiments.accelerator.__main__ import main

    bridge = json.loads((RECORDS / "bridge" / "leaderboard.json").read_text())
    bridge["clusters"]["very-4"] = [row for row in bridge["clusters"]["very-4"] if row["name"] == REFERENCE]
    (tmp_path / "alone.json").write_text(json.dumps(bridge))
    for path, said in (
        (RECORDS / "bridge-first" / "leaderboard.json", "no language model has the same runs of sync nesterov"),
        (tmp_path / "alone.json", "the language model has none of its methods, sync nesterov"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["transfer", "--over", str(path), "--out", str(tmp_path / "out")])
        error = capsys.readouterr().err
        assert end.value.code == 2 and not (tmp_path / "out").exists()
        assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("noise", [0.0, 0.005])
def test_a_board_from_scratch_is_of_the_same_cluster(noise):
    order = np.arange(len(NAMES))
    scratch = replace(side(order, noise=noise), cluster="very-4-scratch")
    assert study({"toy/very-4": side(order)}, scratch)["board"] == "toy/very-4"


def test_a_tau_is_held_against_those_of_two_language_models_and_of_two_toys():
    order = np.arange(len(NAMES))
    other = order.copy()
    other[1:3] = other[2:0:-1]  # of F1-F8
    toys = {"toy/very-4": side(order), "toy/none-4": side(-order)}
    models = [side(other, "two"), replace(side(order, "three"), cluster="very-4-scratch")]
    methods, rows = yardsticks(toys, models)
    assert methods == list(NAMES[1:])
    assert [(y.first, y.second) for y in rows] == [
        ("two, very-4", "three, very-4-scratch"),
        ("toy, toy/very-4", "two, very-4"),
        ("toy, toy/very-4", "three, very-4-scratch"),
        ("toy, toy/very-4", "toy, toy/none-4"),
    ]
    assert [y.outside.tau for y in rows] == [1, 1, 1, -1]
    assert rows[0].every.tau == rows[1].every.tau < 1 == rows[2].every.tau
    # All are on the same methods: what one board lacks is in none.
    fewer = models[0].only([name for name in NAMES if name != "mla"])
    methods, rows = yardsticks(toys, [fewer, models[1]])
    assert "mla" not in methods and len(rows) == 4
    assert yardsticks(toys, models[:1]) == ([], [])
    assert yardsticks(toys, [models[0].only(NAMES[:5]), models[1]]) == ([], [])  # two methods are no order


@pytest.mark.timeout(900)  # on a busy machine
def test_the_record_is_what_the_records_give(tmp_path, monkeypatch):
    monkeypatch.setattr(orders, "NULLS", 20)
    monkeypatch.setattr(orders, "SHUFFLES", 20)
    told = json.loads((RECORDS / "transfer" / "transfer.json").read_text())
    words = [str(RECORDS.parent.parent / path) for path in told["sources"]["lm"]]
    toys = [str(RECORDS.parent.parent / path) for path in told["sources"]["toy"]]
    from experiments.accelerator.__main__ import main

    called, over = told["sources"]["called"], [str(RECORDS.parent.parent / path) for path in told["sources"]["over"]]
    words = ["--lm", *words, "--called", *called, "--over", *over]
    assert main(["transfer", "--toy", *toys, *words, "--out", str(tmp_path)]) == 0
    again = json.loads((tmp_path / "transfer.json").read_text())
    for one in (*told["studies"], *again["studies"]):
        assert 0 < one["halves"].pop("chance") <= 1  # of as many random orders as were drawn
        assert all(0 < rule.pop("chance") <= 1 for rule in one["rule"])
    assert again == told
    for name in ("transfer.png", "transfer-2.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG" and (RECORDS / "transfer" / name).exists()
    text, anew = ((folder / "transfer.md").read_text().splitlines() for folder in (RECORDS / "transfer", tmp_path))
    other = [one for one, now in zip(text, anew) if one != now]
    random = ("Which of them predicts best", "What the toy adds", "Made by")  # of as many draws; and where to
    assert len(text) == len(anew) and all(line.startswith(random) for line in other)
    assert sentence_of(told) in "\n".join(text)


def sentence_of(told):
    """The first words of the verdict as the record's numbers say them."""
    verdict = told["studies"][0]["verdict"]
    a = verdict["agreement"]
    return f"Kendall's tau {a['tau']:+.2f} [{a['low']:+.2f}, {a['high']:+.2f}], p = {a['chance']:.2g}"
