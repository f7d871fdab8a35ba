"""Is stale momentum a matter of its coefficient: which β does each method want, and what is left of the gap there?

Command:  python -m experiments.paper --only ablation_momentum
Duration: twelve minutes of a core.
Paper:    β = 0.9 throughout.
Found:    async DiLoCo wants 0.8: its gap there is 11 %, not 22, and it ends below SGD. DN + DyLU wants 0.8 too and then
          ends 5 % below DiLoCo, not told apart from DiLoCo with DyLU.
          (experiments/records/paper/report.md)
"""

from experiments.paper.lab import ASYNC_NESTEROV, DN_DYLU, SYNC_DYLU, SYNC_NESTEROV, Answer, Best, Lab, Row, gap, own
from toybench.outer.sgd import Nesterov

BETAS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
METHODS = {
    "DiLoCo": SYNC_NESTEROV,
    "async DiLoCo": ASYNC_NESTEROV,
    "DN + DyLU": DN_DYLU,
    "DiLoCo + DyLU": SYNC_DYLU,
}


def answer(lab: Lab) -> Answer:
    base: Nesterov = lab.base.outer  # type: ignore[assignment] of every preset
    betas = sorted({*lab.some(BETAS), base.momentum})
    arms = {(name, beta): {**arm, "outer.momentum": beta} for name, arm in METHODS.items() for beta in betas}
    found = dict(zip(arms, lab.best(*arms.values())))
    tried = {name: {beta: found[name, beta] for beta in betas} for name in METHODS}
    wanted = {name: min(betas, key=lambda beta: own[beta].tuning.loss) for name, own in tried.items()}
    best: dict[str, Best] = {name: tried[name][beta] for name, beta in wanted.items()}
    sync, stale, remedy, waiting = best.values()
    usual, without = (tried["async DiLoCo"][beta] for beta in (base.momentum, 0.0))
    claims = [
        own("async DiLoCo ends lower at its best β than at the usual one", "gap, %", gap(stale, usual), "<", 0),
        own("async DiLoCo ends lower at its best β than at 0, as SGD", "gap, %", gap(stale, without), "<", 0),
        own("each at its best β, async DiLoCo is worse than DiLoCo", "gap, %", gap(stale, sync), ">", 0),
        own("each at its best β, DN + DyLU is no worse than DiLoCo", "gap, % (bound: 2)", gap(remedy, sync), "<", 2),
        own("each at its best β, DiLoCo + DyLU is better than DN + DyLU", "gap, %", gap(waiting, remedy), "<", 0),
    ]
    rows: list[Row] = [(f"{name}, β = {beta:g}", one, gap(one, sync)) for (name, beta), one in found.items()]
    said = ", ".join(f"{name} {beta:g}" for name, beta in wanted.items())
    notes = [
        f"Best β, by the tuning seeds: {said}. Gaps are to DiLoCo at its own best. At β = 0 Nesterov's method is SGD.",
    ]
    return Answer("Ablation: outer momentum", claims, rows, notes, against=("outer momentum β", tried))
