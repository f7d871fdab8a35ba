"""Does it matter that AdamW's moments are discarded at every pull?

Command:  python -m experiments.paper --only ablation_moments
Duration: some ten minutes of a core.
Paper:    workers keep their moments; the published toy discards them, and so does the preset.
Found:    kept, and both at DiLoCo's best inner rate, async DiLoCo is 9 % behind DiLoCo instead of 20, and async SGD 6 %
          ahead instead of 4 % behind (16 % at the preset's inner rate, half of the best).
          (experiments/records/paper/report.md)
"""

from experiments.paper.lab import (
    ASYNC_NESTEROV,
    ASYNC_SGD,
    DN_DYLU,
    SYNC_DYLU,
    SYNC_NESTEROV,
    Answer,
    Lab,
    Row,
    gap,
    own,
)

INNER_RATES = (0.5, 1.0, 2.0, 4.0, 8.0)  # times the preset's
METHODS = {
    "DiLoCo": SYNC_NESTEROV,
    "async DiLoCo": ASYNC_NESTEROV,
    "async SGD": ASYNC_SGD,
    "DN + DyLU": DN_DYLU,
    "DiLoCo + DyLU": SYNC_DYLU,
}


def answer(lab: Lab) -> Answer:
    rates = sorted({*(factor * lab.base.inner.lr for factor in lab.some(INNER_RATES)), lab.base.inner.lr})
    rows, found, chosen = list[Row](), {}, {}
    for label, reset in (("discarded", True), ("kept", False)):
        arms = {rate: {"inner.reset": reset, "inner.lr": rate} for rate in rates}
        tried = dict(zip(arms, lab.best(*({**SYNC_NESTEROV, **arm} for arm in arms.values()))))
        chosen[label] = min(tried, key=lambda rate: tried[rate].tuning.loss)
        rows += [(f"DiLoCo, {label}, inner rate {rate:g}", one, None) for rate, one in tried.items()]
        best = lab.best(*({**arm, **arms[chosen[label]]} for arm in METHODS.values()))
        found[label] = dict(zip(METHODS, best))
    for label, best in found.items():
        rows += [(f"{name}, {label}", one, gap(one, best["DiLoCo"])) for name, one in best.items()]
    sync, stale, sgd, remedy, waiting = found["kept"].values()
    lost = found["discarded"]
    claims = [
        own("with moments kept, async DiLoCo is worse than DiLoCo", "gap, %", gap(stale, sync), ">", 0),
        own("with moments kept, async SGD is worse than DiLoCo", "gap, %", gap(sgd, sync), ">", 0),
        own(
            "with moments discarded, async SGD is worse than DiLoCo",
            "gap, %",
            gap(lost["async SGD"], lost["DiLoCo"]),
            ">",
            0,
        ),
        own("with moments kept, DN + DyLU is no worse than DiLoCo", "gap, % (bound: 2)", gap(remedy, sync), "<", 2),
        own("with moments kept, DiLoCo + DyLU is better than DN + DyLU", "gap, %", gap(waiting, remedy), "<", 0),
        own("DiLoCo is better with moments kept", "gap, %", gap(sync, lost["DiLoCo"]), "<", 0),
    ]
    notes = [
        f"The inner rate is DiLoCo's best of {', '.join(f'{rate:g}' for rate in rates)}, {chosen['discarded']:g} "
        f"with moments discarded and {chosen['kept']:g} with moments kept, the same for all methods; the preset's is "
        f"{lab.base.inner.lr:g}. Gaps are to DiLoCo that treats its moments alike."
    ]
    return Answer("Ablation: inner moments", claims, rows, notes)
