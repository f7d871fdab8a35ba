"""What the README says of the transfer study is what the records hold."""

import json
from pathlib import Path

import numpy as np
from test_accelerator_transfer import sentence_of

from experiments.accelerator.orders import predicted, searched_for
from experiments.accelerator.transfer import toy_boards
from toybench.compare import REFERENCE, agreement, read_contest, sides
from toybench.statistics import interval, relative_gap

RECORDS = Path(__file__).parent.parent / "experiments" / "records"
BYTES, T5 = "transformer on bytes on CPU", "small language model on CPU"
ALL_CONTESTS = ("bridge", "bridge-first", "bridge-bytes")


def spoken(agreement):
    return f"{agreement['tau']:+.2f} [{agreement['low']:+.2f}, {agreement['high']:+.2f}]"


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
