"""What the runs in a database are asked for: rows to list, documents, curves as arrays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from toybench.config import ConfigError, Run
from toybench.curves import Curves
from toybench.database import Database, canonical
from toybench.loading import dump_run, load_run

# What a row of `Queries.list` holds of every run, and where it is found.
ROW = {
    "run": "runs.id",
    "seed": "seed",
    "loss": "json_extract(final, '$.loss')",
    "diverged": "diverged",
    "simulated_time": "simulated_time",
    "seconds": "seconds",
    "created": "created",
    "commit": '"commit"',
}

RUNS_OF_SWEEP = (
    "SELECT runs.id FROM sweeps JOIN members ON members.sweep = name JOIN runs ON runs.config = members.config "
    "AND runs.seed = members.seed AND runs.maker = sweeps.maker WHERE name = ?"
)


def _expression(name: str) -> tuple[str, list[str]]:
    """A name of a row, a dotted key or a final metric in SQL, with the values of its placeholders."""
    if name in ROW:
        return ROW[name], []
    return f"json_extract({'document' if '.' in name else 'final'}, ?)", [f"$.{name}"]


class Queries(Database):
    """Runs, one by one and listed; nothing is written."""

    def present(self, run: Run, maker: Mapping[str, Any]) -> dict[int, int]:
        """The seeds of a configuration that a maker has done: seed -> number of the run."""
        config, made_by = self._found("configs", dump_run(run)), self._found("makers", dict(maker))
        return dict(self._rows("SELECT seed, id FROM runs WHERE config = ? AND maker = ?", (config, made_by)))

    def curves(self, run: Run, seeds: Sequence[int], maker: Mapping[str, Any]) -> Curves:
        """The curves of a configuration on some seeds.

        Raises:
            ConfigError: one of the seeds is not there.
        """
        there = self.present(run, maker)
        if lacking := [seed for seed in seeds if seed not in there]:
            raise ConfigError("run", f"{str(self.path)!r} lacks a configuration's seed {lacking[0]}; was it removed?")
        columns = [self.columns(there[seed]) for seed in seeds]
        stacked = {name: np.stack([column[name] for column in columns]) for name in columns[0]}
        return Curves(run, tuple(seeds), stacked.pop("local_steps"), stacked.pop("time"), stacked)

    def columns(self, run: int) -> dict[str, np.ndarray]:
        """The curves of a run by their names: local_steps, time and metrics, each [n + 1]; none if it is not there."""
        rows = self._rows("SELECT name, dtype, data FROM curves WHERE run = ?", (run,))
        return {name: np.frombuffer(data, dtype) for name, dtype, data in rows}

    def read(self, numbers: Sequence[int]) -> list[Curves]:
        """The runs of these numbers, one seed each, in order.

        Raises:
            ConfigError: one of them is not there.
        """
        found, loaded = [], {}
        for number in numbers:
            row = self._rows(
                "SELECT seed, document FROM runs JOIN configs ON configs.id = config WHERE runs.id = ?", [number]
            )
            if not row:
                raise self._no_run(number)
            columns = {name: column[None] for name, column in self.columns(number).items()}
            seed, document = row[0]
            if document not in loaded:
                loaded[document] = load_run(json.loads(document), foreign=True)
            run = loaded[document]
            found.append(Curves(run, (seed,), columns.pop("local_steps"), columns.pop("time"), columns))
        return found

    def list(
        self,
        *,
        sweep: str | None = None,
        where: Mapping[str, Any] | None = None,
        columns: Sequence[str] = (),
        order: str | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """The runs as rows: `ROW`, and the `columns`: dotted keys of the configuration, or names of final metrics.

        Args:
            sweep: only the runs that belong to it.
            where: dotted key -> the value that it must have; None where it is not set.
            columns: None in the rows of runs that lack them.
            order: a name of the rows to sort by, least first and what is lacking last; by number if left out.
            limit: how many at most.

        Raises:
            ConfigError: a key or name that cannot be, a negative limit, or no such sweep.
        """
        if order is not None and order not in (*ROW, *columns):
            raise ConfigError("sort", f"must be one of {', '.join((*ROW, *columns))}, got {order!r}")
        if limit is not None and not 0 <= limit < 2**63:
            raise ConfigError("limit", f"must be >= 0, got {limit}")
        metrics, settings = [c for c in columns if "." not in c], [c for c in columns if "." in c]
        sorted_by, sort_values = _expression(order or "run")
        if odd := [column for column in columns if not re.fullmatch(r"\w+(\.\w+)?", column)]:
            raise ConfigError("columns", f"expected SECTION.FIELD or the name of a metric, got {odd[0]!r}")
        chosen, values = self._chosen(sweep, where or {})
        rows = self._rows(
            f"SELECT {', '.join(ROW.values())}, {'final' if metrics else 0}, config FROM runs "
            f"{'JOIN configs ON configs.id = config' if order in settings or where else ''} {chosen} "
            f"ORDER BY {sorted_by} IS NULL, {sorted_by}, runs.id LIMIT ?",
            [*values, *sort_values * 2, -1 if limit is None else limit],
        )
        documents = self._documents({row[-1] for row in rows}) if settings else {}
        found = []
        for *row, final, config in rows:
            one = dict(zip(ROW, row))
            one["diverged"] = bool(one["diverged"])
            ended = json.loads(final) if metrics else {}
            for column in columns:
                section, _, name = column.partition(".")
                one[column] = documents[config].get(section, {}).get(name) if name else ended.get(column)
            found.append(one)
        return found

    def _chosen(self, sweep: str | None, where: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """The WHERE of a query over runs and configs."""
        conditions, values = [], []
        if sweep is not None:
            self._check_sweep(sweep)
            conditions.append(f"runs.id IN ({RUNS_OF_SWEEP})")
            values.append(sweep)
        for key, value in where.items():
            if not re.fullmatch(r"\w+\.\w+", key):
                raise ConfigError("where", f"expected SECTION.FIELD, got {key!r}")
            expression, path = _expression(key)
            conditions.append(f"{expression} IS json_extract(?, '$')")
            values += [*path, canonical(value)]
        return f"WHERE {' AND '.join(conditions)}" if conditions else "", values

    def _documents(self, numbers: Iterable[int]) -> dict[int, dict[str, Any]]:
        """Configurations by their numbers."""
        query = "SELECT id, document FROM configs WHERE id IN (SELECT value FROM json_each(?))"
        return {number: json.loads(text) for number, text in self._rows(query, [json.dumps([*numbers])])}

    def count(self, *, sweep: str | None = None, where: Mapping[str, Any] | None = None) -> int:
        """How many runs `list` would give."""
        chosen, values = self._chosen(sweep, where or {})
        return self._one(f"SELECT count(*) FROM runs JOIN configs ON configs.id = config {chosen}", values)

    def configurations(
        self, *, sweep: str | None = None, where: Mapping[str, Any] | None = None
    ) -> list[dict[str, dict[str, Any]]]:
        """The different configurations of the runs that `list` would give, as nested tables."""
        chosen, values = self._chosen(sweep, where or {})
        rows = self._rows(f"SELECT DISTINCT config FROM runs JOIN configs ON configs.id = config {chosen}", values)
        return [*self._documents(row[0] for row in rows).values()]

    def metrics(self) -> list[str]:
        """The names of all final metrics that runs have."""
        return [row[0] for row in self._rows("SELECT DISTINCT key FROM runs, json_each(final) ORDER BY key")]

    def describe(self, number: int) -> dict[str, Any]:
        """All of a run but its curves: its row with every final metric, its sweeps, its maker and its configuration.

        Raises:
            ConfigError: it is not there.
        """
        rows = self._rows(
            f"SELECT {', '.join(ROW.values())}, final, makers.document, configs.document FROM runs "
            "JOIN makers ON makers.id = maker JOIN configs ON configs.id = config WHERE runs.id = ?",
            (number,),
        )
        if not rows:
            raise self._no_run(number)
        row = dict(zip(ROW, rows[0]))
        final, made_by, run = map(json.loads, rows[0][-3:])
        sweeps = self._rows(
            "SELECT name FROM runs JOIN members ON members.config = runs.config AND members.seed = runs.seed "
            "JOIN sweeps ON name = sweep AND sweeps.maker = runs.maker WHERE runs.id = ? ORDER BY name",
            (number,),
        )
        del row["loss"]
        row["diverged"] = bool(row["diverged"])
        return row | {"final": final, "sweeps": [name for (name,) in sweeps], "maker": made_by, "configuration": run}

    def sweeps(self) -> list[dict[str, Any]]:
        """All sweeps: name, date, runs wanted and runs there."""
        names = ("sweep", "created", "runs", "done")
        query = (
            "SELECT name, sweeps.created, count(*), count(runs.id) FROM sweeps JOIN members ON sweep = name "
            "LEFT JOIN runs ON runs.config = members.config AND runs.seed = members.seed AND runs.maker = sweeps.maker "
            "GROUP BY name ORDER BY sweeps.created, name"
        )
        return [dict(zip(names, row)) for row in self._rows(query)]

    def _no_run(self, number: int) -> ConfigError:
        return ConfigError("run", f"there is no run {number} in {str(self.path)!r}")

    def _check_sweep(self, name: str) -> None:
        if self._one("SELECT name FROM sweeps WHERE name = ?", (name,)) is None:
            known = ", ".join(entry["sweep"] for entry in self.sweeps()) or "none"
            raise ConfigError("sweep", f"there is no {name!r} in {str(self.path)!r}; there: {known}")
