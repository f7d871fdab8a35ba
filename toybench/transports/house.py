"""What a server does beside answering: give up who is late, close groups, evaluate, write checkpoints."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from toybench.config import ConfigError
from toybench.transports.keeping import Point
from toybench.transports.live import LATE, Live

BEAT = 0.02  # seconds between looks at the clock
DOUBLINGS = 10  # of a limit, at most


@contextmanager
def kept(live: Live) -> Iterator[None]:
    """Within, the server's house is kept, by two threads."""
    stop = threading.Event()
    threads = [threading.Thread(target=loop, args=(live, stop), daemon=True) for loop in (_watch, _evaluate)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _watch(live: Live, stop: threading.Event) -> None:
    kept_at = time.monotonic()
    while not stop.wait(BEAT):
        with _failing(live):
            give_up_the_late(live)
            live.close_if_due()
            if time.monotonic() - kept_at > live.rules.every and live.checkpoint():
                kept_at = time.monotonic()


def _evaluate(live: Live, stop: threading.Event) -> None:
    while not stop.wait(BEAT):
        with _failing(live):
            while evaluate(live):
                pass


@contextmanager
def _failing(live: Live) -> Iterator[None]:
    """Nobody would keep the house if this thread ended, and the run would hang: it fails."""
    try:
        yield
    except ConfigError as error:
        live.fail(str(error))
    except Exception as error:
        live.fail(f"{type(error).__name__}: {error}")


def evaluate(live: Live) -> bool:
    """Make the next evaluation that is due, if any."""
    with live.changed:
        if not live.due:
            return False
        due, params = live.due[0]
    metrics = live.work.evaluate(params)
    with live.changed:
        live.points.append(due._replace(metrics=metrics))
        live.due.popleft()
    return True


def limit_of(live: Live, worker: int) -> float:
    """Seconds that a worker may take for what it is doing; twice as many after each time that they were not enough.

    A known worker that begins anew has the first visit's seconds too, but no more of them: it may hang again.
    """
    rules, coordinator, declared = live.rules, live.coordinator, live.work.run.cluster.sec_per_step
    given, known = coordinator.running[worker], coordinator.speeds
    slowed = declared[worker % len(declared)] if rules.pace else 0.0
    expected = given.visit.num_steps * known.get(worker, slowed) * (rules.pace or 1.0)
    patience = 2.0 ** min(live.missed[worker], DOUBLINGS)
    limit = max(rules.least, rules.factor * expected) * patience
    if worker not in known:
        return max(limit, rules.first * patience)
    return max(limit, rules.first) if given.reset else limit


def give_up_the_late(live: Live) -> list[int]:
    """Workers whose visit has taken too long are held for dead; what they did is given out again."""
    with live.changed:
        if live.over or live.failed or live.closed:
            return []
        now = live.now
        late = [
            worker
            for worker, given in live.coordinator.running.items()
            if not live.knocking[worker] and now - max(given.since, live.opened_at) > limit_of(live, worker)
        ]
        for worker in late:  # before a push can come in between
            live.gone(worker, LATE)
    return late


def status(live: Live) -> dict[str, Any]:
    """What there is to see of a run, as JSON can say it."""
    with live.changed:
        coordinator, now, unit = live.coordinator, live.now, live.rules.pace or 1.0
        workers = []
        for worker in sorted(coordinator.known):
            given = coordinator.running.get(worker)
            state = "computing" if given else "waiting" if worker in coordinator.scheduler.present else "gone"
            workers.append(
                {
                    "worker": worker,
                    "state": state,
                    "seconds_per_step": coordinator.speeds[worker] * unit if worker in coordinator.speeds else None,
                    "steps": given.visit.num_steps if given else None,
                    "for": now - max(given.since, live.opened_at) if given else None,
                    "staleness": live.stalest.get(worker),
                    "loss": live.losses.get(worker),
                    "visits": live.visits[worker],
                }
            )
        recent = sum(1 for a in reversed(coordinator.arrivals[-10_000:]) if a.time > now - 60)
        return {
            "time": now,
            "local_steps": coordinator.steps_done,
            "total_steps": coordinator.goal,
            "arrivals": len(coordinator.arrivals),
            "arrivals_per_minute": recent * 60 / min(60, max(now, 1e-9)),
            "bytes_per_second": (live.counts["bytes in"] + live.counts["bytes out"]) / max(now, 1e-9),
            "lost": coordinator.lost,
            "counts": dict(live.counts),
            "workers": workers,
            "points": [[*point] for point in live.points],
            "done": live.over,
            "failed": live.failed,
        }


Report = Callable[[dict[str, Any]], None]


def first_look(live: Live) -> None:
    """The evaluation before any training, once."""
    if not live.points:
        live.points.append(Point(0, 0, 0.0, live.work.evaluate(live.work.init())))
