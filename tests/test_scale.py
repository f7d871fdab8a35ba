"""The table of sizes and rules: what its numbers are where they can be told by hand, and what the command leaves."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from toybench.cli import main
from toybench.config import Budget, Cluster
from toybench.scale import RULES, cluster_of, measure, rows, window
from toybench.timeline import play

H = Cluster(local_steps=10)


def row(cluster, rounds=40, seed=0):
    return measure(cluster, play(cluster, Budget(rounds), seed))


def test_a_barrier_by_hand():
    """Rounds of 40 s: workers compute 10, 20, 30, 40 of them; 40 steps a round, ideally 40 · (1 + 1/2 + 1/3 + 1/4)."""
    cluster = Cluster(sec_per_step=(1.0, 2.0, 3.0, 4.0), local_steps=10, barrier=True, push_bytes=8e6, pull_bytes=4e6)
    found = row(cluster)
    assert found["utilisation"] == pytest.approx(100 / 160)
    assert found["goodput"] == pytest.approx(1 / (1 + 1 / 2 + 1 / 3 + 1 / 4))
    assert (found["received"], found["sent"]) == pytest.approx((4 * 8e6 / 40, 4 * 4e6 / 40))
    assert found["staleness_max"] == 0 and found["lost"] == 0


@pytest.mark.parametrize("rule", ["async", "dylu"])
def test_without_waiting_everybody_always_computes(rule):
    found = row(cluster_of(H, 50, "very", rule), rounds=100)
    assert found["utilisation"] == pytest.approx(1)
    assert found["goodput"] == pytest.approx(1, abs=0.01)
    assert found["staleness_mean"] == pytest.approx(49, abs=0.5)


def test_a_transfer_costs_its_share():
    """One worker: 10 s of steps, 1 s of latency and 4 s of bytes on the way, and as much back."""
    cluster = Cluster(
        sec_per_step=(1.0,), local_steps=10, latency=(1.0,), bandwidth=(8e6,), pull_bytes=4e6, push_bytes=4e6
    )
    found = row(cluster)
    assert found["utilisation"] == pytest.approx(10 / 20) == found["goodput"]
    assert found["received"] == pytest.approx(4e6 / 20) == found["sent"]


def test_failures_cost_the_time_down_and_half_a_visit_or_so():
    """Renewal: up a share m / (m + r) of the time; a visit of T arrives from a worker up at its start with e^(-T/m)."""
    cluster = replace(cluster_of(H, 400, "none", "async"), mtbf=100.0, mttr=25.0)
    found, visit = row(cluster, rounds=60), 10 * 1.5425
    assert found["utilisation"] == pytest.approx(0.8, abs=0.01)
    assert found["lost"] == pytest.approx(1 - np.exp(-visit / 100), abs=0.01)
    assert found["goodput"] == pytest.approx(0.8 * visit / (100 * (np.exp(visit / 100) - 1)), abs=0.01)


def test_rules_are_ordered_as_they_must_be():
    found = {one["rule"]: one for one in rows(H, Budget(20), 0, [64], [*RULES], "very")}
    goodput = {rule: one["goodput"] for rule, one in found.items()}
    assert goodput["sync"] < goodput["quorum"] < goodput["grace"] < goodput["async"]
    assert found["dylu"]["staleness_99"] < found["async"]["staleness_99"]
    assert found["sync"]["staleness_max"] == 0 < found["quorum"]["staleness_max"]


def test_a_run_of_one_step_is_measured_whole():
    timeline = play(Cluster(local_steps=10, barrier=True), Budget(1), 0).timeline
    assert window(timeline) == (0, 0.0, timeline.time[-1])


def test_the_command_leaves_a_record(tmp_path, capsys):
    command = ["scale", "--workers", "4", "20", "--rules", "sync", "async", "--budget.rounds", "4"]
    assert main([*command, "--cluster.push-bytes", "1e6", "--out", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(one["workers"], one["rule"]) for one in document["rows"]] == [
        (4, "sync"), (4, "async"), (20, "sync"), (20, "async")
    ]  # fmt: skip
    written = json.loads((tmp_path / "scale.json").read_text())
    assert written["rows"] == document["rows"] and "commit" in written["provenance"]
    with open(tmp_path / "scale.csv") as file:
        assert [float(one["goodput"]) for one in csv.DictReader(file)] == [one["goodput"] for one in document["rows"]]
    assert (tmp_path / "scale.md").read_text().count("\n| ") == 5
    assert (tmp_path / "scale.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "words, said",
    [
        (["--workers", "0"], "workers: must be from 1 to 1,000,000, got 0"),
        (["--rules", "syn"], "rules: unknown 'syn'; did you mean 'sync'?"),
        (["--cluster.quorum", "2"], "cluster.quorum: is what the sizes and rules choose here"),
        (["--heterogeneity", "much"], "heterogeneity: expected one of"),
        (["--seed", "-1"], "seed: must be from"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(words, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["scale", *words])
    assert capsys.readouterr().err.startswith(f"toybench: error: {said}")


@pytest.mark.parametrize(
    "words, said",
    [
        (["--workers", "0"], "workers: must be from 1 to"),
        (["--heterogeneity", "none"], "heterogeneity: needs --workers"),
        (["--workers", "4", "--heterogeneity", "no"], "heterogeneity: expected one of"),
        (["--workers", "4", "--cluster.sec-per-step", "1"], "workers: stands for cluster.sec_per_step"),
    ],
)
def test_workers_of_a_timeline(words, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["timeline", *words])
    assert capsys.readouterr().err.startswith(f"toybench: error: {said}")


def test_a_timeline_says_what_failures_took(capsys):
    main(["timeline", "--workers", "20", "--budget.rounds", "5", "--cluster.mtbf", "200", "--cluster.mttr", "50"])
    assert "lost to failures, and given out again" in capsys.readouterr().out
