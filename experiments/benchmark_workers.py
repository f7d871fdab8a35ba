"""Do two real workers on two cores make more local steps than one? Processes of Ray, one thread of XLA's each.

Command:  python -m experiments.benchmark_workers [--repeats 3]
Duration: about a minute a repeat on two cores.

The default small language model, asynchronous, H = 50, as fast as the machine is. Local steps a second are those
between the first arrival and the last, so that starting and compiling do not count; the server and its journal do.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

from lm.config import default_arms
from lm.work import text_recipe
from toybench.config import Budget, Cluster
from toybench.runtime import configure
from toybench.transports.drive import Engine, carry_out
from toybench.transports.messages import Rules
from toybench.transports.results import read_real

STEPS = 2000  # of all workers


def steps_a_second(workers: int) -> float:
    """Of so many workers."""
    base = default_arms()["dn_dylu"]
    cluster = Cluster(sec_per_step=(1.0,) * workers, local_steps=50)
    run = replace(base, cluster=cluster, budget=Budget(rounds=STEPS // (50 * workers), evaluations=1))
    with tempfile.TemporaryDirectory() as folder:
        carry_out(text_recipe(run, 0), Engine("ray", Rules(every=1e9)), Path(folder))
        timeline = read_real(Path(folder)).timeline
    return float(timeline.num_steps[1:].sum() / (timeline.time[-1] - timeline.time[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    configure()
    pairs = []
    for n in range(arguments.repeats):  # by turns, for machines are not always as fast
        one, two = steps_a_second(1), steps_a_second(2)
        pairs.append((one, two))
        print(f"{n + 1}: one worker {one:.1f} local steps/s, two {two:.1f}, {two / one:.2f} times", flush=True)
    print(f"median {median(two / one for one, two in pairs):.2f} times")


if __name__ == "__main__":
    main()
