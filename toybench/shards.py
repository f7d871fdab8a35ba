"""Which shard a ready worker gets (paper, Eq. 2). NumPy only.

Both rules give to shards that lag behind their equal share: of the steps given out ("proportional"), or of the visits
("least_visited"). A few shards are drawn as Eq. 2 reads; many are drawn to the same law, in a time that does not grow
with their number.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

TOLERANCE = 1e-9  # of a share: rounding error in the plain draw
FEW = 1000  # shards up to which the plain draw is taken, so that no timeline of so few changes


def shard_deficit(sizes: np.ndarray, consumed: np.ndarray) -> np.ndarray:
    """Probabilities of Eq. 2: how far each shard lags behind its share, normalized; uniform when none does.

    Args:
        sizes: [shards] examples in each shard.
        consumed: [shards] examples (or steps) already given out of each.
    """
    share = sizes / sizes.sum()
    lag = np.maximum(share - (consumed / consumed.sum() if consumed.sum() else share), 0.0)
    # Below rounding error nobody lags: without this, noise in the last bit would decide the draw.
    lag[lag < TOLERANCE] = 0.0
    return lag / lag.sum() if lag.sum() > 0 else np.full(len(sizes), 1 / len(sizes))


class FewShards:
    """The plain draw, and the definition: it goes through all shards.

    Args:
        shards: how many.
        least: draw among the least visited, ties alike, instead of in proportion to the lag in steps.
    """

    def __init__(self, shards: int, least: bool):
        self.least, self.sizes = least, np.ones(shards)
        self.consumed = np.zeros(shards, dtype=np.int64)  # steps given out: counted at the pull, as the notebook does
        self.visits = np.zeros(shards, dtype=np.int64)

    def draw(self, rng: np.random.Generator) -> int:
        """The next shard."""
        if self.least:
            return int(rng.choice(np.flatnonzero(self.visits == self.visits.min())))
        return int(rng.choice(len(self.sizes), p=shard_deficit(self.sizes, self.consumed)))

    def give(self, shard: int, steps: int) -> int:
        """Steps of a shard for a visit; returns the first of them."""
        first = int(self.consumed[shard])
        self.consumed[shard] += steps
        self.visits[shard] += 1
        return first

    def state(self) -> dict[str, list[int]]:
        """As plain data."""
        return {"consumed": self.consumed.tolist(), "visits": self.visits.tolist()}

    def restore(self, state: dict[str, list[int]]) -> None:
        """Go on from a `state`, with the same draws."""
        self.consumed[:], self.visits[:] = state["consumed"], state["visits"]


class ManyShards:
    """The same law by rejection, in whole numbers: a draw and a giving cost the same for any number of shards.

    Of n equal shards, shard i lags by total/n − given_i. Those that are not ahead stand in `lagging`; one of them is
    picked at random and kept with probability lag_i / (largest lag). The others wait, by what was given out of them,
    and come in as the mean reaches that. Counted in visits instead of steps, only the least visited lag, all alike: so
    "least_visited" is the same draw.

    Args:
        shards: how many.
        least: count visits, not steps.
    """

    def __init__(self, shards: int, least: bool):
        # Arrays: a million objects at random places in memory cost more than making small ones anew.
        self.consumed, self.visits = array("q", bytes(8 * shards)), array("q", bytes(8 * shards))
        self.given = self.visits if least else self.consumed  # the one that counts
        self._sort(range(shards), ())

    def _sort(self, lagging: Iterable[int], waiting: Iterable[int]) -> None:
        """Who lags and who waits, in these orders."""
        self.total, self.lagging = sum(self.given), array("q", lagging)
        self.place = array("q", bytes(8 * len(self.given)))  # in `lagging`, of those that lag
        for place, shard in enumerate(self.lagging):
            self.place[shard] = place
        self.many = Counter(self.given[shard] for shard in self.lagging)  # how many lag, by what was given out of them
        self.least = min(self.many)  # no shard has less
        self.waiting: defaultdict[int, list[int]] = defaultdict(list)  # the others, likewise
        for shard in waiting:
            self.waiting[self.given[shard]].append(shard)
        self.levels = sorted(self.waiting)  # a heap

    def draw(self, rng: np.random.Generator) -> int:
        """The next shard."""
        n, total, random, lagging, given = len(self.given), self.total, rng.random, self.lagging, self.given
        most, count = total - n * self.least, len(lagging)
        while True:  # a random number's whole part picks, what is behind the point keeps or drops
            where = random() * count
            shard = lagging[int(where)]
            lag = total - n * given[shard]
            if lag == most or (where - int(where)) * most < lag:
                return shard

    def give(self, shard: int, steps: int) -> int:
        """Steps of a shard that was drawn, for a visit; returns the first of them."""
        first, level = self.consumed[shard], self.given[shard]
        place, last = self.place[shard], self.lagging.pop()
        if last != shard:  # the last takes its place
            self.lagging[place] = last
            self.place[last] = place
        self.many[level] -= 1
        self.consumed[shard] = first + steps
        self.visits[shard] += 1
        new = self.given[shard]
        self.total += new - level
        if new not in self.waiting:
            heapq.heappush(self.levels, new)
        self.waiting[new].append(shard)
        self._admit()
        while not self.many[self.least]:  # somebody is never above the mean
            self.least += 1
        return first

    def _admit(self) -> None:
        """Those whom the mean has reached lag from now on."""
        n = len(self.given)
        while self.levels and n * self.levels[0] <= self.total:
            level = heapq.heappop(self.levels)
            for shard in self.waiting.pop(level):
                self.place[shard] = len(self.lagging)
                self.lagging.append(shard)
                self.many[level] += 1

    def state(self) -> dict[str, list[int]]:
        """As plain data, with the orders that the next draws depend on."""
        waiting = [shard for own in self.waiting.values() for shard in own]
        given = {"consumed": self.consumed.tolist(), "visits": self.visits.tolist()}
        return given | {"lagging": self.lagging.tolist(), "waiting": waiting}

    def restore(self, state: dict[str, list[int]]) -> None:
        """Go on from a `state`, with the same draws."""
        self.consumed[:], self.visits[:] = array("q", state["consumed"]), array("q", state["visits"])
        self._sort(state["lagging"], state["waiting"])
