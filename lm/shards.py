"""Documents dealt to shards, and a shard's batches at random access."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lm.order import key, mix, sequence_index
from toybench.config import ConfigError

BLOCK = 2**22  # tokens that are gathered at once


@dataclass(frozen=True)
class Side:
    """Documents one after another: `tokens` [T], and of each document its end among them and its domain's number."""

    tokens: np.ndarray
    ends: np.ndarray
    domains: np.ndarray

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, its end included; int64."""
        return np.diff(self.ends, prepend=np.int64(0))


class Shards:
    """Documents dealt to shards; each shard's, one after another, are cut into sequences.

    Nothing is kept between calls: a shard's batch of a step is always the same. A sequence has one token more than
    `sequence`, so that the inputs are all but the last and the targets all but the first; neighbours share that one.
    """

    def __init__(self, side: Side, documents: list[np.ndarray], seed: int):
        self._side, self.seed, self.documents = side, seed, documents
        self._ends = [np.cumsum(side.lengths[chosen]) for chosen in documents]  # of documents within their shard

    def ordered(self, seed: int) -> Shards:
        """The same documents in the same shards, their sequences in another order."""
        return Shards(self._side, self.documents, seed)

    @property
    def tokens(self) -> list[int]:
        """Tokens of each shard."""
        return [int(ends[-1]) for ends in self._ends]

    def count(self, sequence: int) -> int:
        """Sequences of a shard: as many in each, the least, so that they can lie in one array.

        Raises:
            ConfigError: a shard has none.
        """
        least = min(self.tokens)
        if least <= sequence:
            said = f"is too little for cluster.shards = {len(self.documents)}: one of them has {least} tokens"
            raise ConfigError("task.data", f"{said}, task.sequence = {sequence} needs {sequence + 1}")
        return (least - 1) // sequence

    def batch(self, shard: int, step: int, batch: int, sequence: int) -> np.ndarray:
        """The batch of a shard's step: int32 [batch, sequence + 1]."""
        return self.batches(shard, step, 1, batch, sequence)[0]

    def batches(self, shard: int, first: int, n: int, batch: int, sequence: int) -> np.ndarray:
        """The batches of n steps from `first` on: int32 [n, batch, sequence + 1]."""
        step = np.repeat(np.arange(first, first + n), batch)
        row = np.tile(np.arange(batch), n)
        count = self.count(sequence)
        chosen = sequence_index(shard, step, row, batch=batch, count=count, seed=self.seed)
        return self._sequences(shard, chosen, sequence).astype(np.int32).reshape(n, batch, sequence + 1)

    def packed(self, sequence: int) -> np.ndarray:
        """All sequences, to lie on a device: [shards, count, sequence + 1], in the tokens' own type.

        `packed[shard][sequence_index(shard, step, row, …)]` is the batch that `batch` gives.
        """
        count, shards = self.count(sequence), range(len(self.documents))
        found = np.empty((len(shards), count, sequence + 1), self._side.tokens.dtype.newbyteorder("="))
        block = max(BLOCK // sequence, 1)
        for shard in shards:
            for start in range(0, count, block):
                chosen = np.arange(start, min(start + block, count))
                found[shard, chosen] = self._sequences(shard, chosen, sequence)
        return found

    def _sequences(self, shard: int, chosen: np.ndarray, sequence: int) -> np.ndarray:
        """Sequences by number: [n, sequence + 1], in the tokens' type.

        A sequence is pieces of documents; of all pieces together, their length and where they lie in the file.
        """
        ends, documents = self._ends[shard], self.documents[shard]
        starts = chosen.astype(np.int64) * sequence
        stops = starts + sequence + 1
        first, last = np.searchsorted(ends, starts, "right"), np.searchsorted(ends, stops - 1, "right")
        pieces = last - first + 1
        of = np.repeat(np.arange(len(starts)), pieces)  # the sequence of a piece
        document = np.arange(len(of)) + (first - (np.cumsum(pieces) - pieces))[of]
        start, stop = ends[document] - self._side.lengths[documents[document]], ends[document]
        start, stop = np.maximum(start, starts[of]), np.minimum(stop, stops[of])
        lengths = stop - start
        place = self._side.ends[documents[document]] - (ends[document] - start)
        place -= np.cumsum(lengths) - lengths
        addresses = np.arange(lengths.sum()) + np.repeat(place, lengths)
        return self._side.tokens[addresses].reshape(len(chosen), sequence + 1)


def split(side: Side, shards: int, partition: str, seed: int) -> Shards:
    """See `Corpus.split`."""
    word = key(np.array([seed], np.uint32))
    order = np.argsort(mix(np.arange(len(side.ends), dtype=np.uint32) ^ word), kind="stable")
    if partition == "iid":
        after = np.cumsum(side.lengths[order])
        shard = (2 * after - side.lengths[order]) * shards // (2 * after[-1])  # by where a document's middle lies
    elif partition == "domain":
        shard = _domains_to_shards(side, shards)[order]
    else:
        raise ConfigError("task.partition", f"expected one of 'iid', 'domain', got {partition!r}")
    documents = [order[shard == i] for i in range(shards)]
    if not all(map(len, documents)):
        said = f"has {len(order)} training documents, which leave some of cluster.shards = {shards} without any"
        raise ConfigError("task.data", said)
    return Shards(side, documents, seed)


def _domains_to_shards(side: Side, shards: int) -> np.ndarray:
    """The shard of each document."""
    names, domain = np.unique(side.domains, return_inverse=True)
    if len(names) < shards:
        said = f"'domain' needs a domain for each of cluster.shards = {shards}, the data has {len(names)}"
        raise ConfigError("task.partition", said)
    tokens = np.bincount(domain, weights=side.lengths).astype(np.int64)
    found = np.empty(len(names), np.int64)
    heap = [(0, i) for i in range(shards)]
    for number in np.lexsort((names, -tokens)):
        load, shard = heap[0]
        found[number] = shard
        heapq.heapreplace(heap, (load + int(tokens[number]), shard))
    return found[domain]
