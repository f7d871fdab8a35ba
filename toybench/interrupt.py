"""Ctrl-C without an exception in the wrong place: within a library's start or callback it would crash, or be swallowed.

Where there is nothing to keep, an interrupt ends the process at once. Within `held` it is only noted: the work looks
for it between its steps with `check`, keeps what is finished, and a second interrupt ends the process all the same.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERRUPTED = 130  # the exit status
TERMINATED = 143  # after SIGTERM


class Interrupt:
    """What is known of SIGINT in this process."""

    def __init__(self) -> None:
        self.asked, self.holding = False, False

    def install(self) -> None:
        """Answer SIGINT from now on; only the main thread may."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self.__call__)

    def __call__(self, *_: object) -> None:
        if self.asked or not self.holding:
            os.write(2, b"interrupted\n")
            os._exit(INTERRUPTED)
        self.asked = True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, an interrupt waits for `check`."""
        before, self.holding = self.holding, True
        try:
            yield
        finally:
            self.holding = before

    def check(self) -> None:
        """Raise KeyboardInterrupt if one waits."""
        if self.asked:
            raise KeyboardInterrupt


INTERRUPT = Interrupt()


@contextmanager
def terminated() -> Iterator[Callable[[], bool]]:
    """Within, SIGTERM and Ctrl-C only ask to stop: whether one has."""
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    try:
        with INTERRUPT.held():
            yield lambda: bool(asked) or INTERRUPT.asked
    finally:
        signal.signal(signal.SIGTERM, before)
