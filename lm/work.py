"""A language-model run as real workers and their server compute it: `Work` of `toybench.transports`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from lm.assemble import assemble, corpus_of
from lm.config import CHOICES
from lm.placement import Placement
from lm.start import read_start
from lm.task import LanguageTask
from lm.train import Training
from toybench.config import ConfigError, Run
from toybench.engine import seed_keys
from toybench.inner import InnerOptimizer, local_update
from toybench.loading import dump_run, load_run
from toybench.outer import OuterOptimizer
from toybench.scheduler import Visit
from toybench.task import Params
from toybench.transports.work import SPREAD, Recipe


def text_recipe(run: Run, seed: int, init: str | None = None) -> Recipe:
    """The recipe of a language-model run. Its data, and what it starts from, lie on every machine at the same place."""
    return Recipe("lm.work:text_work", {"run": dump_run(run, CHOICES), "seed": seed, "init": init})


def text_work(told: dict[str, Any]) -> TextWork:
    """The work of `text_recipe`.

    Raises:
        ConfigError: data, or what it starts from, are not there or do not fit; or devices do not divide the batch.
    """
    run, init = load_run(told["run"], CHOICES), told["init"]
    devices = len(jax.local_devices()) if told.get(SPREAD) else 1
    check_parts(run, devices)
    corpus = corpus_of(run)
    start = None if init is None else read_start(init, LanguageTask(run.task, corpus))[0]
    return TextWork(assemble(corpus, run, told["seed"], 1, start, Placement(data=devices)))


def check_parts(run: Run, devices: int) -> None:
    """Whether the batch of a visit can be split over the devices of a worker.

    Raises:
        ConfigError: it cannot.
    """
    if run.task.batch % devices:
        raise ConfigError("task.batch", f"must be a multiple of a worker's {devices} devices, got {run.task.batch}")


@dataclass(frozen=True)
class TextWork:
    """A language-model run, one visit at a time; the batch is split over the devices of its training's placement."""

    training: Training

    @property
    def run(self) -> Run:
        return self.training.run

    @property
    def seed(self) -> int:
        return self.training.seed

    @property
    def inner(self) -> InnerOptimizer:
        return self.training.inner

    @property
    def outer(self) -> OuterOptimizer:
        return self.training.outer

    def init(self) -> Params:
        start = self.training.start
        return self.training.task.init(seed_keys(jax.random.key(self.seed))[1]) if start is None else start

    @cached_property
    def _visit(self):
        task, inner = self.training.task, self.inner

        @jax.jit
        def visit(start, inner_state, batches, first_step, num_steps):
            return local_update(task, inner, start, inner_state, lambda j: batches[j], first_step, num_steps)

        return visit

    def visit(self, start: Params, inner_state: Any, visit: Visit) -> tuple[Params, Any, jax.Array]:
        """Local steps on a shard's text; one program for visits of any number of steps up to H."""
        model, most = self.run.task, self.run.cluster.local_steps
        taken = self.training.corpus.batches(
            visit.shard, visit.first_step, visit.num_steps, model.batch, model.sequence
        )
        batches = np.concatenate([taken, np.repeat(taken[-1:], most - len(taken), 0)])
        (first, num), mesh = np.array([[visit.first_step], [visit.num_steps]], np.int32), self.training.mesh
        if mesh.alone:
            return self._visit(start, inner_state, batches, first[0], num[0])
        start, inner_state, batches = mesh.lay([start]), mesh.lay([inner_state]), mesh.lay_batches(batches[None])
        found = self.training.programs.visit(start, inner_state, batches, first, num, num[0])
        return mesh.split(found)[0]  # on the first device

    @cached_property
    def _evaluate(self):
        return jax.jit(self.training.task.evaluate)

    def evaluate(self, params: Params) -> dict[str, float]:
        return {name: float(value) for name, value in self._evaluate(params, self.training.held_out).items()}
