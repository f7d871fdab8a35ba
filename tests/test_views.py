"""What the app stands on: scenes in a query string, work beside the pages, words and formulas."""

import threading
import time
import warnings

import numpy as np
import pytest

from toybench.config import Budget, Cluster, ConfigError, Gaussians, InnerAdamW, Run
from toybench.curves import Curves
from toybench.loading import overlay
from toybench.narrate import sentence, title
from toybench.outer import METHODS
from toybench.presets import load_preset, preset_names
from toybench.records import code
from toybench.study import vary
from toybench.timeline import simulate
from toybench.views import shipped, work
from toybench.views.jobs import Desk
from toybench.views.scene import LETTERS, Scene, decode, differences, encode, reference_of, seed_words, untuned, words
from toybench.views.stories import stories
from toybench.views.tex import lines, tex

BASE = load_preset("default")


# Scenes


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("method", METHODS)
def test_a_scene_comes_back_from_its_query_string(preset, method):
    run = overlay(load_preset(preset), {"outer.method": method, "cluster.grace": 2.5, "inner.optimizer": "sgd"})
    scene = Scene(preset, (3, 1, 7), (run, vary(run, {"cluster.sec_per_step": [1.0, 2.0, 0.1]})))
    assert decode(encode(scene)) == (scene, [])


def test_what_a_preset_sets_and_a_configuration_leaves_to_its_default_is_told():
    preset = load_preset("fast")
    run = overlay(preset, {"inner.decay_steps": 77})
    scene = Scene("fast", runs=(run, overlay(run, {"inner.decay_steps": None})))
    assert decode(encode(scene))[0] == scene
    assert differences("fast", overlay(run, {"inner.decay_steps": preset.inner.decay_steps})) == {}


def test_scenes_have_letters():
    """Also where a configuration is the preset's own, so that it has nothing else to say."""
    scene = Scene("fast", runs=(load_preset("fast"),) * len(LETTERS))
    query = {"preset": "fast", "seeds": "100:103", "a": "", "b": "", "c": "", "d": ""}
    assert encode(scene) == query and decode(query) == (scene, [])


def test_an_empty_query_is_the_default_preset():
    assert decode({}) == (Scene(), [])
    assert decode({"panel": "data", "embed": "true"}) == (Scene(), [])


@pytest.mark.parametrize(
    "query, said",
    [
        ({"preset": "nothing"}, "preset: unknown 'nothing'"),
        ({"seeds": "x"}, "seeds: expected"),
        ({"seeds": "0:100000"}, "seeds: expected"),
        ({"seeds": "0:17"}, "at most 16"),
        ({"a.outer.lr": "-1"}, "A: outer.lr: must be >= 0"),
        ({"a.outer.lr": "nan"}, "A: outer.lr: must be finite"),
        ({"b.outer.method": "<script>"}, "B: outer.method: unknown"),
        ({"c.nothing.at_all": "1"}, "C: nothing.at_all: unknown key"),
        ({"d.cluster.sec_per_step": "1 2 x"}, "D: cluster.sec_per_step: expected a number"),
        ({"a.cluster.sec_per_step": "1 " * 5000}, "A: cluster.sec_per_step: is too long"),
        ({"a.outer": "3"}, "A: outer: expected a table"),
        ({"a.__class__.x": "3"}, "A: __class__.x: unknown key"),
        ({"a.budget.rounds": "99999999999999999999"}, "A: budget.rounds: must be <"),
    ],
)
def test_what_cannot_be_in_a_query_is_told_and_left_out(query, said):
    scene, problems = decode(query)
    assert len(problems) == 1 and said in problems[0]
    assert scene.preset == "default" and scene.seeds == Scene.seeds and set(scene.runs) == {BASE}


def test_one_bad_setting_does_not_lose_the_good_ones():
    scene, problems = decode({"a.outer.period": "-3", "a.outer.method": "buffered", "a.outer.lr": "0.2"})
    assert scene.runs[0] == overlay(BASE, {"outer.method": "buffered", "outer.lr": 0.2}) and len(problems) == 1


def test_configurations_are_put_and_dropped():
    scene = Scene()
    other = vary(BASE, {"outer.lr": 0.5})
    scene = scene.put(1, other).put(2, other).put(3, other).put(4, other)
    assert scene.runs == (BASE, other, other, other)
    assert scene.drop(0).runs == (other,) * 3
    assert Scene().drop(0) == Scene()


