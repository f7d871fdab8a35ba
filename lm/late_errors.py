"""What orbax leaves to be told, at length, by others of the reads and writes of which one has failed.

It begins many at once, raises the error of the first that fails and waits for no other. Each of them that fails, or
only ends, later is reported by asyncio (an exception that nobody retrieved) or by tensorstore (an event loop that is
closed), whenever Python comes to let go of it. Only what was raised is to be told.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

NAMES = ("orbax", "OCDBT")  # its functions and unfinished folders; the database that it writes to


def leave_out() -> None:
    """Leave these reports out from now on, in this process; others are made as before."""
    logging.getLogger("asyncio").addFilter(_is_of_others)
    sys.unraisablehook = _but_for_ends(sys.unraisablehook)


def _is_of_others(record: logging.LogRecord) -> bool:
    """Whether a record of asyncio's, which names the function or error that it is about, names none of orbax's."""
    return not any(name in record.getMessage() for name in NAMES)


def _but_for_ends(report: Callable[[Any], object]) -> Callable[[Any], None]:
    """What `report` does, as `sys.unraisablehook`, but for one error of an object that nobody knows: tensorstore's."""

    def hook(what: Any) -> None:
        if what.object is not None or repr(what.exc_value) != "RuntimeError('Event loop is closed')":
            report(what)

    return hook
