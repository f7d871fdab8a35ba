"""What is seen of a training: a bar on a terminal; elsewhere a line at each evaluation, and at least each minute."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from lm.pace import Peak

if TYPE_CHECKING:
    from lm.loop import Progress

EVERY = 60.0  # seconds between lines


@contextmanager
def display(name: str, peak: Peak) -> Iterator[Callable[[Progress], None]]:
    """What a training is to call after each arrival.

    Args:
        name: of the run.
        peak: what its utilisation is a share of.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console, lines = Console(stderr=True), _Lines(name, peak)
    columns = TextColumn("{task.fields[name]:8}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("compiling", total=None, name=name)

        def report(progress: Progress) -> None:
            done, total = progress.local_steps, progress.total_steps
            bar.update(task, description=told(progress, peak), completed=done, total=total)
            if not console.is_terminal:
                lines.report(progress)

        yield report


def told(progress: Progress, peak: Peak) -> str:
    """The last held-out loss, and how fast it goes."""
    said = f"held-out loss {progress.point.metrics['loss']:.4f}"
    if progress.speed is None:
        return said
    tokens, operations = progress.speed
    return f"{said}, {tokens:,.0f} tokens/s, {operations / 1e9:,.0f} GFLOP/s ({100 * operations / peak.rate:.0f} %)"


class _Lines:
    """Lines on standard error, now and then."""

    def __init__(self, name: str, peak: Peak):
        self._name, self._peak, self._last, self._at = name, peak, None, 0.0

    def report(self, progress: Progress) -> None:
        if self._last is None:
            self._say(f"per cent are of {self._peak.rate / 1e9:,.0f} GFLOP/s, {self._peak.said}")
        elif progress.point == self._last and time.monotonic() - self._at < EVERY:
            return
        self._last, self._at = progress.point, time.monotonic()
        said = f"{progress.local_steps:,} of {progress.total_steps:,} local steps, {told(progress, self._peak)}"
        if progress.seconds_left:
            said += f", {timedelta(seconds=round(progress.seconds_left))} left"
        self._say(said)

    def _say(self, said: str) -> None:
        print(f"{self._name}: {said}", file=sys.stderr, flush=True)


# Read back


class Line(NamedTuple):
    """What a line says."""

    local_steps: int
    total_steps: int
    loss: float  # of the last evaluation, held out
    said: str


LINE = re.compile(r"[^:]+: (?P<said>(?P<done>[\d,]+) of (?P<all>[\d,]+) local steps, held-out loss (?P<loss>[^ ,]+).*)")


def read(lines: Iterable[str]) -> list[Line]:
    """What a training has said of its progress, among other lines."""
    found = []
    for matched in filter(None, map(LINE.fullmatch, lines)):
        done, total = (int(matched[name].replace(",", "")) for name in ("done", "all"))
        found.append(Line(done, total, float(matched["loss"]), matched["said"]))
    return found
