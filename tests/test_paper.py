"""The report on the paper's study: every question on losses that are formulas of the settings; nothing is trained."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

import experiments.paper.__main__ as paper
from experiments.paper.__main__ import FULL, QUESTIONS, QUICK, RECORDS, save
from experiments.paper.lab import SHAPE, Best, Claim, Lab, closes, own, quick_calls
from toybench.curves import Curves
from toybench.loading import overlay
from toybench.presets import load_preset
from toybench.statistics import Interval
from toybench.training import static_part
from toybench.tuning import Tuning

ROOT = Path(__file__).parent.parent


def measure(runs, seeds):
    """Async is worse than sync by a tenth, DN + DyLU is not, and every rate has its valley at 0.1."""
    found = []
    for run in runs:
        stale = not run.cluster.barrier and not (run.cluster.dynamic_steps and hasattr(run.outer, "activation"))
        noise = np.array([np.random.default_rng(seed).normal() for seed in seeds])
        final = 1.0 + 0.1 * stale + 0.02 * noise + 0.01 * np.log2(run.outer.lr / 0.1) ** 2
        loss = np.stack([np.full(len(seeds), 2.0), final], axis=1)
        end = 6600.0 if run.cluster.barrier else 2000.0
        steps, time = np.tile([0, 8000], (len(seeds), 1)), np.tile([0.0, end], (len(seeds), 1))
        found.append(Curves(run, tuple(seeds), steps, time, {"loss": loss}))
    return found


def answered(quick):
    lab = Lab(load_preset("default"), QUICK if quick else FULL, measure, quick)
    return {name: importlib.import_module(f"experiments.paper.{name}").answer(lab) for name in QUESTIONS}


@pytest.fixture(scope="module")
def answers():
    return answered(quick=False)


@pytest.fixture(scope="module")
def quick_answers():
    return answered(quick=True)


def test_every_question_is_asked_and_every_file_is_a_question():
    files = {path.stem for path in (ROOT / "experiments" / "paper").glob("*_*.py")} - {"__init__", "__main__"}
    assert files == set(QUESTIONS)
    for name in QUESTIONS:
        said = importlib.import_module(f"experiments.paper.{name}").__doc__ or ""
        assert said.splitlines()[0].endswith("?")
        for part in (f"Command:  python -m experiments.paper --only {name}\n", "Paper:    ", "Found:    "):
            assert part in said


def test_verdicts_follow_from_the_losses(answers):
    verdicts = {c.statement: c.verdict for answer in answers.values() for c in answer.claims}
    assert verdicts["async DiLoCo is behind DiLoCo at equal local steps"] == "agrees"
    assert verdicts["DN + DyLU closes async DiLoCo's gap to DiLoCo"] == "agrees"
    assert verdicts["outer SGD: async beats sync"] == "disagrees"
    assert verdicts["unequal speeds make it worse still"] == "undecided"
    assert verdicts["async DiLoCo's gap does not grow with heterogeneity"] == "agrees"
    assert verdicts["both help more than DN alone"] == "holds"  # a question of ours neither agrees nor disagrees


def test_quickly_every_statement_of_the_paper_is_put_too(answers, quick_answers):
    def put(answers):
        return [c.statement for answer in answers.values() for c in answer.claims if c.of_the_paper]

    assert put(quick_answers) == put(answers)


def test_quickly_every_call_has_one_shape():
    base = load_preset("default")
    runs = [overlay(base, {"outer.lr": 0.1 * (i + 1), "cluster.barrier": i % 2 == 0}) for i in range(SHAPE[1] + 1)]
    runs += [overlay(base, {"task.hidden": 8})]
    calls = quick_calls(runs, QUICK.reported)
    asked = sorted((i, seed) for call in calls for i in call.runs for seed in call.seeds)
    assert asked == [(i, seed) for i in range(len(runs)) for seed in QUICK.reported]
    assert {(len(call.seeds), call.lanes) for call in calls} == {SHAPE}
    assert all(len({static_part(runs[i]) for i in call.runs}) == 1 for call in calls)
    for seeds in (QUICK.tuning, QUICK.reported):
        assert len(seeds) % SHAPE[0] == 0


@pytest.mark.parametrize("quick", [False, True])
def test_a_report_says_how_it_was_made(quick, quick_answers, tmp_path):
    save(quick_answers, tmp_path, "default", quick)
    text = (tmp_path / "report.md").read_text()
    assert ("**A quick look, not to be quoted:**" in text) == ("without a runoff" in text) == quick
    assert json.loads((tmp_path / "report.json").read_text())["quick"] == quick


def test_the_report_is_written_and_counts_the_papers_statements_only(answers, tmp_path):
    save(answers, tmp_path, "default", False)
    text = (tmp_path / "report.md").read_text()
    claims = [c for answer in answers.values() for c in answer.claims]
    count = sum(c.of_the_paper for c in claims)
    assert f"{count} statements of the paper: " in text and count < len(claims)
    assert text.count("(ours)") == len(claims) - count
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == sorted(QUESTIONS)
    record = json.loads((tmp_path / "report.json").read_text())
    assert list(record["answers"]) == list(QUESTIONS)


def test_a_part_of_the_report_leaves_the_record_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paper, "measure", lambda runs, seeds, store, calls: measure(runs, seeds))
    monkeypatch.setattr("sys.argv", ["paper", "--only", "figure_07"])
    before = {path: path.read_bytes() for path in RECORDS.iterdir()}
    paper.main()
    assert {path: path.read_bytes() for path in RECORDS.iterdir()} == before
    text = (tmp_path / "results" / "paper" / "report.md").read_text()
    assert "`python -m experiments.paper --only figure_07`" in text


def test_a_question_asked_again_takes_its_place_in_the_report_of_a_folder(tmp_path, monkeypatch, answers):
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paper, "measure", lambda runs, seeds, store, calls: measure(runs, seeds))
    save(answers, out, "default", False)
    whole, record = (out / "report.md").read_text(), json.loads((out / "report.json").read_text())
    record["answers"]["figure_07"]["title"] = "Of old"
    del record["answers"]["figure_08"]
    (out / "report.json").write_text(json.dumps(record))
    monkeypatch.setattr("sys.argv", ["paper", "--only", "figure_08", "figure_07", "--out", str(out)])
    paper.main()
    again = (out / "report.md").read_text()
    made = "`python -m experiments.paper`, then `python -m experiments.paper --only figure_08 figure_07`"
    assert again.replace(made, "`python -m experiments.paper`") == whole
    assert list(json.loads((out / "report.json").read_text())["answers"]) == list(QUESTIONS)


@pytest.mark.parametrize(
    "words, said",
    [
        (["--quick"], "has a report of preset default, whole"),
        (["--preset", "fast"], "has a report of preset default, whole"),
        (["--preset", "nope"], "preset: unknown"),
        (["--only", "nothing"], "invalid choice: 'nothing'"),
        (["--onyl", "figure_07"], "--onyl"),
        ("[]", "no report of this version"),
        ('{"preset": "default", "quick": false}', "no report of this version"),
        ({"seeds": {"tuning": [1]}}, "a report of other seeds"),
    ],
)
def test_a_report_of_another_kind_is_not_mixed_in(words, said, tmp_path, monkeypatch, capsys, answers):
    save(answers, tmp_path, "default", False)
    path = tmp_path / "report.json"
    if isinstance(words, str):
        path.write_text(words)
    elif isinstance(words, dict):
        path.write_text(json.dumps(json.loads(path.read_text()) | words))
    words = words if isinstance(words, list) else []
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("sys.argv", ["paper", "--only", "figure_07", "--out", str(tmp_path), *words])
    with pytest.raises(SystemExit) as left:
        paper.main()
    [line] = capsys.readouterr().err.splitlines()
    assert left.value.code == 2 and said in line
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_no_seed_serves_twice():
    for seeds in (FULL, QUICK):
        every = [seed for own in seeds for seed in own]
        assert len(set(every)) == len(every)


def test_a_gap_is_closed_only_if_hardly_anything_of_it_remains():
    def best(loss):
        run = load_preset("default")
        curves = Curves(
            run, (0, 1, 2), np.zeros((3, 2)), np.zeros((3, 2)), {"loss": np.array([[9.0, x] for x in loss])}
        )
        return Best(Tuning((1.0,), ((1.0,),), (0,), {}), curves)

    sync, stale = best([1.0, 1.1, 1.2]), best([2.0, 2.1, 2.2])
    for share, verdict in (
        (-0.5, "agrees"),
        (0.0, "agrees"),
        (0.09, "agrees"),
        (0.11, "disagrees"),
        (1.0, "disagrees"),
    ):
        assert closes("it", best([1.0 + share, 1.1 + share, 1.2 + share]), stale, sync).verdict == verdict


def test_a_claim_of_ours_holds_or_does_not():
    value = Interval(1, 0.5, 1.5)
    for relation, bound, paper_says, we_say in (
        (">", 0, "agrees", "holds"),
        ("<", 0, "disagrees", "does not hold"),
        (">", 1, "undecided", "undecided"),
    ):
        assert Claim("", "", value, relation, bound).verdict == paper_says
        assert own("", "", value, relation, bound).verdict == we_say


def test_the_record_is_of_all_questions_and_its_report_is_made_from_it():
    record = json.loads((RECORDS / "report.json").read_text())
    assert list(record["answers"]) == list(QUESTIONS)
    text = (RECORDS / "report.md").read_text()
    for answer in record["answers"].values():
        assert f"## {answer['title']}" in text
        for claim in answer["claims"]:
            assert claim["statement"] in text


def test_every_method_is_compared_at_the_momentum_it_wants_by_the_tuning_seeds():
    """Async wants 0.3 of it here and DiLoCo 0.8; on the reported seeds alone 0.95 is best of all."""

    def wanting(runs, seeds):
        found = measure(runs, seeds)
        for run, curves in zip(runs, found):
            wanted = 0.8 if run.cluster.barrier else 0.3
            if seeds == FULL.reported:
                wanted = 0.95
            curves.metrics["loss"][:, -1] += (run.outer.momentum - wanted) ** 2
        return found

    lab = Lab(load_preset("default"), FULL, wanting)
    told = importlib.import_module("experiments.paper.ablation_momentum").answer(lab)
    assert "DiLoCo 0.8, async DiLoCo 0.3, DN + DyLU 0.3, DiLoCo + DyLU 0.8" in told.notes[0]
    assert dict((label, gap) for label, _, gap in told.rows)["DiLoCo, β = 0.8"] == (0, 0, 0)
    usual, without, *_ = told.claims
    assert without.value.mean < 0 and without.verdict == "holds"
    assert usual.value.mean > 0 and usual.verdict == "does not hold"
    assert set(told.against[1]["async DiLoCo"]) == {0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95}


def test_with_moments_kept_and_without_the_inner_rate_is_chosen_once_for_all_methods():
    def wanting(runs, seeds):
        found = measure(runs, seeds)
        for run, curves in zip(runs, found):
            wanted = base.inner.lr * (1 if run.inner.reset else 0.5)
            curves.metrics["loss"][:, -1] += 0.1 * np.log2(run.inner.lr / wanted) ** 2
        return found

    base = load_preset("default")
    told = importlib.import_module("experiments.paper.ablation_moments").answer(Lab(base, FULL, wanting))
    runs = {label: best.curves.run for label, best, _ in told.rows}
    for label, run in runs.items():
        if ", inner rate " not in label:
            assert (run.inner.reset, run.inner.lr / base.inner.lr) == ((False, 0.5) if "kept" in label else (True, 1))
    assert {"async SGD, kept", "async SGD, discarded"} <= runs.keys()


def test_what_the_readme_says_of_the_presets_settings_is_in_the_records():
    answers = json.loads((RECORDS / "report.json").read_text())["answers"]
    boards = [json.loads((RECORDS.parent / p / "leaderboard.json").read_text()) for p in (".", "leaderboard-dylu")]
    usual = {row["name"]: row["gap"] for board in boards for row in board["clusters"]["very-4"]}
    moments = {row["label"]: row["gap"] for row in answers["ablation_moments"]["rows"]}
    tried: dict[str, dict[str, dict]] = {}
    for row in answers["ablation_momentum"]["rows"]:
        name, beta = row["label"].split(", β = ")
        tried.setdefault(name, {})[beta] = row
    decided = {
        name: min(own, key=lambda b, own=own: min(loss for _, loss in own[b]["runoff"])) for name, own in tried.items()
    }
    assert decided == {"DiLoCo": "0.8", "async DiLoCo": "0.8", "DN + DyLU": "0.8", "DiLoCo + DyLU": "0.9"}
    best = {name: tried[name][beta]["gap"] for name, beta in decided.items()} | {
        "async SGD": tried["async DiLoCo"]["0"]["gap"]
    }
    text = (ROOT / "README.md").read_text()
    for words, name, board in (
        ("async Nesterov", "async DiLoCo", "nesterov"),
        ("async SGD", "async SGD", "sgd"),
        ("DN + DyLU", "DN + DyLU", "delayed_nesterov + DyLU"),
        ("**sync** Nesterov + DyLU", "DiLoCo + DyLU", "sync nesterov + DyLU"),
    ):
        gaps = usual[board], best[name], moments[f"{name}, discarded"], moments[f"{name}, kept"]
        cells = ["{:+.1f} [{:+.1f}, {:+.1f}]".format(*gap) for gap in gaps]
        assert f"| {' | '.join([words, *cells])} |" in text
    waiting = answers["ablation_momentum"]["claims"][-1]["value"]
    assert "which ends {:+.1f} % [{:+.1f}, {:+.1f}] above it".format(*waiting) in " ".join(text.split())
