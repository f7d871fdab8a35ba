"""What the workers and the server of a run compute, on whatever engine: the spine's two functions, made ready."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from toybench.config import ConfigError, Run, check_seeds
from toybench.engine import seed_keys
from toybench.inner import InnerOptimizer, local_update
from toybench.loading import dump_run, load_run
from toybench.outer import OuterOptimizer, make_outer
from toybench.scheduler import Visit
from toybench.task import Params, data_of
from toybench.training import inner_builder, inner_numbers, task_of


class Work(Protocol):
    """A run on one seed, where it is computed. Equal recipes give equal work in every process."""

    @property
    def run(self) -> Run: ...

    @property
    def seed(self) -> int: ...

    @property
    def inner(self) -> InnerOptimizer: ...

    @property
    def outer(self) -> OuterOptimizer: ...

    def init(self) -> Params:
        """The parameters that the run begins with."""
        ...

    def visit(self, start: Params, inner_state: Any, visit: Visit) -> tuple[Params, Any, jax.Array]:
        """Local steps from what was pulled: pseudo-gradient, new inner state, mean loss (`toybench.inner`)."""
        ...

    def evaluate(self, params: Params) -> dict[str, float]:
        """Metrics by name, ``loss`` among them."""
        ...


MAKERS = {  # and what each is told
    "toybench.transports.work:toy_work": {"run", "seed"},
    "lm.work:text_work": {"run", "seed", "init"},
}
SPREAD = "spread"  # told beside them to a process that has its devices to itself


class Recipe(NamedTuple):
    """Of a `Work`: plain values, so that another process or machine can make the same."""

    maker: str  # 'module:function', one of `MAKERS`
    told: dict[str, Any]  # its argument, as JSON can say it

    def make(self) -> Work:
        """The work.

        Raises:
            ConfigError: the maker is none of `MAKERS`, or is not told what it must be: a record may come from anywhere.
        """
        _check(self)
        module, _, function = self.maker.partition(":")
        return getattr(importlib.import_module(module), function)(self.told)

    def spread(self) -> Recipe:
        """The same for a process that has its devices to itself: a visit may use all of them."""
        return self._replace(told={**self.told, SPREAD: True})


def recipe_from(table: Any) -> Recipe:
    """The recipe of a record.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(table, dict) or table.keys() != {*Recipe._fields}:
        raise ConfigError("recipe", f"expected a table of {' and '.join(Recipe._fields)}")
    recipe = Recipe(**table)
    _check(recipe)
    return recipe


def _check(recipe: Recipe) -> None:
    if recipe.maker not in [*MAKERS]:  # a list, since what is no text may have no hash
        raise ConfigError("recipe.maker", f"expected one of {', '.join(MAKERS)}, got {recipe.maker!r}")
    told, names = recipe.told, MAKERS[recipe.maker]
    if not isinstance(told, dict) or told.keys() - {SPREAD} != names or told.get(SPREAD, True) is not True:
        raise ConfigError("recipe.told", f"expected a table of {', '.join(sorted(names))}")
    if not isinstance(told["run"], dict):
        raise ConfigError("recipe.told.run", f"expected a table, got {told['run']!r}")
    if not isinstance(told.get("init"), str | None):
        raise ConfigError("recipe.told.init", f"expected the folder of a run or null, got {told['init']!r}")
    check_seeds([told["seed"]])


def toy_recipe(run: Run, seed: int) -> Recipe:
    """The recipe of a run of the toy."""
    return Recipe("toybench.transports.work:toy_work", {"run": dump_run(run), "seed": seed})


def toy_work(told: dict[str, Any]) -> ToyWork:
    """The work of `toy_recipe`."""
    return ToyWork(load_run(told["run"]), told["seed"])


@dataclass(frozen=True)
class ToyWork:
    """A run of a toy, or of any `Task` whose data fit on a device."""

    run: Run
    seed: int

    @cached_property
    def task(self):
        return task_of(self.run)

    @cached_property
    def inner(self) -> InnerOptimizer:
        return inner_builder(type(self.run.inner))(inner_numbers(self.run))

    @cached_property
    def outer(self) -> OuterOptimizer:
        return make_outer(self.run.outer, self.run.cluster.workers, self.run.cluster.barrier)

    @cached_property
    def _data(self) -> Any:
        return data_of(self.task, seed_keys(jax.random.key(self.seed))[0], self.run.cluster.num_shards)

    def init(self) -> Params:
        return self.task.init(seed_keys(jax.random.key(self.seed))[1])

    @cached_property
    def _visit(self):
        @jax.jit
        def visit(start, inner_state, shard, first_step, num_steps, data):
            def batch_at(j):
                return self.task.batch(data, shard, first_step + j)

            return local_update(self.task, self.inner, start, inner_state, batch_at, first_step, num_steps)

        return visit

    def visit(self, start: Params, inner_state: Any, visit: Visit) -> tuple[Params, Any, jax.Array]:
        shard, first, num = (np.int32(n) for n in (visit.shard, visit.first_step, visit.num_steps))
        return self._visit(start, inner_state, shard, first, num, self._data)

    @cached_property
    def _evaluate(self):
        return jax.jit(self.task.evaluate)

    def evaluate(self, params: Params) -> dict[str, float]:
        return {name: float(value) for name, value in self._evaluate(params, self._data).items()}


def reads_pulled(outer: OuterOptimizer, params: Params) -> bool:
    """Whether an outer optimizer looks at what the worker had pulled: whether numbers that are none there show."""

    def shows(params, staleness):
        zeros = jax.tree.map(jnp.zeros_like, params)
        nothing = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)
        told = {name: jnp.int32(1) for name in ("worker", "num_steps", "arrival", "dispatch")}
        told["staleness"] = staleness
        found = outer.update(zeros, outer.init(zeros), zeros, pulled_params=nothing, **told)
        numbers = [leaf for leaf in jax.tree.leaves(found) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
        return jnp.stack([jnp.isnan(leaf).any() for leaf in numbers]).any()

    small = jax.tree.map(lambda leaf: jnp.zeros((2,) * jnp.ndim(leaf), jnp.result_type(leaf)), params)
    return bool(jax.jit(jax.vmap(shows, (None, 0)))(small, jnp.array([0, 1, 2, 10, 1000])).any())
