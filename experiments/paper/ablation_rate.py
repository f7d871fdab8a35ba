"""Is stale momentum a matter of the rate: does the best rate fall with staleness, and what does a shared rate show?

Command:  python -m experiments.paper --only ablation_rate
Duration: a minute after figure_11 on two cores.
Paper:    section 5 compares methods at rates chosen for each from {0.03, 0.1, 0.3, 0.7}.
Found:    it falls with the number of workers; at one shared rate async is 59 % behind instead of 22 %.
          (experiments/records/paper/report.md)
"""

import numpy as np

from experiments.paper.lab import ASYNC_NESTEROV, SYNC_NESTEROV, Answer, Best, Lab, Row, gap, own
from toybench.clusters import sec_per_step
from toybench.tuning import Tuning

SHARED = 0.7


def answer(lab: Lab) -> Answer:
    workers = (4, 8, 16) if lab.quick else (1, 2, 4, 8, 16)  # quickly: those of figure_11
    clusters = {k: {"cluster.sec_per_step": sec_per_step(k, "very")} for k in workers}
    arms = ({**ASYNC_NESTEROV, **speeds} for speeds in clusters.values())
    sync, stale, *others = lab.best(SYNC_NESTEROV, ASYNC_NESTEROV, *arms)
    rates = {k: one.tuning.best for k, one in zip(clusters, others)}
    rows: list[Row] = [("DiLoCo", sync, None), ("async, k = 4", stale, gap(stale, sync))]
    shared = lab.at(*({**changes, "outer.lr": SHARED} for changes in (SYNC_NESTEROV, ASYNC_NESTEROV)))
    at_shared = {
        n: Best(Tuning((SHARED,), (tuple(map(float, c.final_loss)),), tuple(lab.seeds.reported), {}), c)
        for n, c in zip(("sync", "async"), shared)
    }
    rows += [(f"{name} at ε = {SHARED}", one, gap(one, sync)) for name, one in at_shared.items()]
    wide = gap(at_shared["async"], at_shared["sync"])
    claims = [
        own(f"at one shared rate, ε = {SHARED}, sync Nesterov beats async", "gap of async to sync, %", wide, ">", 0),
        own("at their own best rates too", "gap of async to sync, %", gap(stale, sync), ">", 0),
    ]
    slope = np.polyfit(np.log(list(rates)), np.log(list(rates.values())), 1)[0]
    said = ", ".join(f"k = {k}: {rate:g}" for k, rate in rates.items())
    notes = [
        f"Best outer rates of async Nesterov, very heterogeneous (mean staleness k - 1): {said}; DiLoCo's is "
        f"{sync.tuning.best:g}. Log-log slope against k: {slope:.2f}.",
        "A diverged run counts as the untrained model, so a gap at a shared rate is a lower bound where runs diverge.",
    ]
    return Answer("Ablation: staleness and rate", claims, rows, notes)
