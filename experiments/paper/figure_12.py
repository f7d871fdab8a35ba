"""Do the findings hold for larger models, where the toy's only size is its hidden width?

Command:  python -m experiments.paper --only figure_12
Duration: four minutes on two cores.
Paper:    Fig. 12, Table 3: from 20M to 150M parameters async DiLoCo stays behind, by less; DN + DyLU stays with DiLoCo.
Found:    behind at every width, by more with more units; DN + DyLU closes the gap from 16 units on.
          (experiments/records/paper/report.md)
"""

from experiments.paper.lab import ASYNC_NESTEROV, DN_DYLU, SYNC_NESTEROV, Answer, Claim, Lab, Row, closes, gap
from toybench.statistics import interval, relative_gap

WIDTHS = (8, 16, 32, 64)


def answer(lab: Lab) -> Answer:
    claims, rows, gaps = [], list[Row](), {}
    for width in WIDTHS:
        scale = lab.base.task.output_scale * lab.base.task.hidden / width  # keeps the function step
        size = {"task.hidden": width, "task.output_scale": float(f"{scale:.4g}")}
        methods = (SYNC_NESTEROV, ASYNC_NESTEROV, DN_DYLU)
        sync, stale, remedy = lab.best(*({**changes, **size} for changes in methods))
        gaps[width] = relative_gap(stale.loss, sync.loss)
        claims += [
            Claim(f"{width} units: async DiLoCo is worse than DiLoCo", "gap, %", gap(stale, sync), ">", 0),
            closes(f"{width} units: DN + DyLU", remedy, stale, sync),
        ]
        rows += [(f"DiLoCo, {width}", sync, None), (f"async, {width}", stale, gap(stale, sync))]
        rows += [(f"DN + DyLU, {width}", remedy, gap(remedy, sync))]
    wider = interval(gaps[WIDTHS[-1]] - gaps[WIDTHS[0]])
    ours = f"gap at {WIDTHS[-1]} units less that at {WIDTHS[0]}, %"
    claims.append(Claim("async DiLoCo's gap is smaller for larger models", ours, wider, "<", 0))
    return Answer("Fig. 12, Table 3: hidden units instead of model size", claims, rows)
