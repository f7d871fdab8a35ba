"""The language models' throughput: tokens a second, share of the measured matrix products' rate, and of the peak.

Each line is `lm.benchmark.measure`: local steps of one worker, or of four vectorized, and an arrival at the server, on
random tokens. A variant changes one thing of the size's own settings: what computes attention, whether blocks are
recomputed, whether they are one scanned program, the batch, the precision.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from experiments.accelerator.bench import Bench
from lm.config import SIZES, LanguageModel, fused_attention
from lm.promote import ACCELERATORS

STEPS, REPEATS = 10, 2  # local steps timed at once, and how often after one to warm up


@dataclass(frozen=True)
class Variant:
    """A line of the table.

    Args:
        size: of `lm.config.SIZES`.
        workers: vectorized.
        attention: 'xla' or 'cudnn'; None lets the model choose.
        changes: of the model's settings.
    """

    size: str
    workers: int
    attention: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        told = [f"{key} {value}" for key, value in self.changes.items()]
        told += [f"attention {self.attention}"] if self.attention else []
        return " ".join([self.size, f"x{self.workers}", *told])

    @property
    def model(self) -> LanguageModel:
        return replace(SIZES[self.size].model, **self.changes)


OWN = tuple(Variant(size, workers) for size in ("150m", "20m", "60m") for workers in (1, 4))
VARIED = (
    Variant("150m", 1, changes={"remat": False}),
    Variant("150m", 1, "xla"),
    Variant("20m", 4, "xla"),
    Variant("20m", 4, changes={"batch": 32}),
    Variant("20m", 4, changes={"batch": 8}),
    Variant("150m", 1, changes={"batch": 512}),
    Variant("20m", 1, changes={"batch": 512}),
    Variant("150m", 1, changes={"scan_layers": True}),
    Variant("20m", 1, changes={"compute": "float32"}),
    Variant("60m", 1, "xla"),
    Variant("60m", 1, changes={"remat": True}),
    Variant("20m", 4, changes={"scan_layers": True}),
)
SMALL = {"vocabulary": 300, "width": 16, "heads": 2, "head_size": 8, "sequence": 16, "batch": 2, "layers": 2}
TEST = (
    Variant("20m", 1, changes=SMALL | {"compute": "float32"}),
    Variant("20m", 2, "xla", changes=SMALL | {"remat": True}),
    Variant("20m", 1, "cudnn", changes=SMALL),  # fails where there is no cuDNN, and says so
)


def add(parser: argparse.ArgumentParser) -> None:
    """No options of its own."""


@contextmanager
def attention(kind: str | None) -> Iterator[None]:
    """Have attention computed by 'xla' or 'cudnn', whatever the model would choose."""
    import jax

    from lm import model

    chosen = model._implementation
    if kind is not None:
        model._implementation = lambda query: kind
    jax.clear_caches()  # what was traced has its choice in it; and memory is free for the next
    try:
        yield
    finally:
        model._implementation = chosen


def peak() -> float | None:
    """FLOP/s in bfloat16 that the device's maker states, if it is one we know."""
    import jax

    kind = jax.local_devices()[0].device_kind
    return next((device.peak for device in ACCELERATORS.values() if kind in device.kinds), None)


def measured(variant: Variant) -> dict[str, Any]:
    """A variant's line, and its utilisation of the stated peak."""
    import jax

    from lm.benchmark import measure

    model, stated = variant.model, peak()
    fused = fused_attention(jax.default_backend(), model.compute, model.head_size)
    with attention(variant.attention):
        line = measure(variant.size, model, variant.workers, STEPS, REPEATS)
    used = None if stated is None or model.compute != "bfloat16" else line.flops_per_second / stated
    return asdict(line) | {"attention": variant.attention or ("cudnn" if fused else "xla"), "mfu": used}


def run(bench: Bench, options: argparse.Namespace) -> None:
    """Every size's own settings, then the variants."""
    variants = TEST if bench.small else (*OWN, *VARIED)
    for variant in variants:
        spent = [unit["unit_seconds"] for unit in bench.units.values()]
        bench.tried(variant.name, lambda v=variant: measured(v), 1.2 * max(spent, default=30.0))


def rows(units: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """As a table."""
    return [_row(name, unit) for name, unit in units.items()]


def _row(name: str, unit: Mapping[str, Any]) -> dict[str, str]:
    if "failed" in unit:
        blank = dict.fromkeys(("share", "MFU", "outer", "compile", "peak"), "")
        return {"model": _short(name), "tokens/s": f"failed: {unit['failed'][:40]}", **blank}
    return {
        "model": _short(name),
        "tokens/s": f"{unit['tokens_per_second']:,.0f}",
        "share": f"{unit['share']:.1%}",
        "MFU": "" if unit["mfu"] is None else f"{unit['mfu']:.1%}",
        "outer": f"{unit['outer_share']:.2%}",
        "compile": f"{unit['compile_seconds']:.0f} s",
        "peak": f"{unit['peak_bytes'] / 1e9:.1f} GB",
    }


def _short(name: str) -> str:
    return name if len(name) <= 48 else f"{name[:45]}..."
