"""The transfer study: who is judged, what tau says of made-up orders, halves, and the committed record."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.accelerator import transfer
from experiments.accelerator.transfer import halves, searched_for, sentence, study, toy_boards
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


@pytest.mark.parametrize("noise", [0.0, 0.005])
def test_a_board_from_scratch_is_of_the_same_cluster(noise):
    order = np.arange(len(NAMES))
    scratch = replace(side(order, noise=noise), cluster="very-4-scratch")
    assert study({"toy/very-4": side(order)}, scratch)["board"] == "toy/very-4"


def test_the_record_is_what_the_records_give(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "NULLS", 20)
    told = json.loads((RECORDS / "transfer" / "transfer.json").read_text())
    words = [str(RECORDS.parent.parent / path) for path in told["sources"]["lm"]]
    toys = [str(RECORDS.parent.parent / path) for path in told["sources"]["toy"]]
    from experiments.accelerator.__main__ import main

    titles = [found["title"] for found in told["studies"]]
    called = ["--called", *dict.fromkeys(titles)] if len(titles) == len(words) else []
    assert main(["transfer", "--toy", *toys, "--lm", *words, *called, "--out", str(tmp_path)]) == 0
    again = json.loads((tmp_path / "transfer.json").read_text())
    assert again["studies"][0]["verdict"] == told["studies"][0]["verdict"]
    assert again["studies"][0]["rows"] == told["studies"][0]["rows"]
    assert (tmp_path / "transfer.png").read_bytes()[:4] == b"\x89PNG"
    text = (RECORDS / "transfer" / "transfer.md").read_text()
    assert sentence_of(told) in text and "on CPU" in text


def sentence_of(told):
    """The first words of the verdict as the record's numbers say them."""
    verdict = told["studies"][0]["verdict"]
    a = verdict["agreement"]
    return f"Kendall's tau {a['tau']:+.2f} [{a['low']:+.2f}, {a['high']:+.2f}], p = {a['chance']:.2g}"


def test_the_readme_says_what_the_record_says():
    told = json.loads((RECORDS / "transfer" / "transfer.json").read_text())
    words = sentence_of(told).replace("tau ", "tau **").replace("], p", "]**, p")
    assert words in " ".join((RECORDS.parent.parent / "README.md").read_text().split())