@pytest.mark.parametrize(
    "value, said", [(None, ["none"]), (True, ["true"]), ([1, 2.5], ["1", "2.5"]), (1e-7, ["1e-07"])]
)
def test_words_of_a_value(value, said):
    assert words(value) == said


def test_seeds_in_short():
    assert seed_words((4, 5, 6)) == "4:7" and seed_words((3,)) == "3:4" and seed_words((5, 4)) == "5 4"


def test_the_reference_waits_for_everybody_on_the_same_problem():
    run = vary(BASE, {"outer.method": "delayed_nesterov", "cluster.dynamic_steps": True, "cluster.quorum": 2})
    reference = reference_of("default", run)
    assert (reference.task, reference.inner, reference.budget) == (run.task, run.inner, run.budget)
    assert reference.cluster.sec_per_step == run.cluster.sec_per_step
    assert reference.cluster.barrier and not reference.cluster.dynamic_steps and reference.outer.lr == 1.18
    assert title(reference) == "sync Nesterov" and title(run) == "async DN + DyLU"
    assert reference_of("notebook", run).outer.lr == load_preset("notebook").outer.lr


# Work beside the pages


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def desk():
    desk = Desk(threads=1, keep=3)
    yield desk
    desk.close()


class Work:
    """Work that begins, waits to be let go, and reports on the way."""

    def __init__(self, result=None):
        self.began, self.go, self.runs, self.result = threading.Event(), threading.Event(), 0, result

    def __call__(self, job):
        self.runs += 1
        self.began.set()
        while not self.go.wait(0.002):
            job.report()
        job.report(1.0, "ending")
        return self.result


def test_the_same_key_is_worked_on_once_for_all_that_ask(desk):
    work = Work(42)
    one, two = desk.ask("a", "key", work), desk.ask("b", "key", work)
    work.go.set()
    assert one is two and one.wait(5) and one.state == "done" and one.result == 42 and one.share == 1.0
    assert desk.ask("c", "key", work) is one and work.runs == 1


def test_ten_moves_leave_one_stale_computation_at_most(desk):
    moves = [Work(i) for i in range(10)]
    jobs = []
    for i, move in enumerate(moves):
        desk.keep_only("page", [i])
        jobs.append(desk.ask("page", i, move))
        if i == 0:
            assert move.began.wait(5)
    assert desk.unfinished() <= 2  # the one that ran when the second move came, and the last
    moves[-1].go.set()
    assert jobs[-1].wait(5) and jobs[-1].result == 9
    assert [job.state for job in jobs[:-1]] == ["dropped"] * 9
    assert sum(move.runs for move in moves) == 2


def test_what_another_page_wants_is_not_dropped(desk):
    work = Work("done")
    job = desk.ask("a", "key", work)
    desk.ask("b", "key", work)
    desk.keep_only("a", [])
    work.go.set()
    assert job.wait(5) and job.state == "done"


def test_work_that_was_dropped_can_be_asked_for_again(desk):
    work = Work("done")
    first = desk.ask("a", "key", work)
    assert work.began.wait(5)
    desk.keep_only("a", [])
    second = desk.ask("a", "key", work)
    work.go.set()
    assert first.wait(5) and first.state == "dropped"
    assert second.wait(5) and second.state == "done"


@pytest.mark.parametrize(
    "error, said",
    [(ConfigError("outer.lr", "is odd"), "outer.lr: is odd"), (MemoryError("no room\nat all"), "MemoryError: no room")],
)
def test_what_goes_wrong_is_said_and_the_desk_goes_on(desk, error, said):
    def work(job):
        raise error

    job = desk.ask("a", "bad", work)
    assert job.wait(5) and job.state == "failed" and job.problem == said
    again = desk.ask("a", "bad", lambda job: "good")  # what failed is tried anew
    assert again.wait(5) and again.result == "good"


def test_a_desk_keeps_the_last_results_only(desk):
    for i in range(8):
        assert desk.ask("a", i, lambda job: None).wait(5)
    until(lambda: len(desk._jobs) <= 3)
    assert 7 in desk._jobs


def test_a_result_that_is_there_needs_no_work(desk):
    desk.put("key", 7)
    job = desk.ask("a", "key", lambda job: 1 / 0)
    assert job.ended and job.result == 7
    desk.put("key", 8)
    assert desk.ask("a", "key", lambda job: 1 / 0).result == 7


