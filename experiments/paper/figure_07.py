"""Is it staleness through unequal speeds, or already the application one by one?

Command:  python -m experiments.paper --only figure_07
Duration: half a minute after figure_02 on two cores.
Paper:    Fig. 7: async DiLoCo is worse than DiLoCo even with equal speeds.
Found:    it is (+5.5 %), and unequal speeds make it worse still (+22 %).
          (experiments/records/paper/report.md)
"""

from experiments.paper.lab import ASYNC_NESTEROV, SYNC_NESTEROV, Answer, Claim, Lab, Row, gap, own
from toybench.clusters import sec_per_step


def answer(lab: Lab) -> Answer:
    alike = {"cluster.sec_per_step": sec_per_step(lab.base.cluster.workers, "none")}
    sync, unequal, equal = lab.best(SYNC_NESTEROV, ASYNC_NESTEROV, {**ASYNC_NESTEROV, **alike})
    claims = [
        Claim("async DiLoCo is worse with equal speeds too", "gap to DiLoCo, %", gap(equal, sync), ">", 0),
        own("unequal speeds make it worse still", "gap to equal speeds, %", gap(unequal, equal), ">", 0),
    ]
    rows: list[Row] = [("DiLoCo", sync, None), ("async, equal speeds", equal, gap(equal, sync))]
    rows.append(("async, very unequal speeds", unequal, gap(unequal, sync)))
    return Answer("Fig. 7: equal speeds", claims, rows)
