"""The store: every run in one file, and the sweeps they belong to.

A run is found by what decides its numbers: its configuration, its seed, and who made it (`maker`: the code that
trains, the versions of jax, the kind of device). Each batch of runs is one transaction, whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from toybench.config import ConfigError, Run
from toybench.curves import Curves
from toybench.database import canonical
from toybench.loading import dump_run, load_run
from toybench.queries import RUNS_OF_SWEEP, Queries


class Call(NamedTuple):
    """One compiled call: some runs (numbers in the plan) on some seeds, as lanes."""

    runs: tuple[int, ...]
    seeds: tuple[int, ...]
    lanes: int  # settings in the call; the last run stands in for those that are lacking, so that shapes repeat


class Plan(NamedTuple):
    """A sweep: its runs, each on every seed, and how they are cut into calls."""

    name: str
    runs: list[Run]
    seeds: tuple[int, ...]
    calls: list[Call]
    search: dict[str, Any] | None = None  # what a search proposes its runs from, so that it can go on


class Store(Queries):
    """The runs in a file, opened as a `Database`: kept and removed, asked for as `Queries`, planned as sweeps."""

    def add(self, results: Iterable[Curves], maker: Mapping[str, Any], *, seconds: float, commit: str | None) -> int:
        """Keep the runs that are not there yet, in one transaction.

        Args:
            results: S seeds each.
            maker: what the runs were made by.
            seconds: of wall time that one run took, on the average.
            commit: of the working tree, if it is one.

        Returns:
            How many were new.
        """
        created, new = datetime.now(UTC).isoformat(timespec="seconds"), 0
        with self.transaction():
            made_by = self._shared("makers", dict(maker))
            for result in results:
                config = self._shared("configs", dump_run(result.run))
                for s in range(len(result.seeds)):
                    new += self._add_one(result, s, (config, result.seeds[s], made_by, created, commit, seconds))
        return new

    def _add_one(self, result: Curves, s: int, key: tuple) -> bool:
        # The shortest number that gives the metric back, in its own precision.
        final = {name: float(str(curve[s, -1])) for name, curve in result.metrics.items()}
        final = {name: value if np.isfinite(value) else None for name, value in final.items()}
        cursor = self._connection.execute(
            'INSERT INTO runs (config, seed, maker, created, "commit", seconds, diverged, final, simulated_time) '
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (*key, bool(result.diverged[s]), canonical(final), float(result.time[s, -1])),
        )
        if not cursor.rowcount:
            return False
        columns = {"local_steps": result.local_steps[s], "time": result.time[s]}
        columns |= {name: curve[s] for name, curve in result.metrics.items()}
        blobs = [(cursor.lastrowid, name, column.dtype.str, column.tobytes()) for name, column in columns.items()]
        self._connection.executemany("INSERT INTO curves VALUES (?, ?, ?, ?)", blobs)
        return True

    def remove(self, numbers: Iterable[int]) -> int:
        """Remove runs, with their curves; how many there were. A sweep that had one makes it anew when resumed."""
        with self.transaction():
            return self._remove(numbers)

    def _remove(self, numbers: Iterable[int]) -> int:
        removed = sum(self._connection.execute("DELETE FROM runs WHERE id = ?", (n,)).rowcount for n in numbers)
        self._connection.execute(
            "DELETE FROM configs WHERE NOT EXISTS (SELECT 1 FROM runs WHERE config = configs.id) "
            "AND NOT EXISTS (SELECT 1 FROM members WHERE config = configs.id)"
        )
        self._connection.execute(
            "DELETE FROM makers WHERE id NOT IN (SELECT maker FROM runs UNION SELECT maker FROM sweeps)"
        )
        return removed

    # Sweeps

    def begin(self, plan: Plan, maker: Mapping[str, Any]) -> None:
        """Store a sweep before its first run.

        Raises:
            ConfigError: there is one of that name.
        """
        with self.transaction():
            if self._one("SELECT name FROM sweeps WHERE name = ?", (plan.name,)) is not None:
                raise ConfigError(
                    "sweep", f"{plan.name!r} is there already; --resume finishes it, or take another name"
                )
            self._extend(plan, maker)

    def extend(self, plan: Plan, maker: Mapping[str, Any]) -> None:
        """Store a sweep that has grown."""
        with self.transaction():
            self._extend(plan, maker)

    def _extend(self, plan: Plan, maker: Mapping[str, Any]) -> None:
        configs = [self._shared("configs", dump_run(run)) for run in plan.runs]
        document = {"configs": configs, "seeds": plan.seeds, "calls": plan.calls, "search": plan.search}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._connection.execute(
            "INSERT INTO sweeps VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET plan = excluded.plan",
            (plan.name, now, self._shared("makers", dict(maker)), canonical(document)),
        )
        members = [(plan.name, config, seed) for config in configs for seed in plan.seeds]
        self._connection.executemany("INSERT INTO members VALUES (?, ?, ?) ON CONFLICT DO NOTHING", members)

    def plan(self, name: str) -> tuple[Plan, dict[str, Any]]:
        """A sweep as it was stored, and who makes it.

        Raises:
            ConfigError: there is none of that name.
        """
        self._check_sweep(name)
        query = "SELECT plan, document FROM sweeps JOIN makers ON makers.id = maker WHERE name = ?"
        plan, maker = map(json.loads, self._rows(query, (name,))[0])
        documents = self._documents(plan["configs"])
        runs = [load_run(documents[number], foreign=True) for number in plan["configs"]]
        calls = [Call(tuple(runs), tuple(seeds), lanes) for runs, seeds, lanes in plan["calls"]]
        return Plan(name, runs, tuple(plan["seeds"]), calls, plan["search"]), maker

    def runs_of(self, name: str, *, alone: bool = False) -> list[int]:
        """The numbers of a sweep's runs; `alone`: of those that no other sweep has.

        Raises:
            ConfigError: there is no such sweep.
        """
        self._check_sweep(name)
        query = RUNS_OF_SWEEP + (
            " AND NOT EXISTS (SELECT 1 FROM members AS others JOIN sweeps AS other ON other.name = others.sweep "
            "WHERE others.config = runs.config AND others.seed = runs.seed AND other.maker = runs.maker "
            "AND other.name != sweeps.name)"
        )
        return [row[0] for row in self._rows(f"{query if alone else RUNS_OF_SWEEP} ORDER BY 1", (name,))]

    def remove_sweep(self, name: str) -> int:
        """Remove a sweep, and those of its runs that no other sweep has; how many they were.

        Raises:
            ConfigError: there is no such sweep.
        """
        with self.transaction():
            numbers = self.runs_of(name, alone=True)
            self._connection.execute("DELETE FROM sweeps WHERE name = ?", (name,))
            return self._remove(numbers)
