"""Is momentum what asynchronous training loses?

Command:  python -m experiments.paper --only figure_06
Duration: half a minute after figure_02 on two cores.
Paper:    Fig. 6: without outer momentum async beats sync; with Nesterov sync beats async; the gain from momentum is far
          larger synchronously. (Fig. 9 shows two of these on the toy, at the notebook's rates: figure_09.)
Found:    all three: -3.0 %, +22 %, 0.21 nats.
          (experiments/records/paper/report.md)
"""

from experiments.paper.lab import (
    ASYNC_NESTEROV,
    ASYNC_SGD,
    SYNC_NESTEROV,
    SYNC_SGD,
    Answer,
    Claim,
    Lab,
    Row,
    gap,
)
from toybench.statistics import interval


def answer(lab: Lab) -> Answer:
    sync, stale, sync_sgd, async_sgd = lab.best(SYNC_NESTEROV, ASYNC_NESTEROV, SYNC_SGD, ASYNC_SGD)
    gains = (sync_sgd.loss - sync.loss) - (async_sgd.loss - stale.loss)
    claims = [
        Claim("outer SGD: async beats sync", "gap of async to sync, %", gap(async_sgd, sync_sgd), "<", 0),
        Claim("outer Nesterov: sync beats async", "gap of async to sync, %", gap(stale, sync), ">", 0),
        Claim("the gain from momentum is larger synchronously", "difference of gains, nats", interval(gains), ">", 0),
    ]
    rows: list[Row] = [
        ("sync Nesterov", sync, None),
        ("async Nesterov", stale, gap(stale, sync)),
        ("sync SGD", sync_sgd, gap(sync_sgd, sync)),
        ("async SGD", async_sgd, gap(async_sgd, sync)),
    ]
    return Answer("Fig. 6: with and without outer momentum", claims, rows)
