"""`LanguageTask`: next-token prediction behind the Task protocol, its tokens on the devices once for all seeds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from lm import model
from lm.config import LanguageModel, sequences_at_once
from lm.order import sequence_index
from toybench.config import ConfigError
from toybench.engine import seed_keys
from toybench.task import Batch, Data, Params


class Packed(Protocol):
    """Documents dealt to shards."""

    def packed(self, sequence: int) -> np.ndarray:
        """Training sequences [shards, n, sequence + 1], whole numbers."""
        ...


class Corpus(Protocol):
    """Tokens on the host. Hashable: equal corpora hold the same tokens. L is the length of a sequence."""

    @property
    def note(self) -> dict[str, Any]:
        """What tells the data and their tokenizer from others."""
        ...

    def split(self, shards: int, partition: str, seed: int) -> Packed:
        """The training documents over shards, in an order drawn by the seed."""
        ...

    def held_out(self, n: int, sequence: int) -> np.ndarray:
        """Sequences [n, L + 1] of documents that are not trained on."""
        ...


DEALT = 0  # the seed by which documents fall to shards, the same for all runs


@lru_cache(maxsize=4)
def _host_data(task: LanguageTask, shards: int) -> dict[str, np.ndarray]:
    s = task.settings
    found = {
        "tokens": task.corpus.split(shards, s.partition, DEALT).packed(s.sequence),
        "held_out": task.corpus.held_out(s.held_out, s.sequence),
    }
    most = max(int(tokens.max(initial=0)) for tokens in found.values())
    if most >= s.vocabulary:
        raise ConfigError("vocabulary", f"must be above the data's largest token, {most}, got {s.vocabulary}")
    if not len(found["tokens"][0]):
        raise ConfigError("data", f"too few tokens for {shards} shards of sequences of {s.sequence}")
    check_count(s, found["tokens"].shape[1])
    narrow = np.uint16 if s.vocabulary <= 2**16 else np.int32
    return {name: tokens.astype(narrow, copy=False) for name, tokens in found.items()}


def check_count(settings: LanguageModel, count: int) -> None:
    """Refuse what the order of so many sequences of a shard cannot count.

    Raises:
        ConfigError: batch times sequences is beyond 31 bits.
    """
    if settings.batch * count >= 2**31:
        raise ConfigError("batch", f"times the {count} sequences of a shard must be < 2^31")


@dataclass(frozen=True)
class LanguageTask:
    """`Task` of a `LanguageModel` setting on a corpus that fits on the devices. B sequences of L tokens in a batch.

    Documents fall to shards alike for every seed; a seed has its own initial parameters and order of sequences.
    """

    settings: LanguageModel
    corpus: Corpus

    def data(self, key: jax.Array, shards: int) -> Data:
        """What a seed's order of sequences follows from, a whole number below 2³¹."""
        return jax.random.bits(key) >> 1

    def order(self, seed: int) -> int:
        """The same of a run's seed, on the host: for `lm.shards.Shards.ordered`."""
        return int(self.data(seed_keys(jax.random.key(seed))[0], 1))

    def host_data(self, shards: int) -> Data:
        """Training tokens [shards, n, L + 1] and held-out ones [held_out, L + 1], NumPy, for all seeds.

        Raises:
            ConfigError: a token beyond the vocabulary, or too few tokens for a sequence in every shard.
        """
        return _host_data(self, shards)

    def init(self, key: jax.Array) -> Params:
        """Initial parameters, see `lm.model.Transformer`."""
        return model.init(self.settings, key)

    def batch(self, data: Data, shard: jax.Array, step: jax.Array) -> Batch:
        """Tokens [B, L + 1] of a shard's step, int32: inputs are all but the last, targets all but the first."""
        seed, shared = data
        row_B, n = jnp.arange(self.settings.batch), shared["tokens"].shape[1]
        index_B = sequence_index(shard, step, row_B, batch=len(row_B), count=n, seed=seed, xp=jnp)
        return shared["tokens"][shard, index_B].astype(jnp.int32)

    def _losses(self, params: Params, token_BxL1: jax.Array) -> jax.Array:
        return model.sequence_losses(self.settings, params, token_BxL1[:, :-1], token_BxL1[:, 1:])

    def loss(self, params: Params, batch: Batch) -> jax.Array:
        """Mean cross entropy of the next token, in nats."""
        return self._losses(params, batch).mean()

    def evaluate(self, params: Params, data: Data) -> dict[str, jax.Array]:
        """Loss (nats) and perplexity on the held-out sequences: at once a batch, or those whose logits may be there."""

        def one(token_L1: jax.Array) -> jax.Array:
            return self._losses(params, token_L1[None].astype(jnp.int32))[0]

        at_once = min(self.settings.batch, sequences_at_once(self.settings))
        loss = jax.lax.map(one, data[1]["held_out"], batch_size=at_once).mean()
        return {"loss": loss, "perplexity": jnp.exp(loss)}
