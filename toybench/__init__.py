"""Asynchronous local-SGD on a deterministic simulated cluster: a place to prototype outer optimizers.

Names are loaded when first used, so that ``import toybench`` costs no jax.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_ORIGIN = {
    "Budget": "config",
    "Cluster": "config",
    "ConfigError": "config",
    "Gaussians": "config",
    "InnerAdamW": "config",
    "InnerSGD": "config",
    "Run": "config",
    "Scheduler": "scheduler",
    "Timeline": "timeline",
    "simulate": "timeline",
    "METHODS": "outer",
    "OuterOptimizer": "outer",
    "as_outer": "outer",
    "make_outer": "outer",
    "Task": "task",
    "check_task": "task",
    "InnerOptimizer": "inner",
    "local_update": "inner",
    "make_inner": "inner",
    "Server": "server",
    "apply_arrival": "server",
    "compile_chunk": "engine",
    "replay": "engine",
    "Result": "training",
    "train": "training",
    "load_run": "loading",
    "overlay": "loading",
    "load_preset": "presets",
    "configure": "runtime",
}
__all__ = [*_ORIGIN]


def __getattr__(name: str) -> Any:
    if name not in _ORIGIN:
        raise AttributeError(f"module 'toybench' has no attribute {name!r}")
    return getattr(importlib.import_module(f"toybench.{_ORIGIN[name]}"), name)


def __dir__() -> list[str]:
    return __all__
