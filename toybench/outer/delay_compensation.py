"""Delay compensation on pseudo-gradients (paper, section 4, after DC-ASGD, arXiv 1609.08326)."""

from __future__ import annotations

from dataclasses import dataclass

from toybench.config import setting
from toybench.outer.base import transformation
from toybench.outer.sgd import Nesterov, nesterov


@dataclass(frozen=True)
class DelayCompensation(Nesterov):
    """Nesterov on pseudo-gradients corrected to first order for the server's drift since the pull."""

    strength: float = setting(0.04, "λ; neither the paper nor its notebook gives it", at_least=0)


def compensate_delay(strength):
    """optax transformation: g ← g + λ g⊙g⊙(θ − θ_pulled)."""
    import jax
    import optax

    def update(updates, state, params, *, pulled_params, **extras):
        def correct(g, now, pulled):
            return g + strength * g * g * (now - pulled)

        return jax.tree.map(correct, updates, params, pulled_params), state

    return transformation(optax.init_empty_state, update)


def delay_compensation(lr, momentum, strength):
    import optax

    return optax.chain(compensate_delay(strength), nesterov(lr, momentum))
