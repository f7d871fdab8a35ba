"""What a confirmation campaign is: methods, model, and how long runs are in the time there is. No jax here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lm.config import PYTHON, SIZES, TWIN, LanguageModel
from toybench.clusters import cluster
from toybench.config import Budget, Cluster, InnerAdamW, Run
from toybench.leaderboard import REFERENCE, Contestant, contestants
from toybench.outer import METHODS

# The methods of experiments/c4_visits.toml, the telling ones first: what is not reached in time is at the end.
EVERY = (
    *("nesterov", "sgd", "delayed_nesterov + DyLU", "ormo + DyLU", "heloco + DyLU", "sync sgd", "mla"),
    *("delayed_nesterov", "buffered", "poly", "heloco", "ormo", "mla + DyLU", "nesterov + DyLU", "sgd + DyLU"),
    *("buffered + DyLU", "halos", "ringmaster", "fedbuff", "delay_adaptive", "autocorrelation"),
    *("restarted_nesterov", "nesterov, quorum 2", "fedasync", "momentum"),
)
MATTER = EVERY[:6]
SCRATCH = MATTER[:3]
TUNING, REPORTED = (1000,), (200, 201)
START = 0.4  # the outer rate in the middle of the first three
RUNS = {True: 8, False: 6}  # that a method is expected to take, with half octaves or without; two of them reported
HEADROOM = 0.75  # of the time that is planned for runs; the rest is compiling, evaluating, waiting
PRETRAINING = 0.15  # of a campaign's time
LOCAL_STEPS, GRACE = 50, 0.5 / 60  # H; the toy's grace period, seconds to one of its 60 local steps
ROUNDS, FEWEST = 33, 4  # of a run: the toy's number if there is time, and at least
BATCHES = (32, 16, 8)  # sequences


@dataclass(frozen=True)
class Campaign:
    """One confirmation.

    Args:
        size: of `lm.config.SIZES`.
        boards: by name: workers, whether from the checkpoint, and methods beside the reference.
        lanes: visits computed side by side.
        lr: of the inner AdamW: DiLoCo's 4e-4, and 1e-3 for the smallest model.
        halves: rates half an octave apart around the best; else whole octaves.
        seconds: that all calls together may take unless told otherwise.
        starts: the part whose checkpoint it begins from, if not its own.
    """

    size: str
    boards: Mapping[str, tuple[int, bool, Sequence[str]]]
    lanes: int
    lr: float
    halves: bool
    seconds: float
    starts: str | None = None


CAMPAIGNS = {
    "confirm-20m": Campaign("20m", {"very-4": (4, True, EVERY)}, 4, 1e-3, True, 1200),
    "confirm-workers": Campaign(
        "20m", {"very-8": (8, True, MATTER), "very-16": (16, True, MATTER)}, 8, 1e-3, False, 800, "confirm-20m"
    ),
    "confirm-60m": Campaign(
        "60m", {"very-4": (4, True, MATTER), "very-4-scratch": (4, False, SCRATCH)}, 4, 4e-4, False, 400
    ),
    "confirm-150m": Campaign(
        "150m", {"very-4": (4, True, SCRATCH), "very-4-scratch": (4, False, SCRATCH)}, 4, 4e-4, False, 400
    ),
}


def shrunken(campaign: Campaign) -> Campaign:
    """The same for a test: two methods a board."""
    boards = {name: (workers, started, who[:1]) for name, (workers, started, who) in campaign.boards.items()}
    return replace(campaign, boards=boards, lanes=2, lr=1e-2, halves=False)


def model_of(campaign: Campaign, data: str | None, small: bool) -> LanguageModel:
    """The campaign's model on its data; a test's twin if small."""
    model = TWIN if small else SIZES[campaign.size].model
    return replace(model, data=PYTHON if data is None else data)


def base_run(campaign: Campaign, model: LanguageModel, workers: int, rounds: int, local_steps: int) -> Run:
    """A run of the campaign before it has a method: the toy's very heterogeneous cluster.

    Its grace period is in proportion to the visits, so that without DyLU the toy's board has the same arrivals one for
    one; with DyLU too where the visits have the toy's 60 steps.
    """
    seconds = tuple(cluster(workers, "very")["cluster.sec_per_step"])
    where = Cluster(sec_per_step=seconds, local_steps=local_steps, grace=GRACE * local_steps)
    inner = InnerAdamW(lr=campaign.lr, final_lr=campaign.lr / 100, warmup=20, weight_decay=0.1)
    return Run(model, where, inner, METHODS["nesterov"].settings(lr=START), Budget(rounds=rounds, evaluations=3))


def pretraining(base: Run, rounds: int) -> Run:
    """One worker at a constant inner rate, its steps taken as they are; four times the batch of a visit."""
    alone = Cluster(sec_per_step=(1.0,), local_steps=base.cluster.local_steps, grace=0.0, barrier=True)
    inner = replace(base.inner, final_lr=base.inner.lr, warmup=min(100, rounds * alone.local_steps // 2))
    model = replace(base.task, batch=4 * base.task.batch)
    return Run(model, alone, inner, METHODS["sgd"].settings(lr=1.0), Budget(rounds=rounds, evaluations=1))


def who_of(names: Sequence[str]) -> dict[str, Contestant]:
    """The reference and these methods; what else a method has stays at its published default."""
    known = contestants()
    return {name: known[name]._replace(also=({},)) for name in (REFERENCE, *names)}


def planned(
    campaign: Campaign, pace: Mapping[int, float], seconds: float, sequence: int, local_steps: int = LOCAL_STEPS
) -> dict[str, Any]:
    """How long runs are, and what of: from the measured speed and the time given.

    The largest batch with which runs of the toy's number of rounds fit; with the smallest, fewer rounds.

    Args:
        campaign: what is run.
        pace: sequences of a batch -> tokens a second of a wave of visits.
        seconds: of all calls together.
        sequence: tokens of a sequence.
        local_steps: H.
    """
    methods = {name: 1 + len(who) for name, (_, _, who) in campaign.boards.items()}
    # Visits a round are as many as workers, whatever their number.
    runs = sum(count * RUNS[campaign.halves] * campaign.boards[name][0] / 4 for name, count in methods.items())
    each = seconds * (1 - PRETRAINING) * HEADROOM / runs  # seconds of a run of four workers

    def rounds(batch: int) -> int:
        return int(each * pace[batch] / (4 * local_steps * batch * sequence))

    batch = next((b for b in sorted(pace, reverse=True) if rounds(b) >= ROUNDS), min(pace))
    count = max(min(rounds(batch), ROUNDS), FEWEST)
    speed = pace[batch]
    steps = seconds * PRETRAINING * HEADROOM * speed / (4 * batch * sequence)
    return {
        "seconds": seconds,
        "runs": runs,
        "run_seconds": 4 * count * local_steps * batch * sequence / speed,
        "batch": batch,
        "rounds": count,
        "tokens": 4 * count * local_steps * batch * sequence,
        "pretraining_rounds": max(int(steps / local_steps), 1),
    }
