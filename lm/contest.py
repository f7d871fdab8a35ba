"""Runs of a contest between outer methods, each trained once into a store: what `toybench.leaderboard` measures by."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from lm.assemble import assemble, corpus_of, placed
from lm.checkpoint import Checkpoints
from lm.config import CHOICES
from lm.loop import Progress, carry_out, curves_of
from lm.maker import maker_of
from lm.placement import Placement
from lm.train import NotFinite, Point, Training
from toybench.config import Run
from toybench.curves import Curves
from toybench.database import canonical
from toybench.loading import dump_run, load_run
from toybench.records import commit
from toybench.store import Store

Among = tuple[Placement, str]  # how a run is placed, and where its data lie


@dataclass(frozen=True)
class Contest:
    """What its runs share.

    Args:
        store: of finished runs.
        folder: for checkpoints of those that are not; theirs are removed when they are. None where runs are so short
            that they are better begun again.
        lanes: visits computed side by side.
        start: initial parameters of all runs, instead of a seed's own.
        every: seconds between checkpoints.
    """

    store: Store
    folder: Path | None
    lanes: int = 1
    start: Any = None
    every: float = 600.0
    _makers: dict[Among, dict[str, str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def measure(
        self,
        runs: Sequence[Run],
        seeds: Sequence[int],
        report: Callable[[Run, int, Progress], None] = lambda run, seed, progress: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> list[Curves]:
        """The curves of every run on every seed: from the store where it has them, else trained into it.

        Args:
            runs: of a language model, as the store keeps them (`lm.loop.as_record`).
            seeds: of every run.
            report: called after each arrival.
            stop: asked after each arrival.

        Raises:
            Stopped: `stop` said so; the same call goes on.
            ConfigError: data that are not there or do not fit, or a store that cannot be written.
        """
        return [self._curves(run, seeds, report, stop) for run in runs]

    def _curves(self, run: Run, seeds: Sequence[int], report: Callable, stop: Callable) -> Curves:
        for seed in seeds:
            if self.lacking(run, [seed]):
                training = self.training(run, seed)
                curves, seconds = self._carry_out(training, lambda p, seed=seed: report(run, seed, p), stop)
                self.store.add([curves], self.maker(run), seconds=seconds, commit=commit())
        return self.store.curves(run, seeds, self.maker(run))

    def lacking(self, run: Run, seeds: Sequence[int]) -> list[int]:
        """The seeds on which a run is still to be trained."""
        present = self.store.present(run, self.maker(run))
        return [seed for seed in seeds if seed not in present]

    def maker(self, run: Run) -> dict[str, str]:
        """Who makes a run: the same for all that are placed alike on the same data, and not told anew."""
        own = load_run(dump_run(run), CHOICES)
        among = placed(own, self.lanes), own.task.data
        if among not in self._makers:
            self._makers[among] = maker_of(self.training(run, 0))  # which reads all of `start`
        return self._makers[among]

    def training(self, run: Run, seed: int) -> Training:
        """A run of the store, ready to be trained."""
        own = load_run(dump_run(run), CHOICES)
        return assemble(corpus_of(own), own, seed, self.lanes, self.start, placed(own, self.lanes))

    def _carry_out(self, training: Training, report: Callable, stop: Callable) -> tuple[Curves, float]:
        if self.folder is None:
            return _finished(training, None, self.every, report, stop)
        name = canonical([dump_run(training.run, CHOICES), training.seed, maker_of(training)])
        folder = self.folder / hashlib.sha256(name.encode()).hexdigest()[:16]
        checkpoints = Checkpoints(folder, training, keep=1)
        try:
            found = _finished(training, checkpoints, self.every, report, stop)
        finally:
            checkpoints.close()
        shutil.rmtree(folder, ignore_errors=True)
        jax.clear_caches()  # a hundred runs' programs would fill the memory; those on the disk are soon loaded
        return found


def _finished(
    training: Training, checkpoints: Checkpoints | None, every: float, report: Callable, stop: Callable
) -> tuple[Curves, float]:
    """A run's curves and seconds; of one that lost itself what `lost` says."""
    try:
        done = carry_out(training, checkpoints, resume=True, every=every, report=report, stop=stop)
        return done.curves, done.seconds
    except NotFinite:
        return lost(training), 0.0


def lost(training: Training) -> Curves:
    """The curves of a run whose loss was no number somewhere: it is known where it began, and that is all."""
    timeline = training.timeline
    begin = training.evaluate(training.begin())
    nothing = dict.fromkeys(begin, float("nan"))
    after = [
        Point(e, int(timeline.local_steps[e - 1]), float(timeline.time[e - 1]), nothing)
        for e in sorted(training.evaluate_after)
    ]
    return curves_of(training, [Point(0, 0, 0.0, begin), *after])
