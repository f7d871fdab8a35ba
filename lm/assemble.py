"""A language-model run made ready: its data opened, checked and dealt to shards."""

from __future__ import annotations

import numpy as np

from lm.config import LanguageModel
from lm.data import Corpus
from lm.task import DEALT, LanguageTask
from lm.train import Training
from toybench.config import Run
from toybench.task import Params
from toybench.training import check_memory


def corpus_of(run: Run) -> Corpus:
    """The data of a run.

    Raises:
        ConfigError: they are not there, or the model knows fewer tokens.
    """
    model: LanguageModel = run.task
    return Corpus.open(model.data, model.vocabulary)


def assemble(corpus: Corpus, run: Run, seed: int, lanes: int = 1, start: Params | None = None) -> Training:
    """A run on one seed, ready to be trained.

    Args:
        corpus: of the run, from `corpus_of`.
        run: its settings.
        seed: of initial parameters and of the order of the data.
        lanes: visits computed side by side.
        start: initial parameters, instead of the seed's own.

    Raises:
        ConfigError: data that do not fit, or a model that does not fit the machine.
    """
    model: LanguageModel = run.task
    task = LanguageTask(model, corpus)
    check_memory(run, 1, 1, task)
    shards = corpus.split(run.cluster.num_shards, model.partition, DEALT).ordered(task.order(seed))
    held_out = np.uint32(0), {"held_out": corpus.held_out(model.held_out, model.sequence)}
    return Training(run, seed, task, shards, held_out, lanes, start)
