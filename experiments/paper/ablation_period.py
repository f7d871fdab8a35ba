"""Which delay period N for DN with k workers?

Command:  python -m experiments.paper --only ablation_period
Duration: two minutes after figure_02 on two cores.
Paper:    N from {4, 8, 16}; which was used with which k is not said. N = k makes a period a round.
Found:    N = k is the best of 1, 2, 4, 8, 16, by 4 to 21 %.
          (experiments/records/paper/report.md)
"""

from experiments.paper.lab import DN, DN_DYLU, SYNC_NESTEROV, Answer, Lab, Row, gap, own

PERIODS = (1, 2, 4, 8, 16)


def answer(lab: Lab) -> Answer:
    methods, k = {"DN": DN, "DN + DyLU": DN_DYLU}, lab.base.cluster.workers
    periods = sorted({*lab.some(PERIODS), k})
    arms = {(name, n): {**changes, "outer.period": n} for name, changes in methods.items() for n in periods}
    sync, *others = lab.best(SYNC_NESTEROV, *arms.values())
    best = dict(zip(arms, others))
    rows: list[Row] = [("DiLoCo", sync, None)]
    rows += [(f"{name}, N = {n}", one, gap(one, sync)) for (name, n), one in best.items()]
    claims = [
        own(
            f"DN + DyLU: N = {n} is worse than N = k",
            "gap to N = k, %",
            gap(best["DN + DyLU", n], best["DN + DyLU", k]),
            ">",
            0,
        )
        for n in periods
        if n != k
    ]
    notes = [f"Here k = {k}."]
    return Answer("Ablation: the delay period N", claims, rows, notes)
