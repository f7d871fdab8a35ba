"""What a long run tells on its way: speed, utilisation, time left; and that no checkpoint is of a lost one."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_lm_train import BUDGET, CLUSTER, Lookup, training

from lm import display, pace
from lm.checkpoint import Checkpoints
from lm.loop import NotFinite, Progress, Speed, carry_out
from lm.pace import Pace, Peak, peak_of
from lm.promote import ACCELERATORS
from lm.train import Point

PEAK = Peak(1e9, "a test")


def small():
    """A training whose visits are all of one length, and so of one program."""
    return training(cluster=replace(CLUSTER, dynamic_steps=False))


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = SimpleNamespace(seconds=1000.0)
    for module in (pace, display):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


# Speed


def test_compilation_does_not_slow_a_pace_down(clock):
    one = Pace(100, 1000)
    assert (one.rate, one.seconds_left, one.done) == (None, None, 100)
    clock.seconds += 300.0  # compiling
    one.taken(150)
    assert one.rate is None and one.done == 150
    clock.seconds += 5.0
    one.taken(200)
    assert one.rate == pytest.approx(10.0) and one.seconds_left == pytest.approx(80.0)


def test_visits_of_one_wave_tell_no_speed(clock):
    """They are known within microseconds of each other: that said 16 million tokens a second once."""
    one = Pace(0, 1000)
    for done in (50, 100, 150):
        clock.seconds += 1e-5
        one.taken(done)
    assert (one.rate, one.seconds_left, one.done) == (None, None, 150)


def test_a_pace_is_of_the_last_minute(clock):
    one = Pace(0, 10_000)
    for n in range(1, 41):
        clock.seconds += 10.0
        one.taken(100 * n if n <= 20 else 2000 + 10 * (n - 20))
    assert one.rate == pytest.approx(1.0)
    clock.seconds += 3600.0  # a visit may take longer
    one.taken(one.done + 3600)
    assert one.rate == pytest.approx(1.0)


@pytest.mark.parametrize("name", ACCELERATORS)
def test_a_device_that_is_known_has_its_makers_peak(monkeypatch, name):
    known = ACCELERATORS[name]
    for kind in known.kinds:
        peak_of.cache_clear()
        monkeypatch.setattr(jax, "local_devices", lambda kind=kind: [SimpleNamespace(device_kind=kind)])
        assert peak_of("bfloat16", 3).rate == 3 * known.peak and known.name in peak_of("float32").said
    peak_of.cache_clear()


def test_no_two_accelerators_have_a_name_in_common():
    kinds = [kind for one in ACCELERATORS.values() for kind in one.kinds]
    assert len(kinds) == len(set(kinds)) and kinds


def test_another_device_is_measured(monkeypatch):
    from lm import benchmark

    monkeypatch.setattr(benchmark, "product_rate", lambda dtype: {"float32": 5.0, "bfloat16": 7.0}[dtype])
    peak_of.cache_clear()
    assert (
        peak_of("float32") == Peak(5.0, "matrix products in float32, measured here") and peak_of("bfloat16", 2)[0] == 14
    )
    peak_of.cache_clear()


def test_lines_come_at_evaluations_and_every_minute(clock, capsys):
    one = [Point(0, 0, 0.0, {"loss": 5.0}), Point(3, 30, 9.0, {"loss": 4.0})]
    with display.display("run", PEAK) as report:
        for step in range(0, 100, 10):
            speed = Speed(1234.0, 5e8) if step > 10 else None
            report(Progress(step, 100, one[step >= 50], None, speed, 7205.0 if step > 10 else None))
            clock.seconds += 25.0
    assert capsys.readouterr().err.splitlines() == [
        "run: per cent are of 1 GFLOP/s, a test",
        "run: 0 of 100 local steps, held-out loss 5.0000",
        "run: 30 of 100 local steps, held-out loss 5.0000, 1,234 tokens/s, 0 GFLOP/s (50 %), 2:00:05 left",
        "run: 50 of 100 local steps, held-out loss 4.0000, 1,234 tokens/s, 0 GFLOP/s (50 %), 2:00:05 left",
        "run: 80 of 100 local steps, held-out loss 4.0000, 1,234 tokens/s, 0 GFLOP/s (50 %), 2:00:05 left",
    ]


def test_what_is_reported_is_the_run(monkeypatch):
    monkeypatch.setattr(pace, "LEAST", 1e-9)  # it takes no longer
    one, seen = small(), []
    done = carry_out(one, report=seen.append)
    assert seen[0].visit is None and seen[0].point.arrival == 0
    visits = [progress.visit for progress in seen[1:]]
    timeline = one.timeline
    for name in ("local_steps", "time", "worker", "staleness"):
        np.testing.assert_allclose([getattr(visit, name) for visit in visits], getattr(timeline, name))
    assert all(np.isfinite(visit.loss) for visit in visits)
    points = list({progress.point.arrival: progress.point for progress in seen}.values())
    assert [point.metrics["loss"] for point in points] == done.curves.metrics["loss"][0].tolist()
    last = seen[-1]
    assert last.local_steps == last.total_steps and last.speed is not None and last.seconds_left == 0.0


def test_no_checkpoint_is_of_a_run_that_has_lost_itself(tmp_path):
    """The visit that is evaluated after is the one that explodes."""

    @dataclass(frozen=True)
    class Exploding(Lookup):
        def loss(self, params, batch):
            return super().loss(params, batch) / jnp.where(jnp.abs(params["table"]).max() > 0.6, 0.0, 1.0)

    one = small()
    one = replace(one, task=Exploding(), run=replace(one.run, budget=replace(BUDGET, evaluations=1000)))
    checkpoints = Checkpoints(tmp_path, one)
    with pytest.raises(NotFinite, match="the last good checkpoint is"):
        carry_out(one, checkpoints, every=0.0)
    saved = checkpoints.latest()
    checkpoints.close()
    assert saved is not None and np.isfinite(one.evaluate(saved.state)["loss"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved.state) if leaf.dtype.kind == "f")
