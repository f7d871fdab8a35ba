"""Which part of DN + DyLU does what: DN alone, DyLU alone, the grace period alone?

Command:  python -m experiments.paper --only ablation_parts
Duration: three minutes after figure_02 on two cores.
Paper:    none of these is tabulated.
Found:    DN alone 15.7 %, DyLU alone 18.3 %, both -2.1 % above DiLoCo, and both without grace +13 %.
          (experiments/records/paper/report.md)
"""

from experiments.paper.lab import ASYNC_NESTEROV, DN, DN_DYLU, DYLU, SYNC_NESTEROV, Answer, Lab, Row, gap, own

GRACES = (0.0, 0.25, 0.5, 1.0, 2.0)
PARTS = {"nothing": ASYNC_NESTEROV, "DyLU": {**DYLU, "outer.method": "nesterov"}, "DN": DN, "DN + DyLU": DN_DYLU}


def answer(lab: Lab) -> Answer:
    graces = sorted({*lab.some(GRACES), lab.base.cluster.grace})
    arms = {(part, s): {**changes, "cluster.grace": s} for s in graces for part, changes in PARTS.items()}
    sync, *others = lab.best(SYNC_NESTEROV, *arms.values())
    best = dict(zip(arms, others))
    grace = lab.base.cluster.grace
    claims = [
        own(f"{part} alone helps", "gap to async DiLoCo, %", gap(best[part, grace], best["nothing", grace]), "<", 0)
        for part in ("DyLU", "DN")
    ]
    both = best["DN + DyLU", grace]
    claims += [
        own("both help more than DN alone", "gap to DN, %", gap(both, best["DN", grace]), "<", 0),
        own("both help more than DyLU alone", "gap to DyLU, %", gap(both, best["DyLU", grace]), "<", 0),
        own(
            "DN + DyLU ends no more than 2 % above DiLoCo without a grace period",
            "gap to DiLoCo at grace 0, %",
            gap(best["DN + DyLU", 0.0], sync),
            "<",
            2,
        ),
        own(
            "the grace period helps async DiLoCo",
            "gap of 2 s to none, %",
            gap(best["nothing", 2.0], best["nothing", 0.0]),
            "<",
            0,
        ),
    ]
    rows: list[Row] = [("DiLoCo", sync, None)]
    rows += [(f"{part}, grace {seconds:g} s", one, gap(one, sync)) for (part, seconds), one in best.items()]
    return Answer("Ablation: DN, DyLU, grace", claims, rows)
