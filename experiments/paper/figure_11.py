"""Do the findings hold with more workers, and does c matter?

Command:  python -m experiments.paper --only figure_11
Duration: four minutes on two cores.
Paper:    Fig. 11, Tables 2 and 4: with 4, 8 and 16 workers async DiLoCo is behind, and DN + DyLU is with DiLoCo, at
          c = 0 and at c = 0.1.
Found:    async DiLoCo is 22 % behind with 4, 8 and 16; DN + DyLU stays with DiLoCo with 4 only; c = 0.1
          costs with 8 and 16.
          (experiments/records/paper/report.md)
"""

from experiments.paper.lab import ASYNC_NESTEROV, DN_DYLU, SYNC_NESTEROV, Answer, Claim, Lab, Row, closes, gap
from toybench.clusters import sec_per_step


def answer(lab: Lab) -> Answer:
    claims, rows = [], list[Row]()
    for workers in (4, 8, 16):
        speeds = {"cluster.sec_per_step": sec_per_step(workers, "very")}
        methods = (SYNC_NESTEROV, ASYNC_NESTEROV, DN_DYLU, {**DN_DYLU, "outer.activation": 0.1})
        sync, stale, remedy, active = lab.best(*({**changes, **speeds} for changes in methods))
        claims += [
            Claim(f"k = {workers}: async DiLoCo is worse than DiLoCo", "gap, %", gap(stale, sync), ">", 0),
            closes(f"k = {workers}: DN + DyLU", remedy, stale, sync),
            Claim(
                f"k = {workers}: c = 0.1 is no worse",
                "gap to c = 0, % (bound: 2)",
                gap(active, remedy),
                "<",
                2,
            ),
        ]
        rows += [(f"DiLoCo, k = {workers}", sync, None), (f"async, k = {workers}", stale, gap(stale, sync))]
        rows += [(f"DN + DyLU, k = {workers}", remedy, gap(remedy, sync))]
        rows += [(f"DN + DyLU, c = 0.1, k = {workers}", active, gap(active, sync))]
    notes = [
        "Gaps are to DiLoCo with as many workers. Local steps per worker are the same for every k, as in the paper."
    ]
    return Answer("Fig. 11, Tables 2 and 4: workers", claims, rows, notes)
