"""A real run as it goes: a table on a terminal, elsewhere plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

EVERY = 10.0  # seconds between lines


@contextmanager
def shown(name: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What a real run is to call with its status, see `toybench.transports.house.status`."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(name)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda status: live.update(table_of(name, status))


class _Lines:
    """Lines on standard error: at evaluations, when workers come or go, and now and then."""

    def __init__(self, name: str):
        self._name, self._seen, self._at = name, None, 0.0

    def __call__(self, status: dict[str, Any]) -> None:
        states = [(worker["worker"], worker["state"] == "gone") for worker in status["workers"]]
        seen = states, len(status["points"]), status["done"], status["lost"]
        if seen == self._seen and time.monotonic() - self._at < EVERY:
            return
        self._seen, self._at = seen, time.monotonic()
        print(f"{self._name}: {line_of(status)}", file=sys.stderr, flush=True)


def line_of(status: dict[str, Any]) -> str:
    """A status in a line."""
    workers, counts = status["workers"], status["counts"]
    there = [worker for worker in workers if worker["state"] != "gone"]
    said = [f"{status['local_steps']:,} of {status['total_steps']:,} local steps"]
    if status["points"]:
        said.append(f"held-out loss {status['points'][-1][3]['loss']:.4f}")
    said.append(f"{len(there)} of {len(workers)} workers")
    said.append(f"{status['arrivals_per_minute']:,.0f} arrivals/min, {size_of(status['bytes_per_second'])}/s")
    if counts.get("refused"):
        said.append(f"{counts['refused']} refused")
    if status["lost"]:
        said.append(f"{status['lost']} visits lost")
    return ", ".join(said)


def table_of(name: str, status: dict[str, Any]) -> Any:
    """A status as a table of rich's: a worker a row."""
    from rich.table import Table

    table = Table(title=f"{name}: {line_of(status)}", title_justify="left")
    for column in ("worker", "state", "s/step", "steps", "for", "staleness", "loss"):
        table.add_column(column, justify="left" if column == "state" else "right")
    forms = {"seconds_per_step": "{:.3g}", "steps": "{}", "for": "{:.1f} s", "staleness": "{}", "loss": "{:.4f}"}
    for worker in status["workers"]:
        cells = ["" if worker[key] is None else form.format(worker[key]) for key, form in forms.items()]
        table.add_row(str(worker["worker"]), worker["state"], *cells)
    return table


def size_of(number: float) -> str:
    """Bytes in words."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"
