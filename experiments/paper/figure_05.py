"""Which inner and outer optimizers suit asynchronous local-SGD?

Command:  python -m experiments.paper --only figure_05
Duration: seven minutes on two cores.
Paper:    Fig. 5: AdamW + Nesterov is best; with AdamW inside, SGD, SGD with momentum and Nesterov outside are
          comparable, Adam outside is worse; SGD inside is worse.
Found:    AdamW inside, Nesterov or SGD outside; but SGD outside is better than Nesterov (-5.1 %), not worse.
          (experiments/records/paper/report.md)
"""

from experiments.paper.lab import ASYNC, Answer, Claim, Lab, Row, gap
from toybench.statistics import interval

OUTER = {"SGD": "sgd", "SGD-M": "momentum", "Adam": "adam", "Nesterov": "nesterov"}
INNER_SGD_RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)


def answer(lab: Lab) -> Answer:
    inner_rates = lab.some(INNER_SGD_RATES)
    outer = lab.best(*({**ASYNC, "outer.method": method} for method in OUTER.values()))
    best = {f"AdamW + {name}": one for name, one in zip(OUTER, outer)}
    for name in ("Adam", "Nesterov"):
        sgd = {**ASYNC, "inner.optimizer": "sgd", "inner.reset": True, "outer.method": OUTER[name]}
        tried = lab.best(*({**sgd, "inner.lr": lr} for lr in inner_rates))
        best[f"SGD + {name}"] = min(tried, key=lambda one: one.tuning.loss)
    winner, adam = best["AdamW + Nesterov"], best["AdamW + Adam"]
    gaps = {name: gap(one, winner) for name, one in best.items() if one is not winner}
    claims = [
        Claim(f"AdamW + Nesterov is better than {name}", "gap to AdamW + Nesterov, %", gaps[name], ">", 0)
        for name in ("SGD + Nesterov", "SGD + Adam", "AdamW + Adam")
    ]
    for name in ("SGD", "SGD-M"):
        one = best[f"AdamW + {name}"]
        apart = abs(one.loss - winner.loss) - (adam.loss - winner.loss) / 4
        ours = "distance to Nesterov, less a quarter of Adam's, %"
        claims.append(Claim(f"{name} outside is comparable", ours, interval(100 * apart / winner.loss), "<", 0))
        statement = f"Nesterov outside is slightly better than {name}"
        claims.append(Claim(statement, "gap to AdamW + Nesterov, %", gaps[f"AdamW + {name}"], ">", 0))
    rows: list[Row] = [(name, one, gaps.get(name)) for name, one in best.items()]
    inner = ", ".join(f"{best[f'SGD + {name}'].curves.run.inner.lr:g} under {name}" for name in ("Adam", "Nesterov"))
    notes = [f"Inner + outer. SGD inside at the best of {len(inner_rates)} inner rates, 3e-5 to 3e-3: {inner}."]
    return Answer("Fig. 5: inner and outer optimizers, asynchronously", claims, rows, notes)
