"""Scenes that tell the story, each at rates tuned on the preset where there are some."""

from __future__ import annotations

from typing import Any, NamedTuple

from toybench.clusters import sec_per_step
from toybench.study import ARMS, arm_run, vary
from toybench.views.scene import Scene, preset_run, tuned

PRESET = "default"


class Story(NamedTuple):
    """A scene and what to see in it."""

    text: str
    scene: Scene


def _arms(*arms: str, **changes: Any) -> Scene:
    base = preset_run(PRESET)
    runs = (vary(arm_run(base, arm, tuned(PRESET, arm)), changes.get("all", {})) for arm in arms)
    return Scene(PRESET, runs=tuple(runs))


def stories() -> dict[str, Story]:
    """By name, the first is what the app opens with."""
    base = preset_run(PRESET)
    wide = {"cluster.sec_per_step": sec_per_step(16, "very")}
    broken = vary(base, ARMS["async_nesterov"][1] | tuned(PRESET, "sync_nesterov"))
    return {
        "the pathology": Story(
            "Each at its own best outer rate. Waiting for nobody, Nesterov does worse than waiting for everybody, and "
            "worse than plain SGD: the server's momentum pushes on while stale pseudo-gradients arrive.",
            _arms("async_nesterov", "async_sgd"),
        ),
        "equal speeds": Story(
            "Not only stragglers do it: with equal speeds every arrival is stale all the same, because the workers' "
            "pseudo-gradients are applied one after the other.",
            _arms("async_nesterov", "async_nesterov_equal"),
        ),
        "DN + DyLU": Story(
            "Delayed Nesterov refreshes momentum only every N arrivals; Dynamic Local Updates give slower workers "
            "fewer steps. Together they end where waiting ends, in a fraction of its time.",
            _arms("async_nesterov", "delayed_nesterov_dylu"),
        ),
        "16 workers": Story(
            "More workers, more staleness. The rates are those tuned with four workers; sweep them to be fair.",
            _arms("async_nesterov", "delayed_nesterov_dylu", all=wide),
        ),
        "break it": Story(
            "Asynchronous Nesterov at the outer rate that is best when everybody waits.",
            Scene(PRESET, runs=(broken,)),
        ),
    }
