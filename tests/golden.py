"""Digests of timelines: what they were before a change is what they are after it."""

import hashlib
from itertools import product

import numpy as np

from toybench.clusters import CLUSTERS
from toybench.loading import overlay
from toybench.presets import load_preset, preset_names
from toybench.timeline import simulate

RULES = [
    {},
    {"cluster.grace": 0.0},
    {"cluster.barrier": True},
    {"cluster.dynamic_steps": True},
    {"cluster.dynamic_steps": True, "cluster.barrier": True},
    {"cluster.coalesce": True, "cluster.quorum": 2, "cluster.grace": 1.5},
    {"cluster.shards": 9, "cluster.dynamic_steps": True},
]


def digest_of(run):
    """Of the timelines of a run under all rules, both shardings, three seeds."""
    found = hashlib.sha256()
    for rule, sharding, seed in product(RULES, ("proportional", "least_visited"), (0, 1, 7)):
        own = overlay(run, rule | {"cluster.sharding": sharding, "budget.rounds": 25})
        for column in simulate(own.cluster, own.budget, seed):
            found.update(np.ascontiguousarray(column).tobytes())
    return found.hexdigest()[:16]


def digests():
    """Of every preset and every cluster of the leaderboard."""
    base = load_preset("default")
    runs = {name: load_preset(name) for name in preset_names()}
    runs |= {name: overlay(base, changes) for name, (_, changes) in CLUSTERS.items()}
    return {name: digest_of(run) for name, run in runs.items()}


if __name__ == "__main__":
    for name, digest in digests().items():
        print(f'    "{name}": "{digest}",')
