"""Which shard a ready worker gets (paper, Eq. 2). NumPy only.

Both rules give to shards that lag behind their equal share: of the steps given out ("proportional"), or of the visits
("least_visited"). A few shards are drawn as Eq. 2 reads; many are drawn to the same law in a time that does not grow with
their number.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

TOLERANCE = 1e-9  # of a share: rounding error in the plain draw
FEW = 1000  # shards up to which the plain draw is taken, bit for bit what it always was; some 30 µs


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
        given: [shards] what was given out of each so far, in steps or in visits.
        least: draw among those with the least only, ties alike, instead of in proportion to the lag.
    """

    def __init__(self, given: Iterable[int], least: bool = False):
        self.given, self.least = np.array([*given], dtype=np.int64), least
        self.sizes = np.ones(len(self.given))

    def draw(self, rng: np.random.Generator) -> int:
        """The next shard."""
        if self.least:
            return int(rng.choice(np.flatnonzero(self.given == self.given.min())))
        return int(rng.choice(len(self.given), p=shard_deficit(self.sizes, self.given)))

    def give(self, shard: int, amount: int) -> None:
        """So many steps, or visits, are given out of a shard."""
        self.given[shard] += amount

    def state(self) -> list[tuple[int, int]]:
        """Shards and what was given out of them; rebuilt from this, the same draws follow."""
        return [*enumerate(self.given.tolist())]


class ManyShards:
    """The same law by rejection, with whole numbers: a draw and a giving cost the same for any number of shards.

    Of equal sizes, shard i lags by total/n − given_i. Those with no less than nothing to catch up on stand in `lagging`;
    one of them is picked at random and kept with the probability lag_i / (largest lag). The others wait, by what was
    given out of them, and come in as the mean passes that. With visits instead of steps only the least visited lag, and
    all of them alike, so that "least_visited" is the same draw.

    Args:
        given: shards, each once, and what was given out of each.
    """

    def __init__(self, given: Iterable[tuple[int, int]]):
        order = [*given]
        self.given = dict(order)
        self.total = sum(self.given.values())
        self.lagging: list[int] = []
        self.place: dict[int, int] = {}  # of those that lag, in `lagging`
        self.many: Counter[int] = Counter()  # how many lag, by what was given out of them
        self.waiting: defaultdict[int, list[int]] = defaultdict(list)  # the others, likewise
        for shard, amount in order:
            self.waiting[amount].append(shard)
        self.levels = sorted(self.waiting)  # a heap of the amounts in `waiting`
        self.least = self.levels[0]  # no shard has less
        self._admit()

    def draw(self, rng: np.random.Generator) -> int:
        """The next shard."""
        n, total, random, count = len(self.given), self.total, rng.random, len(self.lagging)
        most = total - n * self.least
        while True:
            shard = self.lagging[int(random() * count)]
            lag = total - n * self.given[shard]
            if lag == most or random() * most < lag:
                return shard

    def give(self, shard: int, amount: int) -> None:
        """So many steps, or visits, are given out of a shard that was drawn."""
        given, lagging = self.given, self.lagging
        level = given[shard]
        last = lagging.pop()
        place = self.place.pop(shard)
        if last != shard:  # the last takes its place
            lagging[place] = last
            self.place[last] = place
        self.many[level] -= 1
        given[shard] = level = level + amount
        self.total += amount
        if level not in self.waiting:
            heapq.heappush(self.levels, level)
        self.waiting[level].append(shard)
        self._admit()

    def _admit(self) -> None:
        """Those whom the mean has reached lag from now on."""
        n = len(self.given)
        while self.levels and n * self.levels[0] <= self.total:
            level = heapq.heappop(self.levels)
            come = self.waiting.pop(level)
            self.place |= zip(come, range(len(self.lagging), len(self.lagging) + len(come)))
            self.lagging += come
            self.many[level] += len(come)
        while not self.many[self.least]:  # somebody is never above the mean
            del self.many[self.least]
            self.least += 1

    def state(self) -> list[tuple[int, int]]:
        """Shards and what was given out of them, in the order that the next draws depend on."""
        order = [*self.lagging, *(shard for level in sorted(self.waiting) for shard in self.waiting[level])]
        return [(shard, self.given[shard]) for shard in order]
