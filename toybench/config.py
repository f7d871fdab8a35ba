"""What a run is: frozen, plain, validated settings. No jax here, so that help and timelines load fast."""

from __future__ import annotations

import math
import numbers
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Literal


class ConfigError(ValueError):
    """A setting that cannot be used. Reads as one line: the dotted field, the value, and what would be valid."""

    def __init__(self, name: str, problem: str):
        super().__init__(f"{name}: {problem}")
        self.name, self.problem = name, problem

    def __reduce__(self):  # on its way from another process
        return type(self), (self.name, self.problem)

    def under(self, prefix: str) -> ConfigError:
        """The same error, told from one level further up."""
        return ConfigError(f"{prefix}.{self.name}", self.problem)


class ConfigWarning(UserWarning):
    """A setting that can be used and is odd."""


def setting(default: Any, help: str, *, unit: str = "", above=None, at_least=None, below=None, at_most=None) -> Any:
    """A dataclass field with its description, its unit and the open or closed bounds of its value."""
    bounds = {"above": above, "at_least": at_least, "below": below, "at_most": at_most}
    metadata = {"help": help, "unit": unit, "bounds": {k: v for k, v in bounds.items() if v is not None}}
    return field(default=default, metadata=metadata)


LARGEST = 2**31  # whole numbers are traced with 32 bits
LARGEST_FLOAT = 3.4e38  # and the others in single precision
MOST_FAILURES = 7  # in the time of the shortest visit: one in a thousand ends
_BOUNDS = {
    "above": ("> {}", lambda x, bound: x > bound),
    "at_least": (">= {}", lambda x, bound: x >= bound),
    "below": ("< {}", lambda x, bound: x < bound),
    "at_most": ("<= {}", lambda x, bound: x <= bound),
}


@cache
def annotations_of(cls: type) -> dict[str, Any]:
    """The resolved type of every field of a settings class."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls)}


def describe(annotation: Any) -> str:
    """A type as a user would say it, e.g. ``one of 'a', 'b'`` or ``a list of numbers``."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(repr(a) for a in args)
    if origin is tuple:
        return "a list of numbers"
    if origin in (types.UnionType, typing.Union):
        return " or ".join("nothing" if a is type(None) else describe(a) for a in args)
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(
        annotation, str(annotation)
    )


def accepts(annotation: Any, value: Any) -> bool:
    """Whether a value has the annotated type; a whole number passes for a float, true and false for nothing else."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return value in args and not isinstance(value, bool)
    if origin is tuple:
        return isinstance(value, tuple) and all(accepts(args[0], v) for v in value)
    if origin in (types.UnionType, typing.Union):
        return any(accepts(a, value) for a in args)
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, annotation) and (annotation is bool or not isinstance(value, bool))


def _as_annotated(annotation: Any, value: Any) -> Any:
    """Whole numbers as floats where a float is meant: 1 and 1.0 are one setting, and one compiled program."""
    if annotation is float:
        return float(value) if abs(value) <= LARGEST_FLOAT else value  # else refused next, whatever it is
    if typing.get_origin(annotation) is tuple:
        return tuple(_as_annotated(typing.get_args(annotation)[0], item) for item in value)
    if typing.get_origin(annotation) is types.UnionType:
        return _as_annotated(next(a for a in typing.get_args(annotation) if accepts(a, value)), value)
    return value


class Settings:
    """Base of all settings: checks every field's type and bounds, and raises `ConfigError` naming it."""

    def __post_init__(self):
        for f in fields(self):  # type: ignore[arg-type]
            value, annotation = getattr(self, f.name), annotations_of(type(self))[f.name]
            if annotation is Any or (isinstance(annotation, type) and issubclass(annotation, Settings)):
                continue
            if isinstance(value, list):
                object.__setattr__(self, f.name, value := tuple(value))
            if not accepts(annotation, value):
                raise ConfigError(f.name, f"expected {describe(annotation)}, got {value!r}")
            object.__setattr__(self, f.name, value := _as_annotated(annotation, value))
            self._check_bounds(f.name, value, f.metadata.get("bounds", {}))

    @staticmethod
    def _check_bounds(name: str, value: Any, bounds: dict) -> None:
        for number in value if isinstance(value, tuple) else (value,):
            if not isinstance(number, (int, float)) or isinstance(number, bool):
                continue
            if isinstance(number, int) and abs(number) >= LARGEST:
                raise ConfigError(name, f"must be < {LARGEST}, got {number:.6g}" if number < 1e300 else "is too large")
            if not math.isfinite(number):
                raise ConfigError(name, f"must be finite, got {number}")
            if abs(number) > LARGEST_FLOAT:
                raise ConfigError(name, f"must be a number of single precision, at most {LARGEST_FLOAT}, got {number}")
            for kind, bound in bounds.items():
                text, holds = _BOUNDS[kind]
                if not holds(number, bound):
                    raise ConfigError(name, f"must be {text.format(bound)}, got {number}")


