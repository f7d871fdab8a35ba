"""Workers as threads of the server's own process: real asynchrony without anything to install."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from toybench.transports.house import first_look, kept, status
from toybench.transports.live import Live
from toybench.transports.messages import Push, Reply
from toybench.transports.work import Work
from toybench.transports.worker import serve

BEAT = 0.25  # seconds between reports


class Direct:
    """The server, called as it is."""

    def __init__(self, live: Live):
        self.live = live

    def hello(self, worker: int, about: Mapping[str, str] | None, who: str) -> Reply:
        return self.live.hello(worker, about, who)

    def push(self, push: Push) -> Reply:
        return self.live.push(push)

    def next(self, worker: int, who: str) -> Reply:
        return self.live.next(worker, who=who)


def run_threads(
    live: Live,
    work: Work,
    *,
    report: Callable[[dict[str, Any]], None] = lambda told: None,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train with one thread a worker until the run is over.

    Args:
        live: the server.
        work: the same that the server has; threads share it.
        report: told of the run a few times a second.
        stop: asked as often: whether to leave it at that.

    Returns:
        Whether it came to its end; what is there is in the server's folder.
    """
    ended = threading.Event()

    def one(worker: int) -> None:
        try:
            serve(work, Direct(live), live.rules, worker=worker, about=live.about, stop=ended.is_set)
        except Exception as error:  # a worker's own failure ends it, as it would a process
            live.gone(worker, f"died: {type(error).__name__}")
            live.fail(f"worker {worker}: {error}")

    first_look(live)
    with kept(live):
        threads = [threading.Thread(target=one, args=(w,), daemon=True) for w in range(work.run.cluster.workers)]
        for thread in threads:
            thread.start()
        while not live.settled and not stop():
            report(status(live))
            with live.changed:
                live.changed.wait_for(lambda: live.settled, BEAT)
        ended.set()
        until = time.monotonic() + 5.0
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))  # one that hangs is left behind
    live.close()
    report(status(live))
    return live.over and not live.failed
