"""How much memory a run takes, from its settings alone: for `promote`, and to refuse what does not fit.

Parameters, states and results are counted. Activations are an estimate, fitted to what XLA plans on a CPU for models of
0.1 to 60 million parameters: measured 0.99 (60m, batch 1) to 1.73 (one head of 512) times that. A checkpoint is counted
as so many copies of what it holds, as measured. What jax, XLA and Python take themselves is not counted. jax is asked
only for the shapes of states.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from typing import Any, NamedTuple

from lm.config import LanguageModel, fused_attention, parameters, sequences_at_once
from lm.placement import DEFAULT, Placement
from toybench.config import Inner, Outer, Run

SCORES = 2.0  # float32 copies of a layer's attention scores that are kept for the backward pass
LOGITS_KEPT = 2.5  # float32 copies of the logits
CHECKPOINT = 1.5  # copies of what a checkpoint holds, in the host's memory while it is written; measured 1.45
SCANNED = 1.25  # what is kept of a layer in a scan, over what is kept of one that is unrolled


class Footprint(NamedTuple):
    """Bytes on the server's device, the fullest, and on the host."""

    server: float  # parameters, outer state, the sum of a group
    snapshots: float  # what workers pulled
    inner_states: float  # theirs, and visits that wait for their arrival
    work: float  # a wave of visits, or the server's step: gradients, results, new states
    activations: float  # of the wave, with logits
    host: float  # of snapshots, inner states and waiting visits, where they are kept there
    checkpoint_on_host: float  # while the server, the snapshots and the inner states are written

    @property
    def device(self) -> float:
        """On the server's device in all."""
        return self.server + self.snapshots + self.inner_states + self.lanes

    @property
    def told(self) -> str:
        """Its parts, in GB."""
        return ", ".join(f"{part.replace('_', ' ')} {size / 1e9:.3g}" for part, size in self._asdict().items() if size)

    @property
    def lanes(self) -> float:
        """Of them what each device takes that computes visits."""
        return self.work + self.activations


def footprint(run: Run, lanes: int = 1, placement: Placement = DEFAULT, backend: str = "gpu") -> Footprint:
    """What a language-model run takes at its fullest.

    Args:
        run: the settings.
        lanes: visits of a wave.
        placement: how it is laid out.
        backend: 'cpu', 'gpu' or 'tpu', as jax calls it.
    """
    model: LanguageModel = run.task
    size, workers = 4.0 * parameters(model), run.cluster.workers
    outer, inner = outer_copies(run.outer, workers, run.cluster.barrier), inner_copies(run.inner)
    each, batch = lanes // placement.workers, model.batch // placement.data
    on_host, rounded = placement.snapshots == "host", placement.dtype == "bfloat16"
    # A worker has no more than one visit in flight; those beyond a wave wait, spread over the devices.
    waiting = 0 if lanes == 1 else -(-max(workers - lanes, 0) // placement.workers)
    snapshots = workers * size * (0.5 if rounded else 1.0)
    states = size * (workers * inner + waiting * (1 + inner))
    server = size * (2 + outer)
    visit = visit_work(model, inner, each, stacked=lanes > 1 or placement.devices > 1)
    visit += each * size * ((on_host or rounded) + on_host * inner)  # brought to the device, or widened
    visit += each * run.cluster.local_steps * batch * (model.sequence + 1) * 4.0  # tokens
    activations = max(each * visit_activations(model, batch, backend), evaluation(model, backend))
    return Footprint(
        server=server,
        snapshots=0.0 if on_host else snapshots,
        inner_states=0.0 if on_host else states,
        work=max(step_work(model, outer), visit),
        activations=activations,
        host=snapshots + states if on_host else 0.0,
        checkpoint_on_host=CHECKPOINT * (server + snapshots + size * workers * inner),
    )


def visit_work(model: LanguageModel, inner: float, lanes: int, stacked: bool) -> float:
    """Bytes of the parameters' size that visits side by side take, beyond what they begin with.

    One by one: moving parameters, their gradient, the pseudo-gradient. Stacked: copies of snapshot and state, and for
    each lane also what a finished one keeps; then the results, once more when they are taken apart.
    """
    size = 4.0 * parameters(model)
    return lanes * size * (1 + inner + max(3.0, 1 + inner)) if stacked else 3 * size


def step_work(model: LanguageModel, outer: float) -> float:
    """Bytes that a step of the server takes: pseudo-gradient, mean, update, one more; and its new state."""
    return 4.0 * parameters(model) * (4 + 2 + outer)


def visit_activations(model: LanguageModel, batch: int, backend: str) -> float:
    """Bytes of activations, of their gradients, and of logits in a step of one visit: a bound."""
    layer = _layer(model, backend)
    # XLA undoes remat on a CPU, unless the layers are a loop.
    if model.remat and (backend != "cpu" or model.scan_layers):
        kept = model.layers * model.width * _wide(model, backend) + layer
    else:
        kept = (model.layers + 1) * layer
    narrowed = 0 if _wide(model, backend) == 4 else 2 * parameters(model)  # the weights in the products' precision
    return batch * model.sequence * kept + _logits(model, batch) + narrowed


def evaluation(model: LanguageModel, backend: str) -> float:
    """Bytes that an evaluation takes, which goes forward only: a bound."""
    batch = min(model.batch, sequences_at_once(model))
    return batch * model.sequence * _layer(model, backend) + _logits(model, batch)


def _layer(model: LanguageModel, backend: str) -> float:
    """Bytes a token of what a layer computes and its backward pass reads."""
    inside, wide = model.heads * model.head_size, _wide(model, backend)
    streams = 6 * model.width + 6 * inside + 4 * model.expansion * model.width
    scores = 0.0 if fused_attention(backend, model.compute, model.head_size) else 4 * SCORES * model.heads
    return (wide * streams + scores * model.sequence) * (SCANNED if model.scan_layers else 1.0)


def _wide(model: LanguageModel, backend: str) -> int:
    """Bytes of a number in the model's products; a CPU computes bfloat16 in float32."""
    return 2 if model.compute == "bfloat16" and backend != "cpu" else 4


def _logits(model: LanguageModel, batch: int) -> float:
    """Bytes of the logits that exist at once, and of their gradient."""
    return LOGITS_KEPT * min(batch, sequences_at_once(model)) * 4.0 * model.sequence * model.vocabulary


# States, in copies of the parameters


@lru_cache(maxsize=64)
def outer_copies(outer: Outer, workers: int, barrier: bool) -> float:
    """Size of an outer optimizer's state over that of the parameters."""
    from toybench.outer import method_of, outer_builder, outer_numbers

    return _copies(outer_builder(method_of(outer))(outer_numbers(outer, workers, barrier)).init)


@lru_cache(maxsize=64)
def inner_copies(inner: Inner) -> float:
    """Size of an inner optimizer's state over that of the parameters."""
    from toybench.training import inner_builder

    numbers = asdict(inner) | {"decay_steps": inner.warmup + 1}  # which sizes nothing
    return _copies(inner_builder(type(inner))(numbers).transformation.init)


def _copies(init: Callable[[Any], Any]) -> float:
    import jax

    params = {"one": jax.ShapeDtypeStruct((2**20,), "float32")}  # many, so that counters count for nothing
    sizes = (math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(init, params)))
    return round(sum(sizes) / 2**22, 3)
