"""A real run once more, from what it recorded: the same arrivals in the same order, one after the other."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from toybench.engine import arrival_extras
from toybench.scheduler import Visit
from toybench.server import Server, apply_arrival, open_server
from toybench.task import Params
from toybench.timeline import Timeline
from toybench.transports.codec import CODECS, decode
from toybench.transports.programs import row_of
from toybench.transports.work import Work
from toybench.transports.worker import Hand


def again(
    work: Work, timeline: Timeline, codec: str = "none", report: Callable[[int], None] = lambda arrivals: None
) -> Params:
    """The parameters that a run ends with whose arrivals were these.

    Args:
        work: of the run.
        timeline: E arrivals, `reset` where a worker had come back.
        codec: by which its pseudo-gradients travelled.
        report: called after each arrival with their number.
    """
    params, outer = work.init(), work.outer
    workers = np.unique(timeline.worker).tolist()  # their numbers may be far apart
    server: Server = open_server(outer, params)
    like = jax.eval_shape(work.init)

    @jax.jit
    def arrive(server, arrays, row, start):
        g = decode(CODECS[codec], arrays, like)
        return apply_arrival(outer, server, g, step=row.step, **arrival_extras(row, start))

    def pull(worker: int) -> Params:
        return outer.pull(server.outer_state, server.params, jnp.int32(worker))

    hands, pulled = {w: Hand(work, codec) for w in workers}, {w: pull(w) for w in workers}
    fresh = {*workers}
    pulls: dict[int, set[int]] = {}  # arrival -> who pulls right after it
    for after, w in zip(timeline.pulled_at.tolist(), timeline.worker.tolist()):
        pulls.setdefault(after - 1, set()).add(w)
    for e in range(len(timeline.time)):
        visit = visit_of(timeline, e)
        w, start = visit.worker, pulled[visit.worker]
        arrays, _ = hands[w].visit(start, visit, bool(timeline.reset[e]) or w in fresh)
        fresh.discard(w)
        row = row_of(visit, e, int(timeline.staleness[e]), bool(timeline.step[e]))
        server = arrive(server, arrays, row, start)
        for v in pulls.get(e, ()):
            pulled[v] = pull(v)
        report(e + 1)
    return server.params


def visit_of(timeline: Timeline, e: int) -> Visit:
    """The visit of an arrival."""
    columns = (timeline.worker, timeline.shard, timeline.first_step, timeline.num_steps, timeline.pulled_at)
    return Visit(*(int(column[e]) for column in columns))
