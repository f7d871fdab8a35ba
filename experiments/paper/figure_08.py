"""Do the earlier remedies close the gap?

Command:  python -m experiments.paper --only figure_08
Duration: a minute after figure_02 on two cores.
Paper:    Fig. 8: Poly, PolyThres and delay compensation barely help; Async Buffer closes much of the gap; none reaches
          DiLoCo.
Found:    Poly, PolyThres and delay compensation barely help, and neither does Async Buffer; none reaches
          DiLoCo.
          (experiments/records/paper/report.md)
"""

from experiments.paper.lab import ASYNC, ASYNC_NESTEROV, SYNC_NESTEROV, Answer, Claim, Lab, Row, gap
from toybench.statistics import interval

REMEDIES = {
    "Poly": "poly",
    "PolyThres": "poly_threshold",
    "delay compensation": "delay_compensation",
    "Buffer": "buffered",
}


def answer(lab: Lab) -> Answer:
    remedies = ({**ASYNC, "outer.method": method} for method in REMEDIES.values())
    sync, stale, *others = lab.best(SYNC_NESTEROV, ASYNC_NESTEROV, *remedies)
    best = dict(zip(REMEDIES, others))
    midway = (sync.loss + stale.loss) / 2
    above = {name: interval(100 * (one.loss - midway) / sync.loss) for name, one in best.items()}
    claims = [
        Claim(f"{name} barely helps", "final loss above half-way to DiLoCo, % of DiLoCo's", above[name], ">", 0)
        for name in ("Poly", "PolyThres", "delay compensation")
    ]
    claims.append(Claim("Async Buffer closes much of the gap", "above half-way, %", above["Buffer"], "<", 0))
    claims += [Claim(f"{name} does not reach DiLoCo", "gap, %", gap(one, sync), ">", 0) for name, one in best.items()]
    rows: list[Row] = [("DiLoCo", sync, None), ("async DiLoCo", stale, gap(stale, sync))]
    rows += [(name, one, gap(one, sync)) for name, one in best.items()]
    return Answer("Fig. 8: the earlier remedies", claims, rows)
