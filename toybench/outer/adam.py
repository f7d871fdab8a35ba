"""Outer Adam and AdamW: what optax has."""

from __future__ import annotations

from dataclasses import dataclass

from toybench.config import Outer, setting


@dataclass(frozen=True)
class Adam(Outer):
    """Adam on pseudo-gradients."""

    lr: float = setting(0.01, "outer learning rate ε", at_least=0)
    b1: float = setting(0.9, "decay of the first moment", at_least=0, below=1)
    b2: float = setting(0.999, "decay of the second moment", at_least=0, below=1)
    eps: float = setting(1e-8, "added to the root of the second moment", above=0)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay."""

    weight_decay: float = setting(1e-4, "decoupled weight decay", at_least=0)


def adam(lr, b1, b2, eps):
    import optax

    return optax.adam(lr, b1, b2, eps)


def adamw(lr, b1, b2, eps, weight_decay):
    import optax

    return optax.adamw(lr, b1, b2, eps, weight_decay=weight_decay)
