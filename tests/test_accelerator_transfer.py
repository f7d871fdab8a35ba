"""The transfer study: who is judged, what tau says of made-up orders, halves, and the committed record."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.accelerator import orders
from experiments.accelerator.orders import halves, own_board, predicted, searched_for, yardsticks
from experiments.accelerator.transfer import plain_study, sentence, study, toy_boards
from experiments.accelerator.transfer_report import markdown
from tests.corpora import refused
from toybench.compare import REFERENCE, Side, agreement, kendall, read_contest, sides, taus
from toybench.curves import Curves
from toybench.presets import load_preset
from toybench.statistics import interval, relative_gap
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


def test_the_readme_says_what_the_record_says():
    told = json.loads((RECORDS / "transfer" / "transfer.json").read_text())
    words = sentence_of(told).replace("tau ", "tau **").replace("], p", "]**, p")
    assert words in " ".join((RECORDS.parent.parent / "README.md").read_text().split())


def test_the_readme_holds_tau_against_what_the_record_says():
    told = json.loads((RECORDS / "transfer" / "transfer.json").read_text())["yardsticks"]
    first, with_bytes, others, *toys = [y["every"] for y in told["rows"]]
    taus = [y["tau"] for y in toys]
    low, high = min(taus[3:]), max(taus[3:])
    assert told["rows"][6]["second"] == "toy, default/none-4" and taus[3] == low
    said = [spoken(first), *(f"{one:+.2f}" for one in (with_bytes["tau"], others["tau"], *taus[:3], low, high))]
    words = (
        "On the {} methods of all three contests, the language model on T5 tokens agrees with the one of the contest "
        "below to {} and with the bytes to {}, these two to {}, the toy's preset with the three to {}, {} and {}, and "
        "with its own other clusters to between {} (equal speeds) and {}."
    ).format(len(told["methods"]), *said)
    assert words in " ".join((RECORDS.parent.parent / "README.md").read_text().split())


def test_the_readme_says_how_boards_of_the_toy_predict_both_language_models():
    text = " ".join((RECORDS.parent.parent / "README.md").read_text().split())
    told = json.loads((RECORDS / "transfer-inner" / "transfer.json").read_text())
    models = [next(s for s in told["studies"] if s["title"] == title) for title in (BYTES, T5)]
    boards = {
        "at the inner rate best for sync Nesterov": "default, inner.lr 0.00051/very-4",
        "AdamW's moments kept, as in the language models": "default, inner.reset false/very-4",
        "both": "default, inner.lr 0.00102, inner.reset false/very-4",
    }
    for words, board in boards.items():
        found = [next(p["agreement"] for p in one["outside"] if p["board"] == board) for one in models]
        assert f"| afterwards: {words} | {' | '.join(map(spoken, found))} |" in text
    verdicts = [one["verdict"]["agreement"] for one in models]
    cells = [f"**{spoken(a)}**, p = {a['chance']:.2g}" for a in verdicts]
    assert f"| the preset, fixed before any language model ran: the verdict | {' | '.join(cells)} |" in text
    every = [next(p["agreement"] for p in one["all"] if p["board"] == one["board"]) for one in models]
    assert f"On all 25 methods it is {spoken(every[0])} and {spoken(every[1])}." in text
    main = json.loads((RECORDS / "transfer" / "transfer.json").read_text())["studies"]
    assert [one["verdict"] for one in main] == [one["verdict"] for one in told["studies"]]


BYTES, T5 = "transformer on bytes on CPU", "small language model on CPU"


def test_the_readme_says_what_the_preset_predicts_on_bytes_and_what_not():
    text = " ".join((RECORDS.parent.parent / "README.md").read_text().split())
    told = json.loads((RECORDS / "transfer" / "transfer.json").read_text())["studies"]
    [strict, _] = next(s for s in told if s["title"] == BYTES)["rule"]
    said = f"of the {strict['others']} pairs of which that says nothing the bytes have net {strict['others_by_toy']}"
    assert f"{said} the preset's way, p = {strict['chance']:.3f}" in text
    paths = [RECORDS / p for p in ("leaderboard.json", "leaderboard-inner/kept-best-rate/leaderboard.json")]
    toy, kept = (sides(read_contest(str(path)), "toy")["very-4"] for path in paths)
    models = [sides(read_contest(str(RECORDS / p / "leaderboard.json")), "")["very-4"] for p in ALL_CONTESTS]
    model = models[-1]
    outside = [n for n in toy.names if n in model.names and n != REFERENCE and n not in searched_for()]
    few = [name for name in outside if not name.startswith(("heloco", "mla"))]
    found = predicted("", toy, model, few).agreement
    said = f"it is {found.tau:+.2f} on the other {len(few)}, p = {found.chance:.1g}"
    assert said in text and len(outside) - len(few) == 4
    shared = [n for n in kept.names if n != REFERENCE and all(n in one.names for one in (toy, *models))]
    on_t5, on_bytes = (agreement(kept.only(shared), one.only(shared)).tau for one in (models[0], model))
    rows = json.loads((RECORDS / "transfer" / "transfer.json").read_text())["yardsticks"]["rows"]
    between = next(y["every"] for y in rows if (y["first"], y["second"]) == (f"{T5}, very-4", f"{BYTES}, very-4"))
    said = f"agree with each other to {spoken(between)}, and the last row's toy with them to"
    assert len(shared) == 16 and f"{said} {on_t5:+.2f} and {on_bytes:+.2f}:" in text
    both = [one.only([n for n in toy.names if n in model.names]) for one in (toy, model)]
    places = [dict(zip(np.array(s.names)[s.losses.mean(1).argsort()], range(1, 27))) for s in both]
    names = ("delayed_nesterov + DyLU", "ormo + DyLU", "halos", "fedbuff")
    assert [[int(place[name]) for name in names] for place in places] == [[2, 3, 7, 19], [9, 14, 18, 26]]
    before, after = (place["nesterov"] for place in places)
    for name in ("delayed_nesterov", "buffered"):
        assert places[0][name] < before and places[1][name] > after
    gaps = dict(zip(model.names, model.gaps)), dict(zip(kept.names, kept.gaps))
    for name in ("sgd", "ringmaster", "sync sgd"):
        assert gaps[0][name].low > 0 > gaps[1][name].high


ALL_CONTESTS = ("bridge", "bridge-first", "bridge-bytes")


def spoken(agreement):
    return f"{agreement['tau']:+.2f} [{agreement['low']:+.2f}, {agreement['high']:+.2f}]"


def test_the_readme_says_what_the_bytes_show_of_the_trouble():
    text = " ".join((RECORDS.parent.parent / "README.md").read_text().split())
    [board] = json.loads((RECORDS / "bridge-bytes" / "leaderboard.json").read_text())["clusters"].values()
    gaps = {row["name"]: "{:+.1f} % [{:+.1f}, {:+.1f}]".format(*row["gap"]) for row in board}
    best, second, third = board[:3]
    assert (best["name"], second["name"], third["name"]) == ("heloco + DyLU", "mla + DyLU", "sync nesterov + DyLU")
    below = [gaps[name] for name in ("heloco + DyLU", "mla + DyLU", "sync nesterov + DyLU")]
    for said in (
        f"async Nesterov ends {gaps['nesterov']} above sync Nesterov, sync SGD {gaps['sync sgd']}, async SGD",
        f"async SGD {gaps['sgd']}, DN + DyLU {gaps['delayed_nesterov + DyLU']}; HeLoCo, look-ahead and sync Nesterov,",
        f"{below[0]}, {below[1]} and {below[2]}",
    ):
        assert said in text


def test_the_readme_says_where_tau_comes_from():
    text = " ".join((RECORDS.parent.parent / "README.md").read_text().split())
    toy = toy_boards([str(RECORDS / "leaderboard.json")])["default/very-4"]
    [model] = sides(read_contest(str(RECORDS / "bridge" / "leaderboard.json")), "model").values()
    names = [name for name in toy.names if name in model.names]
    x, y = (side.only(names).losses.mean(1) for side in (toy, model))
    same = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    pairs, dylu = np.triu(np.ones_like(same), 1) > 0, np.array(["DyLU" in name for name in names])
    kinds = [pairs & (dylu[:, None] + 0 + dylu == number) for number in (1, 0, 2)]
    (one, mixed), (two, without), (three, both) = ((same[kind].sum(), same[kind].mean()) for kind in kinds)
    some = f"of {same[pairs].sum():.0f} pairs by which agreements outnumber disagreements"
    net = f"{some} {one:.0f} are of a method with DyLU and one without"
    assert f"{net} (tau {mixed:+.2f}), {two:.0f} of two without it ({without:+.2f}), {three:.0f} of" in text
    assert f"of two with it ({both:+.2f} on {dylu.sum()} methods" in text.replace("seven", "7")


def test_the_readme_says_what_other_settings_and_a_rule_without_the_toy_give():
    text = " ".join((RECORDS.parent.parent / "README.md").read_text().split())
    told = json.loads((RECORDS / "transfer" / "transfer.json").read_text())["studies"][0]
    [other], before = told["replaced"], {row["name"]: row["gap"][1] for row in told["rows"]}
    after = dict(zip(other["methods"], other["gaps"]))
    moved = [f"from {before[name][0]:+.1f} to {after[name][0]:+.1f}" for name in ("fedbuff", "halos")]
    assert f"FedBuff moves {moved[0]} % and HALoS {moved[1]}, the others not" in text
    for name in ("ringmaster", "restarted_nesterov"):
        np.testing.assert_allclose(after[name], before[name], atol=1e-3)
    a = other["outside"]["agreement"]
    assert f"tau is {a['tau']:+.2f} [{a['low']:+.2f}, {a['high']:+.2f}] on the 19" in text
    strict, every = told["rule"]
    said = f"orders {strict['ordered']} of the 171 pairs, net {strict['by_rule']} rightly; the toy has net"
    toy = f"{strict['by_toy']} of these, and {strict['others_by_toy']} of the other {strict['others']}"
    assert f"{said} {toy}" in text
    assert f"which chance may give (p = {strict['chance']:.2f}; on all 25 methods p = {every['chance']:.2f})" in text


def test_the_readme_says_how_synchronous_training_with_dylu_does():
    text = " ".join((RECORDS.parent.parent / "README.md").read_text().split())
    [settings] = json.loads((RECORDS / "bridge-settings" / "leaderboard.json").read_text())["clusters"].values()
    [board] = json.loads((RECORDS / "bridge" / "leaderboard.json").read_text())["clusters"].values()
    [sync] = [row for row in settings if row["name"] == "sync nesterov + DyLU"]
    mean, low, high = sync["gap"]
    assert f"it ends {mean:+.1f} % [{low:+.1f}, {high:+.1f}] against sync Nesterov, tenth among the 27" in text
    assert len(board) == 26 and sum(row["loss"][0] < sync["loss"][0] for row in board) == 9
    above = {row["name"]: interval(relative_gap(np.array(row["losses"]), np.array(sync["losses"]))) for row in board}
    assert all(above[name].low < 0 < above[name].high for name in ("delayed_nesterov + DyLU", "sgd"))
    clear = {name for name, gap in above.items() if gap.high < 0}
    assert clear == {"mla + DyLU", "heloco + DyLU", "sgd + DyLU", "ringmaster"}


def test_the_readme_says_what_longer_runs_give():
    text = " ".join((RECORDS.parent.parent / "README.md").read_text().split())

    def gaps(board):
        [rows] = json.loads((RECORDS / board / "leaderboard.json").read_text())["clusters"].values()
        return {row["name"]: "{:+.1f} [{:+.1f}, {:+.1f}]".format(*row["gap"]) for row in rows}

    longer, before = gaps("bridge-longer"), gaps("bridge-settings") | gaps("bridge")
    titles = {
        "nesterov": "async Nesterov",
        "sgd": "async SGD",
        "delayed_nesterov + DyLU": "DN + DyLU",
        "sync nesterov + DyLU": "sync Nesterov + DyLU",
    }
    assert {*longer} == {*titles, REFERENCE}
    assert ", ".join(f"{told} {longer[name]} % ({before[name]} before)" for name, told in titles.items()) in text
