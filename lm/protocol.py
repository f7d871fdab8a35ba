"""The paper's phases without local-SGD, as runs of one worker whose outer step changes nothing: plain training.

Outer SGD of rate 1 takes the server to where its one worker is, so that the same loop, checkpoints and records do.
No jax here.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

from toybench.config import LARGEST, Cluster, ConfigError, ConfigWarning, Run
from toybench.outer import METHODS

CUTS = 10_000  # visits, beyond which steps are rounded down to whole ones of the run's H
VISITS = 100_000  # at most: a timeline of them takes seconds


def pretraining(run: Run, steps: int) -> Run:
    """So many steps of the run's inner optimizer with a cosine of their own, on its fastest worker and all data.

    A visit only cuts the training: it has the most steps that divide `steps`, but no more than the run's H. If those
    are so few that there are more than `CUTS` visits, a visit has H, and the steps are rounded down to a multiple of
    it, which is warned of.

    Raises:
        ConfigError: fewer than a step, or more than can be.
    """
    most = run.cluster.local_steps
    if not 1 <= steps < LARGEST:
        raise ConfigError("steps", f"must be >= 1 and < {LARGEST}, got {steps}")
    if -(-steps // most) > VISITS:
        said = f"must be <= {VISITS * most}, {VISITS} visits of cluster.local_steps {most}, got {steps}"
        raise ConfigError("steps", said)
    visit = next(n for n in range(min(most, steps), 0, -1) if steps % n == 0)
    if steps // visit > CUTS and visit < most:
        visit, asked = most, steps
        steps -= steps % visit
        said = f"steps: {asked} are no whole visits of cluster.local_steps {visit}: {steps} are trained"
        warnings.warn(said, ConfigWarning, stacklevel=2)
    budget = replace(run.budget, rounds=steps // visit)
    return replace(_plain(run, min(run.cluster.sec_per_step), visit), budget=budget)


def finetuning(run: Run, times: int) -> Run:
    """The baseline "finetune, k× batch": a run's steps with `times` its batch, which its workers share.

    A step takes as long as the slowest worker's part of it, one over k.

    Raises:
        ConfigError: less than once the batch.
    """
    if times < 1:
        raise ConfigError("finetune", f"must be >= 1, got {times}")
    cluster: Cluster = run.cluster
    seconds = max(cluster.sec_per_step) * times / cluster.workers
    task: Any = run.task
    return replace(_plain(run, seconds, cluster.local_steps), task=replace(task, batch=task.batch * times))


def _plain(run: Run, seconds: float, visit: int) -> Run:
    # What a visit is must not matter: moments go on, and so does the rate.
    inner = replace(run.inner, decay_steps=None, reset=False, first_step_peak=False)
    cluster = Cluster(sec_per_step=(seconds,), local_steps=visit)
    return replace(run, cluster=cluster, inner=inner, outer=METHODS["sgd"].settings(lr=1.0))