def test_a_closed_desk_has_no_threads_left():
    desk = Desk(threads=2)
    work = Work()
    job = desk.ask("a", "key", work)
    assert work.began.wait(5)
    desk.close()
    assert job.state == "dropped" and not any(thread.is_alive() for thread in desk._threads)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"budget.rounds": 100_000}, "local steps are too many"),
        ({"task.hidden": 4096, "task.dimension": 4096}, "floating point operations"),
        ({"cluster.local_steps": 1, "budget.rounds": 20_000}, "visits are too many"),
        ({"cluster.sec_per_step": [1.0] * 101}, "cluster.sec_per_step: 101 are too many"),
        ({"budget.evaluations": 501}, "budget.evaluations: 501 are too many"),
    ],
)
def test_what_would_keep_a_page_busy_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        work.check_affordable(overlay(BASE, changes), 3)
    work.check_affordable(BASE, 16)


@pytest.mark.parametrize(
    "rules", [{}, {"barrier": True}, {"dynamic_steps": True}, {"dynamic_steps": True, "grace": 3.0}]
)
def test_visits_are_estimated(rules):
    run = overlay(BASE, {f"cluster.{name}": value for name, value in rules.items()})
    assert work.visits_of(run) == pytest.approx(len(simulate(run.cluster, run.budget, 0).time), rel=0.1)


def test_what_a_closed_page_wanted_is_dropped():
    there = {"a", "b"}
    desk = Desk(threads=1, alive=there.__contains__)
    work = Work("done")
    job = desk.ask("a", "key", work)
    desk.ask("b", "key", work)
    assert work.began.wait(5)
    there.discard("a")
    time.sleep(0.05)
    assert job.state == "running"  # for the other page
    there.discard("b")
    assert job.wait(5) and job.state == "dropped"
    desk.close()


@pytest.mark.parametrize(
    "preset, changes, said",
    [
        ("default", {}, ""),
        ("default", {"outer.method": "sgd", "cluster.grace": 3.0, "cluster.sec_per_step": [1.0] * 4}, ""),
        ("default", {"cluster.local_steps": 61}, "tuned on preset default, not for another cluster"),
        ("default", {"task.noise": 0.4, "inner.lr": 0.1}, "not for another task or inner"),
        ("default", {"cluster.sec_per_step": [1.0] * 5}, "not for another cluster"),
        ("notebook", {}, "nothing was tuned on it"),
    ],
)
def test_a_reference_says_what_its_rate_was_tuned_for(preset, changes, said):
    note = untuned(preset, overlay(load_preset(preset), changes))
    assert (said in note) if said else note == ""


# The stories


def test_the_shipped_results_are_those_that_the_stories_show():
    """Refreshed by `python -m experiments.stories`."""
    assert shipped.read(), f"made by other code than {code()}"
    there = {(result.run, result.seeds) for result in shipped.read()}
    for story in stories().values():
        for run in story.scene.runs:
            assert (run, story.scene.seeds) in there
            assert (reference_of(story.scene.preset, run), story.scene.seeds) in there


def test_a_shipped_result_is_what_training_gives():
    scene = next(iter(stories().values())).scene
    desk = Desk(threads=1)
    job = desk.ask("a", "key", work.train_curves(scene.runs[0], scene.seeds))
    assert job.wait(120) and job.state == "done", job.problem
    desk.close()
    [shown] = [result for result in shipped.read() if (result.run, result.seeds) == (scene.runs[0], scene.seeds)]
    np.testing.assert_allclose(job.result.final_loss, shown.final_loss, rtol=0.02)
    np.testing.assert_array_equal(job.result.time, shown.time)


def test_no_story_is_on_seeds_that_something_was_chosen_on():
    from toybench.presets import load_tuning

    tuning = load_tuning("default")
    for story in stories().values():
        assert not set(story.scene.seeds) & {*tuning["seeds"], *tuning["chosen_on"]}


# Words


def curves(run, final, time=100.0, seeds=(1, 2, 3)):
    start = np.full(len(seeds), 1.4)
    loss = np.stack([start, np.broadcast_to(final, len(seeds))], 1)
    times = np.broadcast_to([0.0, time], loss.shape)
    return Curves(run, seeds, np.broadcast_to([0, 60], loss.shape), times, {"loss": loss})


