"""Which visits are computed together: those in flight when one of them is first needed. NumPy only."""

from __future__ import annotations

import numpy as np

from toybench.timeline import Timeline


def plan_waves(timeline: Timeline, lanes: int) -> list[np.ndarray]:
    """The arrivals of each wave, in the order in which the waves are first needed; every arrival is in one.

    A visit can be computed once its worker has pulled. When an arrival's visit is needed, those of the other workers
    that have pulled as well come along, the next to arrive first, up to `lanes` in all. It follows from the timeline
    alone, so that a resumed run computes the same visits side by side.

    Args:
        timeline: E arrivals.
        lanes: visits of a wave at most.
    """
    events = len(timeline.time)
    done = np.zeros(events, bool)
    waves = []
    for e in range(events):
        if not done[e]:
            # Pulled no later than now; of a worker only its next visit can have been.
            ready = np.flatnonzero(~done[e:] & (timeline.pulled_at[e:] <= e)) + e
            wave = ready[:lanes]
            done[wave] = True
            waves.append(wave)
    return waves
