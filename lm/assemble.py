"""A language-model run made ready: its data opened, checked and dealt to shards."""

from __future__ import annotations

import jax
import numpy as np

from lm.config import LanguageModel
from lm.data import Corpus
from lm.fitting import Plan, check_fits, this_machine
from lm.placement import DEFAULT, Placement, place
from lm.task import DEALT, LanguageTask, check_count
from lm.train import Training
from toybench.config import Run
from toybench.task import Params


def corpus_of(run: Run) -> Corpus:
    """The data of a run.

    Raises:
        ConfigError: they are not there, or the model knows fewer tokens.
    """
    model: LanguageModel = run.task
    return Corpus.open(model.data, model.vocabulary)


def placed(
    run: Run, lanes: int = 1, mesh: str | None = None, snapshots: str = "device", dtype: str = "float32"
) -> Placement:
    """How a run is laid out on this machine; the arguments are those of `lm.placement.place`.

    Raises:
        ConfigError: it cannot be laid out so, or does not fit.
    """
    devices, machine = len(jax.local_devices()), this_machine()
    # The cores of a CPU are devices only if asked: one device uses them all.
    mesh = "1x1" if mesh is None and machine.backend == "cpu" else mesh
    found = place(mesh, lanes, run.task.batch, devices, snapshots, dtype)
    check_fits(Plan(run, lanes, found), machine)
    return found


def assemble(
    corpus: Corpus, run: Run, seed: int, lanes: int = 1, start: Params | None = None, placement: Placement = DEFAULT
) -> Training:
    """A run on one seed, ready to be trained.

    Args:
        corpus: of the run, from `corpus_of`.
        run: its settings.
        seed: of initial parameters and of the order of the data.
        lanes: visits computed side by side.
        start: initial parameters, instead of the seed's own.
        placement: how it is laid out, from `placed`.

    Raises:
        ConfigError: data that do not fit.
    """
    model: LanguageModel = run.task
    task = LanguageTask(model, corpus)
    shards = corpus.split(run.cluster.num_shards, model.partition, DEALT).ordered(task.order(seed))
    check_count(model, shards.count(model.sequence))
    held_out = np.uint32(0), {"held_out": corpus.held_out(model.held_out, model.sequence)}
    return Training(run, seed, task, shards, held_out, lanes, start, placement)
