"""What a language-model run is: the toy's settings with another task. No jax here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from toybench.config import Budget, Cluster, ConfigError, Inner, InnerAdamW, Outer, Run, Settings, setting
from toybench.loading import CHOICES as TOY_CHOICES
from toybench.loading import Choices

PYTHON = "python"  # the corpus that every machine has: the sources of Python's standard library, as bytes
BYTES = 257  # a byte, or the end of a document
CHECKPOINTS = "checkpoints"  # in the folder of a run


@dataclass(frozen=True)
class LanguageModel(Settings):
    """Next-token prediction by a decoder-only transformer (paper, Table 6) on packed documents."""

    data: str = setting(
        PYTHON, "folder that `python -m lm data prepare` made; 'python': the standard library's sources"
    )
    vocabulary: int = setting(BYTES, "tokens the model knows; no fewer than the data's", at_least=2)
    layers: int = setting(2, "transformer blocks", at_least=1)
    width: int = setting(64, "model width", at_least=1)
    heads: int = setting(2, "attention heads", at_least=1)
    head_size: int = setting(32, "key/value size of a head", at_least=2)
    expansion: int = setting(4, "hidden units of a block's perceptron, in widths", at_least=1)
    tied: bool = setting(True, "the output layer is the embedding, transposed")
    sequence: int = setting(128, "tokens of a sequence", at_least=2)
    batch: int = setting(8, "sequences of a batch", at_least=1)
    partition: Literal["iid", "domain"] = setting(
        "iid",
        "of the documents over the shards: at random, or by where they come from, so that shards hold different ones",
    )
    held_out: int = setting(64, "held-out sequences that the model is evaluated on", at_least=1)
    compute: Literal["float32", "bfloat16"] = setting("float32", "of matrix products; parameters are float32")
    remat: bool = setting(False, "recompute activations of a block in the backward pass, to save memory")
    scan_layers: bool = setting(False, "one program for all blocks: compiles faster where they are many")

    def __post_init__(self):
        super().__post_init__()
        if self.head_size % 2:
            raise ConfigError("head_size", f"must be even, for rotary positions, got {self.head_size}")


class Part(NamedTuple):
    """Parameters of a part of the model, and how many such parts there are."""

    each: int
    times: int


def parts(model: LanguageModel) -> dict[str, Part]:
    """Parameters by part."""
    inside = model.heads * model.head_size
    found = {
        "embedding": Part(model.vocabulary * model.width, 1),
        "attention": Part(4 * model.width * inside, model.layers),
        "perceptron": Part(2 * model.expansion * model.width**2, model.layers),
        "norms": Part(model.width, 2 * model.layers + 1),
    }
    return found if model.tied else found | {"output": Part(model.width * model.vocabulary, 1)}


def parameters(model: LanguageModel) -> int:
    """Parameters in all."""
    return sum(each * times for each, times in parts(model).values())


def flops_per_token(model: LanguageModel) -> float:
    """Floating point operations of training on a token: 6 for each weight of a matrix product, and attention's own.

    The output layer counts, the embedding's look-up does not; causal attention counts half of its square.
    """
    inside = model.heads * model.head_size
    weights = parameters(model) - sum(p.each * p.times for name, p in parts(model).items() if name == "norms")
    weights -= 0 if model.tied else model.vocabulary * model.width
    return 6.0 * weights + 6.0 * model.layers * inside * model.sequence


LOGITS = 2**28  # bytes of float32 logits that may exist at once; a larger batch's are made in blocks of sequences


def sequences_at_once(model: LanguageModel) -> int:
    """Sequences whose logits may exist at once; at least one's must."""
    return max(1, LOGITS // (4 * model.sequence * model.vocabulary))


def fused_attention(backend: str, dtype: str, head_size: int) -> bool:
    """Whether cuDNN computes attention, and keeps no scores: it knows half precision and heads of some sizes only."""
    return backend == "gpu" and dtype in ("bfloat16", "float16") and head_size % 8 == 0 and head_size <= 128


def tokens(run: Run) -> int:
    """Tokens of all local steps of a run."""
    model: LanguageModel = run.task
    return run.budget.total_steps(run.cluster) * model.batch * model.sequence


class Size(NamedTuple):
    """A model with the inner optimizer and the length of training that go with it."""

    model: LanguageModel
    inner: Inner
    steps: int  # local steps a worker
    evaluations: int

    def budget(self, cluster: Cluster) -> Budget:
        """As many rounds of a cluster as its workers need for their steps, and no fewer."""
        return Budget(rounds=-(-self.steps // cluster.local_steps), evaluations=self.evaluations)


C4 = "data/c4"  # where the sizes look for prepared tokens unless told otherwise
_PAPER: dict[str, Any] = {
    "data": C4,
    "vocabulary": 32_000,
    "head_size": 64,
    "sequence": 256,
    "batch": 128,
    "held_out": 512,
    "compute": "bfloat16",
}
_INNER = InnerAdamW(lr=4e-4, final_lr=1e-6, warmup=1000, weight_decay=0.1)
_STEPS = 64_000  # of the local-SGD phase (paper, section 5), after 24,000 of pretraining
SIZES: dict[str, Size] = {
    "tiny": Size(
        LanguageModel(), InnerAdamW(lr=2e-3, final_lr=1e-5, warmup=20, weight_decay=0.1), steps=200, evaluations=20
    ),
    "20m": Size(LanguageModel(layers=6, width=256, heads=4, tied=False, **_PAPER), _INNER, _STEPS, 64),
    "60m": Size(LanguageModel(layers=3, width=896, heads=16, **_PAPER), _INNER, _STEPS, 64),
    "150m": Size(LanguageModel(layers=12, width=896, heads=16, remat=True, **_PAPER), _INNER, _STEPS, 64),
}
TWIN = replace(SIZES["tiny"].model, width=16, heads=2, head_size=8, sequence=16, batch=2, held_out=4)  # for tests

CHOICES: Choices = {**TOY_CHOICES, "task": ("kind", {"language_model": LanguageModel})}


def default_arms() -> dict[str, Run]:
    """What every machine can train, on the standard library's sources: the paper's proposal and its reference."""
    from toybench.outer import METHODS

    # Rates by `lm leaderboard` on seeds 1000 to 1002, half an octave apart: the best of 0.05 to 0.4 and of 0.05 to 0.2.
    size, nesterov = SIZES["tiny"], METHODS["nesterov"].settings(lr=0.2)
    cluster = Cluster(local_steps=10)
    delayed = METHODS["delayed_nesterov"].settings(lr=0.14)

    def arm(outer: Outer, **rules: bool) -> Run:
        own = replace(cluster, **rules)
        return Run(size.model, own, size.inner, outer, size.budget(own))

    return {"sync": arm(nesterov, barrier=True), "dn_dylu": arm(delayed, dynamic_steps=True)}
