"""Does it matter that AdamW's moments are discarded at every pull?

Command:  python -m experiments.paper --only ablation_moments
Duration: PENDING
Paper:    workers keep their moments; the published toy discards them, and so does the preset.
Found:    PENDING
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

INNER_RATES = (0.25, 0.5, 1.0, 2.0)  # times the preset's, which was chosen with moments discarded
METHODS = {
    "DiLoCo": SYNC_NESTEROV,
    "async DiLoCo": ASYNC_NESTEROV,
    "async SGD": ASYNC_SGD,
    "DN + DyLU": DN_DYLU,
    "DiLoCo + DyLU": SYNC_DYLU,
}


def answer(lab: Lab) -> Answer:
    usual = lab.base.inner.lr
    rates = [factor * usual for factor in lab.some(INNER_RATES)]
    kept = {"inner.reset": False}
    tried = lab.best(*({**SYNC_NESTEROV, **kept, "inner.lr": rate} for rate in rates))
    chosen = min(zip(rates, tried), key=lambda pair: pair[1].tuning.loss)[0]
    rows: list[Row] = [(f"DiLoCo, kept, inner rate {rate:g}", one, None) for rate, one in zip(rates, tried)]
    found = {}
    for label, changes in (("discarded", {}), ("kept", {**kept, "inner.lr": chosen})):
        best = dict(zip(METHODS, lab.best(*({**arm, **changes} for arm in METHODS.values()))))
        rows += [(f"{name}, {label}", one, gap(one, best["DiLoCo"])) for name, one in best.items()]
        found[label] = best
    sync, stale, sgd, remedy, waiting = found["kept"].values()
    claims = [
        own("with moments kept, async DiLoCo is worse than DiLoCo", "gap, %", gap(stale, sync), ">", 0),
        own("with moments kept, async SGD is worse than DiLoCo", "gap, %", gap(sgd, sync), ">", 0),
        own("with moments kept, DN + DyLU is no worse than DiLoCo", "gap, % (bound: 2)", gap(remedy, sync), "<", 2),
        own("with moments kept, DiLoCo + DyLU is better than DN + DyLU", "gap, %", gap(waiting, remedy), "<", 0),
        own("DiLoCo is better with moments kept", "gap, %", gap(sync, found["discarded"]["DiLoCo"]), "<", 0),
    ]
    notes = [
        f"Gaps are to DiLoCo that treats its moments alike. With moments kept the inner rate is {chosen:g}, DiLoCo's "
        f"best of {', '.join(f'{rate:g}' for rate in rates)}; with moments discarded it is the preset's, {usual:g}."
    ]
    return Answer("Ablation: inner moments", claims, rows, notes)