TINY = Run(Gaussians(), Cluster(local_steps=2), InnerAdamW(), METHODS["nesterov"].settings(), Budget(rounds=2))
SYNC = reference_of("default", TINY)


@pytest.mark.parametrize(
    "final, time, said",
    [
        ([1.19, 1.20, 1.21], 50.0, "async Nesterov ends 20 % above sync Nesterov (95 % interval +18 to +22 %); mean"),
        ([1.1, 1.0, 0.9], 50.0, "ends level with sync Nesterov (95 % interval -24.8 to +24.8 %, undecided)"),
        ([0.95, 0.95, 0.95], 50.0, "ends 5.0 % below sync Nesterov"),
        ([1.2, 1.2, 1.2], 50.0, "it never reaches that loss, though the run takes 50 % of the simulated time."),
        ([0.9, 0.9, 0.9], 50.0, "it reaches that loss in 40 % of the simulated time."),
        ([0.9, 1.2, 1.2], 50.0, "only 1 of 3 seeds reach that loss"),
        ([np.nan, 1.0, 1.0], 50.0, "1 of 3 seeds diverged and count as untrained"),
        ([np.nan, np.nan, 1.5], 50.0, "async Nesterov diverged on all 3 seeds; mean staleness"),
    ],
)
def test_a_sentence_says_what_happened(final, time, said):
    result, reference = curves(TINY, final, time), curves(SYNC, [1.0, 1.0, 1.0])
    assert said in sentence(result, reference, simulate(TINY.cluster, TINY.budget, 1))


def test_a_reference_that_diverged_is_told_and_there_is_no_loss_of_it_to_reach():
    result, reference = curves(TINY, [0.9, 0.9, 0.9], 50.0), curves(SYNC, [np.nan, np.nan, 1.0])
    said = sentence(result, reference, simulate(TINY.cluster, TINY.budget, 1))
    assert "; the reference diverged on 2 of 3 seeds, which count as untrained;" in said and "reach" not in said


def test_a_sentence_on_one_seed_gives_no_interval():
    result, reference = curves(TINY, [1.2], seeds=(1,)), curves(SYNC, [1.0], seeds=(1,))
    said = sentence(result, reference, simulate(TINY.cluster, TINY.budget, 1))
    assert "ends 20 % above" in said and "interval" not in said


def test_the_reference_is_called_so():
    result = curves(SYNC, [1.0, 1.0, 1.0])
    said = sentence(result, result, simulate(SYNC.cluster, SYNC.budget, 1))
    assert said == "sync Nesterov is the reference: final loss 1.000; mean staleness 0.0, maximum 0."


@pytest.mark.parametrize("method", METHODS)
def test_a_formula_becomes_tex_without_a_plain_letter_left(method):
    for line in lines(METHODS[method].formula):
        assert line.isascii() or set(line) - {"·"} <= set(map(chr, range(128))), line
        assert line.count("{") == line.count("}") and "^" not in line.replace("^{", "")


def test_tex_of_a_formula():
    assert lines("m ← βm + g; θ ← θ − ε(g + βm)") == [
        r"m\leftarrow \beta m+g",
        r"\theta \leftarrow \theta -\varepsilon (g+\beta m)",
    ]
    assert tex("g ← (1 + τ)^−a g, then Nesterov") == r"g\leftarrow (1+\tau )^{-a}\ g,\ \text{then Nesterov}"


def test_a_projection_is_in_the_directions_of_most_variance():
    from toybench.projection import project

    settings = Gaussians(dimension=5, classes=2, clusters=2, noise=0.1, points=400, held_out=300)
    seen = project(settings, 3, most=100)
    assert seen.points.shape == (100, 3) and set(seen.labels) == {0, 1}
    assert 1 >= seen.explained.sum() > 0.5 and (np.diff(seen.explained) <= 0).all()
    assert project(Gaussians(dimension=1, points=400, held_out=50), 3).points.shape == (50, 1)
    whole = project(settings, 3, most=300).points
    np.testing.assert_allclose(np.cov(whole.T) - np.diag(np.var(whole, axis=0, ddof=1)), 0, atol=1e-5)


def test_odd_choices_are_no_errors_here():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scene, problems = decode({"a.outer.method": "delayed_nesterov", "a.outer.activation": "0.9"})
    assert problems == [] and scene.runs[0].outer.activation == 0.9
