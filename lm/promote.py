"""From the toy to a language-model run: cluster and outer optimizer to the letter, the rest is the size's.

No jax here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from lm.config import CHOICES, SIZES, LanguageModel, Part, flops_per_token, parameters, parts, tokens
from lm.memory import Footprint, footprint
from toybench.config import ConfigError, Run
from toybench.loading import dump_run, load_run, nearest, read_toml

KEPT = ("cluster", "outer")


class Accelerator(NamedTuple):
    """A device: what it is called, its peak in bfloat16 (FLOP/s) and its memory (bytes), as its maker states them."""

    name: str
    peak: float
    memory: float
    kinds: tuple[str, ...]  # what jax calls it

    @property
    def backend(self) -> str:
        """As jax calls it."""
        return "gpu" if self.name.startswith("NVIDIA") else "tpu"


ACCELERATORS = {
    "h100": Accelerator("NVIDIA H100 SXM", 989e12, 80e9, ("NVIDIA H100 80GB HBM3",)),
    "h200": Accelerator("NVIDIA H200", 989e12, 141e9, ("NVIDIA H200",)),
    "a100": Accelerator("NVIDIA A100 80 GB", 312e12, 80e9, ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe")),
    "v5e": Accelerator("TPU v5e", 197e12, 16e9, ("TPU v5 lite", "TPU v5e")),
    "v4": Accelerator("TPU v4", 275e12, 32e9, ("TPU v4",)),
}
UTILISATION = 0.4  # assumed of the peak, until it is measured


def promote(run: Run, size: str, data: str | None = None) -> Run:
    """A language-model run of a size with the cluster and the outer optimizer of a configuration.

    Args:
        run: of the toy, or of a language model.
        size: of `SIZES`.
        data: folder of prepared tokens, instead of the size's own.

    Raises:
        ConfigError: no such size, or data without a name.
    """
    if size not in SIZES:
        raise ConfigError("size", f"unknown {size!r}; {nearest(size, SIZES)}")
    if data == "":
        raise ConfigError("data", "must be the path of a folder, got ''")
    chosen = SIZES[size]
    tables = dump_run(Run(chosen.model, run.cluster, chosen.inner, run.outer, chosen.budget(run.cluster)), CHOICES)
    if data is not None:
        tables["task"]["data"] = data
    return load_run(tables, CHOICES)


class Change(NamedTuple):
    """A setting that is another after a promotion; None where there is no such setting."""

    key: str
    before: Any
    after: Any


def changes(before: Run, after: Run) -> list[Change]:
    """Every setting that differs."""
    old, new = (_flat(run) for run in (before, after))
    return [Change(k, old.get(k), new.get(k)) for k in {**old, **new} if old.get(k) != new.get(k)]


def _flat(run: Run) -> dict[str, Any]:
    choices = CHOICES if isinstance(run.task, LanguageModel) else None
    tables = dump_run(run) if choices is None else dump_run(run, choices)
    return {f"{section}.{key}": value for section, table in tables.items() for key, value in table.items()}


@dataclass(frozen=True)
class Estimate:
    """What a language-model run takes."""

    parameters: int
    parts: dict[str, Part]
    tokens: int  # over all workers
    operations: float  # floating point, of training on them
    footprint: Footprint  # of one device that holds all workers and computes one visit at a time
    accelerator: Accelerator
    utilisation: float  # share of the accelerator's peak

    @property
    def hours(self) -> float:
        """Hours of one such accelerator."""
        return self.operations / (self.accelerator.peak * self.utilisation) / 3600

    @property
    def memory(self) -> float:
        """Bytes on that device."""
        return self.footprint.device

    @property
    def fits(self) -> bool:
        """Whether it has as many."""
        return self.memory <= self.accelerator.memory


def estimate(run: Run, accelerator: str = "h100", utilisation: float = UTILISATION) -> Estimate:
    """What a language-model run takes on an accelerator.

    Raises:
        ConfigError: no such accelerator, or a utilisation that cannot be.
    """
    if accelerator not in ACCELERATORS:
        raise ConfigError("accelerator", f"unknown {accelerator!r}; {nearest(accelerator, ACCELERATORS)}")
    if not 0 < utilisation <= 1:
        raise ConfigError("utilisation", f"must be in (0, 1], got {utilisation}")
    model: LanguageModel = run.task
    count, total = parameters(model), tokens(run)
    device = ACCELERATORS[accelerator]
    memory = footprint(run, backend=device.backend)
    return Estimate(count, parts(model), total, flops_per_token(model) * total, memory, device, utilisation)


PROMOTED = "promoted"  # the table of a run file that says where it comes from


def write_toml(run: Run, source: str, size: str) -> str:
    """A run as a file for `python -m lm train`, with a note of what it was promoted from."""
    import tomli_w

    return tomli_w.dumps({PROMOTED: {"source": source, "size": size}, **dump_run(run, CHOICES)})


def read_run(path: str) -> tuple[Run, dict[str, Any]]:
    """A run file, and its note of where it comes from, if it has one.

    Raises:
        ConfigError: it cannot be read, or is no language-model run.
    """
    tables = read_toml(path)
    note = tables.pop(PROMOTED, {})
    if not isinstance(note, dict):
        raise ConfigError(PROMOTED, f"expected a table, got {note!r}")
    return load_run(tables, CHOICES), note
