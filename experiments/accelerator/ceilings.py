"""Ceilings: what the device does at best, as yardsticks: matrix products and copies, on random data."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from experiments.accelerator.bench import Bench, OutOfTime
from lm.benchmark import best_of, product_rate

PRODUCTS = {"cpu": (256, 512, 1024), "else": (1024, 2048, 4096, 8192, 16_384)}  # edges of square matrices
COPIES = {"cpu": (2**26, 2**28), "else": (2**28, 2**30, 2**32)}  # bytes of an array, beyond any cache
DTYPES = ("float32", "bfloat16")


def add(parser: argparse.ArgumentParser) -> None:
    """No options of its own."""


def copy_rate(size: int) -> float:
    """Bytes read and written a second by negating a float32 array of so many bytes in place.

    In place, for else a CPU's time is that of new memory's first touch.
    """
    import jax
    import jax.numpy as jnp

    negated = jax.jit(jnp.negative, donate_argnums=0)
    held = [jax.random.uniform(jax.random.key(0), (size // 4,), jnp.float32)]

    def job() -> jax.Array:
        held.append(negated(held.pop()))
        return held[0]

    return 2 * held[0].nbytes / best_of(10, job)


def sizes(of: Mapping[str, tuple[int, ...]], small: bool) -> tuple[int, ...]:
    """Those for this backend; for a test the least alone."""
    import jax

    found = of.get(jax.default_backend(), of["else"])
    return found[:1] if small else found


def measure_ceilings(bench: Bench) -> None:
    """Every rate, a unit each."""
    for edge in reversed(sizes(PRODUCTS, bench.small)):
        for dtype in DTYPES:
            bench.tried(f"product {dtype} {edge}", _told(lambda d=dtype, n=edge: product_rate(d, n)), 10)
    for size in reversed(sizes(COPIES, bench.small)):
        bench.tried(f"copy {size}", _told(lambda n=size: copy_rate(n)), 10)


def _told(rate: Callable[[], float]) -> Callable[[], dict[str, float]]:
    return lambda: {"rate": rate()}


def run(bench: Bench, options: argparse.Namespace) -> None:
    """Measure them all."""
    measure_ceilings(bench)


Ceilings = dict[str, float]  # the best rates found: FLOP/s by precision, and bytes a second as 'copy'


def ceilings(units: Mapping[str, Mapping[str, Any]]) -> Ceilings:
    """The best of each kind, of the units of `measure_ceilings`."""
    found: Ceilings = {}
    for name, unit in units.items():
        kind = name.split()[1] if name.startswith("product ") else "copy" if name.startswith("copy ") else None
        if kind is not None and "rate" in unit:
            found[kind] = max(found.get(kind, 0.0), unit["rate"])
    return found


def yardsticks(bench: Bench) -> Ceilings:
    """The ceilings as another part's own units, for they belong to the process that is judged by them.

    Raises:
        OutOfTime: before there is one of each kind.
    """
    edge, size = sizes(PRODUCTS, bench.small)[-1], sizes(COPIES, bench.small)[-1]
    if edge == 16_384:
        edge = 8192  # the largest takes seconds, and is no faster
    for dtype in DTYPES:
        bench.tried(f"product {dtype} {edge}", _told(lambda d=dtype: product_rate(d, edge)), 10)
    bench.tried(f"copy {size}", _told(lambda: copy_rate(size)), 10)
    found = ceilings(bench.units)
    if not {*DTYPES, "copy"} <= found.keys():
        raise OutOfTime("ceilings")
    return found


def rows(units: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """As a table."""
    found = []
    for name, unit in units.items():
        what, *rest = name.split()
        if what == "product":
            label, value = f"product, {rest[0]}, {rest[1]} square", unit.get("rate", 0) / 1e12
            said = f"{value:,.2f} TFLOP/s"
        elif what == "copy":
            label, said = f"copy, {int(rest[0]) / 2**20:,.0f} MiB", f"{unit.get('rate', 0) / 1e9:,.1f} GB/s"
        else:
            continue
        found.append({"ceiling": label, "rate": unit.get("failed", said)})
    return found
