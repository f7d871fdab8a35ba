"""Where the time of a call goes, by operation, from jax's own profiler."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MOST = 25  # operations that are kept


def profile(job: Callable[[], Any]) -> dict[str, Any]:
    """Seconds by operation of a job that has been compiled before, the most first.

    Returns:
        `seconds` of the job under the profiler; `busy_seconds` of all operations together (of several lines of
        execution, so it may exceed the former); `operations`: name, seconds and count of each.
    """
    import jax

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with jax.profiler.trace(folder):
            jax.block_until_ready(job())
        seconds = time.perf_counter() - began
        totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
        for path in Path(folder).rglob("*.xplane.pb"):
            for name, spent in _operations(jax.profiler.ProfileData.from_file(str(path))):
                totals[name][0] += spent
                totals[name][1] += 1
    order = sorted(totals.items(), key=lambda item: -item[1][0])
    operations = [{"name": name, "seconds": spent, "count": int(count)} for name, (spent, count) in order]
    return {
        "seconds": seconds,
        "busy_seconds": sum(o["seconds"] for o in operations),
        "kinds": len(operations),
        "operations": operations[:MOST],
    }


def _operations(data: Any) -> Iterator[tuple[str, float]]:
    """Name and seconds of each operation that a compiled program made, on the devices or on a CPU's threads."""
    planes = list(data.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:") and "CUSTOM" not in plane.name]
    for plane in devices or planes:
        for line in plane.lines:
            for event in line.events:
                names = {name for name, _ in event.stats}
                if "hlo_op" in names or "hlo_module" in names:
                    yield event.name, event.duration_ns * 1e-9
