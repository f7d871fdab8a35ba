"""A worker: pulls, makes its local steps, pushes; until the server says that the run is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from uuid import uuid4

import jax
import jax.numpy as jnp
import numpy as np

from toybench.scheduler import Visit
from toybench.task import Params
from toybench.transports.codec import CODECS, encode
from toybench.transports.messages import Push, Reply, Rules
from toybench.transports.work import Work


class Connection(Protocol):
    """The server as a worker sees it. Every call returns an answer in the end: it is made again where none came."""

    def hello(self, worker: int, about: Mapping[str, str] | None, who: str) -> Reply: ...
    def push(self, push: Push) -> Reply: ...
    def next(self, worker: int, who: str) -> Reply: ...


class Hand:
    """What a worker keeps from visit to visit: its inner state, and what the codec has lost.

    Args:
        work: of the run.
        codec: by which pseudo-gradients travel.
    """

    def __init__(self, work: Work, codec: str):
        self.work, self.codec = work, CODECS[codec]
        self.inner_state: Any = None
        self.residual: Params | None = None
        self._fresh = jax.jit(work.inner.transformation.init)
        self._encode = jax.jit(lambda g, residual: encode(self.codec, g, residual))

    def warm(self) -> None:
        """Compile everything, so that no compilation is taken for the time of a step."""
        arrays, _ = self.visit(self.work.init(), Visit(0, 0, 0, 1, 0), True)
        jax.block_until_ready(arrays)

    def visit(self, start: Params, visit: Visit, reset: bool) -> tuple[list[jax.Array], jax.Array]:
        """A visit: the encoded pseudo-gradient, and the mean loss.

        Args:
            start: what was pulled.
            visit: which shard, from which of its steps, how many.
            reset: begin with fresh inner state, and nothing owed.
        """
        if reset:
            self.inner_state, self.residual = self._fresh(start), None
        if self.residual is None and not self.codec.exact:
            self.residual = jax.tree.map(jnp.zeros_like, start)
        g, self.inner_state, loss = self.work.visit(start, self.inner_state, visit)
        arrays, self.residual = self._encode(g, self.residual)
        return arrays, loss


def serve(
    work: Work,
    connection: Connection,
    rules: Rules,
    *,
    worker: int,
    about: Mapping[str, str] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> str:
    """Work until the run is over.

    Args:
        work: of the run, made in this process.
        connection: to the server.
        rules: the server's.
        worker: number of this worker, that nobody else has.
        about: versions that must be the server's.
        stop: asked between visits: whether to leave.

    Returns:
        Why the server would not have this worker, if so; else nothing.
    """
    structure = jax.tree.structure(jax.eval_shape(work.init))
    hand = Hand(work, rules.codec)
    hand.warm()
    who = uuid4().hex  # a number may be given to another, where this one is held for dead
    reply = connection.hello(worker, about, who)
    while not (reply.done or stop()):
        if reply.given is not None:
            push = _made(hand, structure, reply, rules, work.run.cluster.sec_per_step)
            reply = connection.push(push._replace(who=who))
        elif reply.verdict == "refused":
            reply = connection.hello(worker, about, who)
        else:
            reply = connection.next(worker, who)
    return reply.reason if reply.done and reply.verdict == "refused" else ""


def _made(hand: Hand, structure: Any, reply: Reply, rules: Rules, declared: tuple[float, ...]) -> Push:
    """The visit that the server has given."""
    began, given = time.perf_counter(), reply.given
    assert given is not None
    start = jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in reply.params or ()])
    arrays, loss = hand.visit(start, given.visit, given.reset)
    sent = [np.asarray(array) for array in arrays]  # which waits for them
    if rules.pace:
        slow = rules.pace * declared[reply.worker % len(declared)] * given.visit.num_steps
        time.sleep(max(0.0, slow - (time.perf_counter() - began)))
    return Push(reply.worker, given.id, time.perf_counter() - began, float(loss), sent)
