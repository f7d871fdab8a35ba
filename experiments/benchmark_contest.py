"""What does a contest of short language-model runs gain by sharing compiled programs between its runs?

Command:  python -m experiments.benchmark_contest [--runs N]
Duration: one to three minutes on two cores.

Runs of the test's twin (two rounds, four workers with DyLU, waves of two) that differ in their outer rate, into a new
store without checkpoints: by turns with programs shared, and forgotten before every run, as it was before
they were. Prints seconds a run of both, and their ratio; programs kept on the disk serve both alike.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import jax

from lm import programs
from lm.config import TWIN
from lm.contest import Contest
from lm.loop import as_record
from toybench.config import Budget, Cluster, InnerAdamW, Run
from toybench.outer import METHODS
from toybench.runtime import configure
from toybench.store import Store

RUN = Run(
    TWIN,
    Cluster(local_steps=12, dynamic_steps=True),
    InnerAdamW(lr=1e-2),
    METHODS["delayed_nesterov"].settings(lr=0.1),
    Budget(rounds=2, evaluations=2),
)


def seconds_a_run(folder: Path, rates: list[float], shared: bool) -> float:
    """Mean over some rates, after one run that warms up."""
    with Store(str(folder / f"{shared}-{rates[0]}.sqlite")) as store:
        contest = Contest(store, None, lanes=2)
        contest.measure([as_record(RUN)], [1])
        began = time.perf_counter()
        for lr in rates:
            if not shared:
                programs._programs.cache_clear()
                programs.arrival_program.cache_clear()
                jax.clear_caches()
            contest.measure([as_record(replace(RUN, outer=replace(RUN.outer, lr=lr)))], [0])
        return (time.perf_counter() - began) / len(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time short runs of a contest.")
    parser.add_argument("--runs", type=int, default=4, help="of each kind, in each of two turns (default: 4)")
    count = parser.parse_args().runs
    configure()
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(2):
            rates = [0.05 * (1 + turn + i / count) for i in range(count)]
            together, apart = (seconds_a_run(Path(folder), rates, shared) for shared in (True, False))
            print(f"shared {together:.2f} s a run, apart {apart:.2f} s: {apart / together:.1f} times", flush=True)


if __name__ == "__main__":
    main()
