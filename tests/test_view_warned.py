"""Odd settings are told to the page that made them, though pages run in threads."""

import threading
import warnings
from types import SimpleNamespace

import pytest

from tests.pages import move, open_script, told, widget
from toybench.config import ConfigWarning
from toybench.loading import overlay
from toybench.presets import load_preset
from toybench.views import controls
from toybench.views.scene import Scene
from toybench.views.warned import warned

DN = overlay(load_preset("fast"), {"outer.method": "delayed_nesterov"})  # of four workers


def at_once(*works):
    """Call each in a thread of its own; what they return."""
    found = [None] * len(works)
    threads = [
        threading.Thread(target=lambda i=i, work=work: found.__setitem__(i, work())) for i, work in enumerate(works)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return found


@pytest.fixture
def shown(monkeypatch):
    """What the process is shown of warnings."""
    found = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *where, **more: found.append(str(message)))
    return found


def test_each_thread_hears_its_own_and_the_process_all_else(shown):
    together = threading.Barrier(2, timeout=30)

    def first():
        with warned() as odd:
            together.wait()  # both are within
            warnings.warn("mine", ConfigWarning, stacklevel=1)
            warnings.warn("mine", ConfigWarning, stacklevel=1)
            together.wait()
        together.wait()  # which leaves first
        return odd

    def second():
        with warned() as odd:
            together.wait()
            warnings.warn("yours", ConfigWarning, stacklevel=1)
            warnings.warn("another matter", RuntimeWarning, stacklevel=1)
            together.wait()
            together.wait()
            warnings.warn("yours", ConfigWarning, stacklevel=1)
        warnings.warn("too late", ConfigWarning, stacklevel=1)
        return odd

    assert at_once(first, second) == [["mine", "mine"], ["yours", "yours"]]
    assert shown == ["another matter", "too late"]


def test_who_hears_is_as_before_when_one_has_left(shown):
    with warned() as outer:
        with pytest.raises(ZeroDivisionError), warned() as inner:
            warnings.warn("inner", ConfigWarning, stacklevel=1)
            raise ZeroDivisionError
        warnings.warn("outer", ConfigWarning, stacklevel=1)
    warnings.warn("nobody", ConfigWarning, stacklevel=1)
    assert (inner, outer, shown) == (["inner"], ["outer"], ["nobody"])


def test_whoever_takes_the_warnings_over_meanwhile_takes_none_of_these(monkeypatch):
    with warned():
        pass
    kept = []
    monkeypatch.setattr(warnings, "showwarning", lambda *warning: kept.append(warning))
    with warned() as odd:
        warnings.warn("odd", ConfigWarning, stacklevel=1)
    assert odd == ["odd"] and kept == []


class SlowScene:
    """A scene that changes while the other page's does."""

    def __init__(self, together):
        self.scene, self.together = Scene("fast", runs=(DN,)), together
        self.runs = self.scene.runs

    def change(self, i, changes):
        self.together.wait()
        changed = self.scene.change(i, changes)
        self.together.wait()
        return changed


def test_two_pages_that_change_at_once_are_told_of_their_own(monkeypatch):
    together, own = threading.Barrier(2, timeout=30), threading.local()
    fake = SimpleNamespace(
        scene=lambda: own.scene,
        put_scene=lambda scene: own.put.append(scene),
        complain=lambda said: own.told.append(said),
        kept=lambda name, default: default,
    )
    monkeypatch.setattr(controls, "state", fake)

    def page(activation):
        own.scene, own.put, own.told = SlowScene(together), [], []
        controls.put(0, {"outer.activation": activation})
        [scene] = own.put
        return scene.runs[0].outer.activation, own.told

    for _ in range(5):
        assert at_once(lambda: page(0.7), lambda: page(0.9)) == [
            (0.7, ["outer.activation: 0.7 is above 1/N = 0.25"]),
            (0.9, ["outer.activation: 0.9 is above 1/N = 0.25"]),
        ]


def test_an_odd_setting_is_told_each_time_it_is_made():
    def script():
        from toybench.views import controls, state

        state.page(lambda: controls.outer(0))

    at = open_script(script, {"preset": "fast", "a.outer.method": "delayed_nesterov"})
    for value in (0.9, 0.2, 0.9):
        move(at, "slider", "c.0.outer.activation", value)
        assert widget(at, "slider", "c.0.outer.activation").value == value
        assert told(at) == ["outer.activation: 0.9 is above 1/N = 0.25"] * (value == 0.9)
