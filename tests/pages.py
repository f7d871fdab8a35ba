"""What the tests of the app's pages share: a page of a query string, its widgets, what it says and draws."""

import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import pytest

pytest.importorskip("streamlit")
from streamlit.testing.v1 import AppTest

from toybench.store import Store


def open_script(script: Callable, query: Mapping[str, str], *args: Any) -> AppTest:
    """A page that a function makes, as its address opens it."""
    at = AppTest.from_function(script, args=args, default_timeout=120)
    for name, value in query.items():
        at.query_params[name] = value
    return at.run()


def query_of(at):
    """The address of a page."""
    return {name: value if isinstance(value, str) else value[0] for name, value in at.query_params.items()}


def sound(at):
    """The page, which did not fail."""
    assert not at.exception and not any("page failed" in error.value for error in at.error)
    return at


def told(at):
    """The messages of a page that did not fail."""
    return [element.value for kind in ("warning", "error") for element in getattr(sound(at), kind)]


def texts(at):
    """All running text of a page."""
    return " ".join(element.value for element in at.markdown)


def drawn(at):
    """The charts of a page, each as its specification."""
    return [json.loads(chart.proto.spec) for chart in at.get("vega_lite_chart")]


def widget(at, kind, key):
    return next(w for w in getattr(at, kind) if w.key == key)


def has(at, kind, key):
    return any(w.key == key for w in getattr(at, kind))


def move(at, kind, key, value):
    """The page after a widget was moved."""
    return widget(at, kind, key).set_value(value).run()


def press(at, key):
    """The page after a click on a button."""
    return widget(at, "button", key).click().run()


def until(condition, at=None, seconds=120.0):
    """Look again and again, at a page by running it anew."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        if at is None:
            time.sleep(0.02)
        else:
            time.sleep(0.1)
            at.run()


def newer(path):
    """A store of a version to come."""
    Store(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def of_another_program(path):
    """A database that is no store."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
