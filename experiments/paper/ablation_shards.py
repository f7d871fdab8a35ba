"""Does the choice of the shard matter: Eq. 2's draw against the least visited? And shards that are not iid?

Command:  python -m experiments.paper --only ablation_shards
Duration: a minute and a half on two cores.
Paper:    its language models draw by Eq. 2, its notebook takes the least visited; no comparison is given.
Found:    no difference, but for DN + DyLU on shards that hold different clusters: least visited costs 5.5 %.
          (experiments/records/paper/report.md)
"""

from experiments.paper.lab import ASYNC_NESTEROV, DN_DYLU, SYNC_NESTEROV, Answer, Lab, Row, gap, own

CASES = {"async": ASYNC_NESTEROV, "DN + DyLU": DN_DYLU}


def answer(lab: Lab) -> Answer:
    claims, rows = [], list[Row]()
    for partition in ("iid", "clusters"):
        apart = {"task.partition": partition}
        least_visited = {**apart, "cluster.sharding": "least_visited"}
        arms = ({**changes, **rule} for changes in CASES.values() for rule in (apart, least_visited))
        sync, *best = lab.best({**SYNC_NESTEROV, **apart}, *arms)
        rows.append((f"DiLoCo, {partition}", sync, None))
        for name, drawn, least in zip(CASES, best[::2], best[1::2]):
            change = gap(least, drawn)
            claims.append(
                own(
                    f"{name}, {partition}: least visited is no worse",
                    "gap to Eq. 2, % (no worse: below 2)",
                    change,
                    "<",
                    2,
                )
            )
            rows += [(f"{name}, {partition}, Eq. 2", drawn, gap(drawn, sync))]
            rows += [(f"{name}, {partition}, least visited", least, gap(least, sync))]
    notes = ["Partition 'clusters': every shard has all classes, but of each class other clusters."]
    return Answer("Ablation: which shard next", claims, rows, notes)
