"""Does DN + DyLU match DiLoCo per local step, and is it far ahead per unit of time?

Command:  python -m experiments.paper --only figure_02
Duration: one minute on two cores.
Paper:    Fig. 2: it does, and it is.
Found:    it matches DiLoCo and more (-2.1 %); it is ahead in time, by how much is undecided (0.37 [0.18,
          0.55]).
          (experiments/records/paper/report.md)
"""

from experiments.paper.lab import (
    ASYNC_NESTEROV,
    DN_DYLU,
    SYNC_NESTEROV,
    Answer,
    Claim,
    Lab,
    Row,
    closes,
    gap,
    time_share,
)


def answer(lab: Lab) -> Answer:
    sync, stale, remedy = lab.best(SYNC_NESTEROV, ASYNC_NESTEROV, DN_DYLU)
    claims = [
        closes("DN + DyLU", remedy, stale, sync),
        Claim(
            "DN + DyLU is far ahead of DiLoCo per unit of time",
            "time to DiLoCo's final loss, as a share of DiLoCo's (agrees below one half)",
            time_share(remedy, sync),
            "<",
            0.5,
        ),
        Claim("async DiLoCo is behind DiLoCo at equal local steps", "gap, %", gap(stale, sync), ">", 0),
    ]
    rows: list[Row] = [
        ("DiLoCo", sync, None),
        ("async DiLoCo", stale, gap(stale, sync)),
        ("DN + DyLU", remedy, gap(remedy, sync)),
    ]
    return Answer("Fig. 2: DN + DyLU against DiLoCo", claims, rows, curves=("DiLoCo", "async DiLoCo", "DN + DyLU"))