@dataclass(frozen=True)
class Gaussians(Settings):
    """The toy: classify points of a mixture of mixtures of Gaussians with a two-layer perceptron."""

    classes: int = setting(4, "classes", at_least=2)
    clusters: int = setting(8, "Gaussian clusters in each class", at_least=1)
    dimension: int = setting(64, "input dimensions", at_least=1)
    noise: float = setting(0.35, "standard deviation of a point around its centre, a unit vector", at_least=0)
    points: int = setting(64_000, "training points, split evenly over the shards", at_least=1)
    held_out: int = setting(2_048, "points that the model is evaluated on", at_least=1)
    evaluate_on: Literal["held_out", "training"] = setting(
        "held_out", "fresh points, or the first of the training points"
    )
    partition: Literal["iid", "clusters"] = setting(
        "iid", "of the points over the shards: at random, or by cluster, so that shards hold different ones"
    )
    hidden: int = setting(64, "hidden units", at_least=1)
    output_scale: float = setting(1.0, "multiplier of the logits; the output layer starts divided by it", above=0)
    batch: int = setting(32, "examples in a batch", at_least=1)


@dataclass(frozen=True)
class Foreign:
    """A task of a kind that is not known here, as a record has it: it can be listed and compared, not trained."""

    kind: str
    values: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Cluster(Settings):
    """Workers, their speeds, and when they restart (paper, Algorithms 2, 4 and 5)."""

    sec_per_step: tuple[float, ...] = setting(
        (0.58, 0.75, 1.51, 3.33), "simulated time of one local step, a number for each worker", unit="s", above=0
    )
    local_steps: int = setting(50, "local steps H of a visit; with dynamic steps, of the fastest worker", at_least=1)
    grace: float = setting(
        0.0,
        "how long after a group's first arrival others may still join it and restart together",
        unit="s",
        at_least=0,
    )
    barrier: bool = setting(False, "synchronous: wait for all workers, then one outer step on their mean")
    coalesce: bool = setting(False, "one outer step on the mean of a group (who restart together), not one an arrival")
    quorum: int = setting(
        1, "arrivals that a group needs before the grace period begins; the others wait", unit="workers", at_least=1
    )
    dynamic_steps: bool = setting(False, "DyLU (Eq. 6): local steps in proportion to a worker's speed")
    sharding: Literal["proportional", "least_visited"] = setting(
        "proportional", "a ready worker's shard: Eq. 2's draw, or the least visited (ties at random)"
    )
    shards: int | None = setting(None, "data shards; as many as workers if not given", at_least=1)
    latency: tuple[float, ...] | None = setting(
        None, "one way between a worker and the server; a number for each worker, or one for all", unit="s", at_least=0
    )
    bandwidth: tuple[float, ...] | None = setting(
        None, "of a worker's own link; a number for each worker, or one for all", unit="bit/s", above=0
    )
    pull_bytes: float | None = setting(None, "that a worker receives before a visit", unit="bytes", at_least=0)
    push_bytes: float | None = setting(None, "that a worker sends after it", unit="bytes", at_least=0)
    mtbf: float | None = setting(
        None, "mean time to a worker's failure (exponential), at work or not; it loses its visit", unit="s", above=0
    )
    mttr: float | None = setting(
        None, "mean time until it is back (exponential), its inner state fresh; never if not given", unit="s", above=0
    )
    join: tuple[float, ...] | None = setting(
        None, "when a worker comes in, 0: at the start; a number for each worker, or one for all", unit="s", at_least=0
    )
    leave: tuple[float, ...] | None = setting(
        None,
        "when a worker goes, a visit that it is on ended, 0: never; a number for each worker, or one for all",
        unit="s",
        at_least=0,
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.sec_per_step:
            raise ConfigError("sec_per_step", "must name at least one worker, got an empty list")
        if self.quorum > self.workers:
            raise ConfigError("quorum", f"must be <= the number of workers ({self.workers}), got {self.quorum}")
        for name in ("latency", "bandwidth", "join", "leave"):
            count = 1 if getattr(self, name) is None else len(getattr(self, name))
            if count not in (1, self.workers):
                raise ConfigError(name, f"must be one number, or one for each of {self.workers} workers, got {count}")
        shortest = self.local_steps * min(self.sec_per_step)
        if self.mtbf is not None and shortest > MOST_FAILURES * self.mtbf:
            least = shortest / MOST_FAILURES
            raise ConfigError("mtbf", f"must be >= {least:.3g} s, or next to no visit ends, got {self.mtbf:g}")
        if any(0 < last <= first for first, last in zip(self.each("join"), self.each("leave"))):
            raise ConfigError("leave", "must be later than join, or 0 for never, for every worker")

    def each(self, name: str, default: float = 0.0) -> tuple[float, ...]:
        """A setting that may be one number for all workers, as one a worker."""
        values = getattr(self, name) or (default,)
        return values if len(values) == self.workers else values * self.workers

    @property
    def transfer(self) -> tuple[tuple[float, float], ...]:
        """Seconds that a worker's pull and its push take: latency, and bytes over its own link."""
        sizes = [8 * (size or 0.0) for size in (self.pull_bytes, self.push_bytes)]
        links = zip(self.each("latency"), self.each("bandwidth", math.inf))
        return tuple((delay + sizes[0] / rate, delay + sizes[1] / rate) for delay, rate in links)

    @property
    def workers(self) -> int:
        """Number of workers k."""
        return len(self.sec_per_step)

    @property
    def num_shards(self) -> int:
        return self.workers if self.shards is None else self.shards


@dataclass(frozen=True)
class Inner(Settings):
    """What every inner optimizer has: the learning rate of Eq. 3, in steps spent on a shard."""

    lr: float = setting(4e-4, "peak inner learning rate", at_least=0)
    final_lr: float = setting(1e-6, "inner learning rate at the end of the cosine and after it", at_least=0)
    warmup: int = setting(0, "linear warm-up from zero", unit="steps on a shard", at_least=0)
    decay_steps: int | None = setting(
        None, "where the cosine ends; the budget's steps on a shard if not given", unit="steps on a shard", at_least=1
    )
    first_step_peak: bool = setting(False, "the notebook's slip: the first step of every visit runs at the peak rate")
    reset: bool = setting(False, "start every visit with fresh moments (notebook) instead of the worker's own (paper)")

    def __post_init__(self):
        super().__post_init__()
        if self.decay_steps is not None and self.decay_steps <= self.warmup:
            raise ConfigError("decay_steps", f"must be > warmup ({self.warmup}), got {self.decay_steps}")


@dataclass(frozen=True)
class InnerAdamW(Inner):
    """AdamW inside, as the paper."""

    weight_decay: float = setting(0.1, "decoupled weight decay", at_least=0)
    b1: float = setting(0.9, "decay of the first moment", at_least=0, below=1)
    b2: float = setting(0.999, "decay of the second moment", at_least=0, below=1)
    eps: float = setting(1e-8, "added to the root of the second moment", above=0)


@dataclass(frozen=True)
class InnerSGD(Inner):
    """Plain or momentum SGD inside."""

    momentum: float = setting(0.0, "heavy-ball momentum", at_least=0, below=1)


INNER: dict[str, type[Inner]] = {"adamw": InnerAdamW, "sgd": InnerSGD}


@dataclass(frozen=True)
class Outer(Settings):
    """What every outer method has. Each method's own settings stand beside it in `toybench.outer`."""

    lr: float = setting(0.7, "outer learning rate ε", at_least=0)
    scale: Literal["1", "1/sqrt(k)", "1/k"] = setting(
        "1", "weight on every asynchronous pseudo-gradient before the method sees it (k workers); 1 with a barrier"
    )

    def numbers(self, workers: int, barrier: bool = False) -> dict[str, Any]:
        """The settings by name, what is left open taken from the cluster: the number of workers, or as overridden."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: workers if value is None else value for name, value in values.items()}

    def check(self, workers: int, barrier: bool = False) -> None:
        """Warn of a choice that is odd in such a cluster; a method may override it."""


@dataclass(frozen=True)
class Budget(Settings):
    """How long a run lasts, and how often it is looked at."""

    rounds: int = setting(40, "R: the run ends with the arrival that reaches R·H·k local steps in all", at_least=1)
    evaluations: int = setting(
        40, "evaluations, evenly spaced in local steps, beside that of the start", at_least=1, at_most=100_000
    )

    def total_steps(self, cluster: Cluster) -> int:
        """Local steps of the whole run, over all workers."""
        return self.rounds * cluster.local_steps * cluster.workers


def check_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """The seeds, if they are different whole numbers from 0 to 2³¹ − 1 and there is one.

    Raises:
        ConfigError: they are not.
    """
    seeds = tuple(seeds)
    whole = all(isinstance(s, numbers.Integral) and not isinstance(s, bool) and 0 <= s < LARGEST for s in seeds)
    if not seeds or not whole or len(set(seeds)) < len(seeds):
        shown = " ".join(map(str, seeds[:10])) + (" …" if len(seeds) > 10 else "")
        raise ConfigError("seeds", f"expected different whole numbers from 0 to 2^31 - 1, got {shown or 'none'}")
    return tuple(map(int, seeds))


@dataclass(frozen=True)
class Run(Settings):
    """One configuration: on what (task), when (cluster), how (inner, outer) and how long (budget).

    The task is a setting such as `Gaussians`, or any `Task` of your own.
    """

    task: Any
    cluster: Cluster
    inner: Inner
    outer: Outer
    budget: Budget

    def __post_init__(self):
        points, shards = getattr(self.task, "points", None), self.cluster.num_shards
        if points is not None and points < shards:
            raise ConfigError("cluster.shards", f"must be <= task.points ({points}), got {shards}")
        if (total := self.budget.total_steps(self.cluster)) >= LARGEST:
            raise ConfigError("budget.rounds", f"R·H·k must be < {LARGEST}, got {total}")
        self.outer.check(self.cluster.workers, self.cluster.barrier)
