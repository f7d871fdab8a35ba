"""Odd settings told to the page that made them, however many pages are at it in their threads."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from toybench.config import ConfigWarning

_hearing: ContextVar[list[str] | None] = ContextVar("hearing", default=None)  # of this thread
_installing = threading.Lock()
_installed: Callable[..., None] | None = None


@contextmanager
def warned() -> Iterator[list[str]]:
    """What is warned of a configuration within, in this thread and no other.

    `warnings.catch_warnings` is no help here: it swaps what the whole process does with its warnings, so that of two
    threads one hears the other's, and the one that leaves last puts back what the first had put in.
    """
    _install()
    found: list[str] = []
    before = _hearing.set(found)
    try:
        yield found
    finally:
        _hearing.reset(before)


def _install() -> None:
    """Have warnings shown by a function that knows who hears them; again, if someone has put another in its place."""
    global _installed
    with _installing:
        if ("always", None, ConfigWarning, None, 0) not in warnings.filters:
            warnings.simplefilter("always", ConfigWarning)  # not only the first from a line of code
        if warnings.showwarning is not _installed:
            warnings.showwarning = _installed = _shown_to(warnings.showwarning)


def _shown_to(others: Callable[..., None]) -> Callable[..., None]:
    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        hearing = _hearing.get()
        if hearing is not None and issubclass(category, ConfigWarning):
            hearing.append(str(message))
        else:
            others(message, category, *where, **more)

    return show
