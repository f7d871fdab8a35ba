"""The pages Explore and Promote, widget by widget, without a browser."""

import pytest
from streamlit.testing.v1 import AppTest

from lm import promote as bridge
from tests.pages import drawn, move, open_script, press, query_of, sound, texts, told, widget
from toybench.arguments import flatten
from toybench.clusters import sec_per_step
from toybench.config import InnerSGD
from toybench.loading import dump_run, overlay_text
from toybench.outer import METHODS
from toybench.presets import load_preset
from toybench.views import state, work
from toybench.views.jobs import Desk
from toybench.views.scene import decode
from toybench.views.stories import stories

TINY = {
    "preset": "fast",
    "seeds": "5:7",
    "a.budget.rounds": "2",
    "a.budget.evaluations": "2",
    "a.task.points": "400",
    "a.task.held_out": "50",
    "a.cluster.local_steps": "3",
}


def open_page(query=None, page="explore"):
    """A page of a query string."""

    def script(page):
        from lm import launch
        from lm import promote as bridge
        from toybench.views import explore, promote, state

        state.page(explore.body if page == "explore" else lambda: promote.body(bridge, launch))

    return open_script(script, query or {}, page)


def scene(at):
    return sound(at).session_state["scene"]


@pytest.fixture
def tiny():
    return open_page(TINY)


def test_the_app_opens_with_the_pathology_from_the_shipped_record():
    at = AppTest.from_file("../app.py", default_timeout=120).run()
    assert told(at) == []
    assert "async Nesterov ends 17 % above sync Nesterov" in texts(at)
    assert scene(at) == next(iter(stories().values())).scene
    assert len(drawn(at)) == 3
    assert query_of(at)["a.outer.lr"] == "0.0463"


def test_a_slider_changes_the_result_and_the_address(tiny):
    before = texts(tiny)
    move(tiny, "select_slider", "c.0.outer.lr", 0.5)
    assert scene(tiny).runs[0].outer.lr == 0.5 and texts(tiny) != before and told(tiny) == []
    assert decode(query_of(tiny)) == (scene(tiny), [])


@pytest.mark.parametrize("story", stories())
def test_a_story_is_opened_by_its_name_and_needs_no_training(story):
    at = open_page()
    move(at, "button_group", "story", story)
    assert scene(at) == stories()[story].scene and told(at) == []
    jobs = [state.desk().ask("test", work.curves_key(run, scene(at).seeds), None) for run in scene(at).runs]
    assert [(job.state, job.share) for job in jobs] == [("done", 0.0)] * len(jobs)  # a trained one has a share


def test_an_address_reproduces_the_view(tiny):
    move(tiny, "selectbox", "c.0.outer.method", "delayed_nesterov")
    move(tiny, "toggle", "c.0.cluster.dynamic_steps", True)
    assert scene(open_page(query_of(tiny))) == scene(tiny)


@pytest.mark.parametrize("method", ["delayed_nesterov", "halos", "sgd"])
def test_a_method_has_its_own_settings_and_formula_only(tiny, method):
    move(tiny, "selectbox", "c.0.outer.method", method)
    own = {f"outer.{name}" for name in METHODS[method].settings.__dataclass_fields__}
    kinds = ("slider", "select_slider", "number_input", "selectbox", "toggle")
    shown = {w.key for kind in kinds for w in getattr(tiny.sidebar, kind) if w.key.startswith("c.0.outer.")}
    assert shown == {f"c.0.{name}" for name in own} | {"c.0.outer.method"}
    assert any(m.value.startswith("$") for m in tiny.sidebar.markdown) and told(tiny) == []


def test_a_chosen_method_begins_at_the_rate_tuned_for_it():
    at = open_page()
    move(at, "selectbox", "c.0.outer.method", "poly")
    assert scene(at).runs[0].outer.lr == 0.143


SGD_INSIDE = {"inner.optimizer": "sgd", "inner.lr": InnerSGD().lr, "inner.momentum": 0.0}
SGD_INSIDE |= dict.fromkeys(("inner.weight_decay", "inner.b1", "inner.b2", "inner.eps"))  # which it has not


def settings_of(at):
    """Every setting of a page's first configuration by its dotted key; one that is nothing is not there."""
    return flatten(dump_run(scene(at).runs[0]))


@pytest.mark.parametrize(
    "kind, key, value, changed",
    [
        ("slider", "c.0.workers", 3, {"cluster.sec_per_step": sec_per_step(3, "very")}),
        ("select_slider", "c.0.level", "none", {"cluster.sec_per_step": [1.542] * 4}),
        ("number_input", "c.0.seconds.1", 9.0, {"cluster.sec_per_step": [0.58, 9.0, 1.51, 3.33]}),
        ("slider", "c.0.cluster.local_steps", 5, {"cluster.local_steps": 5}),
        ("slider", "c.0.cluster.grace", 2.0, {"cluster.grace": 2.0}),
        ("toggle", "c.0.cluster.barrier", True, {"cluster.barrier": True}),
        ("toggle", "c.0.cluster.coalesce", True, {"cluster.coalesce": True}),
        ("number_input", "c.0.cluster.quorum", 2, {"cluster.quorum": 2}),
        ("number_input", "c.0.cluster.shards", 8, {"cluster.shards": 8}),
        ("selectbox", "c.0.cluster.sharding", "least_visited", {"cluster.sharding": "least_visited"}),
        ("selectbox", "c.0.task.partition", "clusters", {"task.partition": "clusters"}),
        ("selectbox", "c.0.inner.optimizer", "sgd", SGD_INSIDE),
        ("select_slider", "c.0.task.hidden", 16, {"task.hidden": 16}),
        ("slider", "c.0.task.noise", 0.5, {"task.noise": 0.5}),
        ("slider", "c.0.budget.rounds", 3, {"budget.rounds": 3}),
    ],
)
def test_every_kind_of_widget_changes_its_setting(tiny, kind, key, value, changed):
    """That one and no other."""
    before = settings_of(tiny)
    after = settings_of(move(tiny, kind, key, value))
    assert {name: after.get(name) for name in before | after if after.get(name) != before.get(name)} == changed
    assert told(tiny) == []


def test_a_setting_that_cannot_be_is_told_and_changes_nothing(tiny):
    before = scene(tiny)
    move(tiny, "number_input", "c.0.cluster.quorum", 9)
    assert scene(tiny) == before
    assert told(tiny) == ["cluster.quorum: must be <= the number of workers (4), got 9"]


def test_fewer_workers_than_the_quorum_take_it_along(tiny):
    move(tiny, "number_input", "c.0.cluster.quorum", 4)
    move(tiny, "slider", "c.0.workers", 2)
    assert scene(tiny).runs[0].cluster.quorum == 2 and told(tiny) == []


def test_configurations_are_added_chosen_and_removed(tiny):
    for count in (2, 3, 4):
        press(tiny, "add")
        assert len(scene(tiny).runs) == count
    assert widget(tiny, "button", "add").disabled
    move(tiny, "select_slider", "c.3.outer.lr", 0.5)
    assert [run.outer.lr == 0.5 for run in scene(tiny).runs] == [False, False, False, True]
    press(tiny, "drop")
    assert len(scene(tiny).runs) == 3 and told(tiny) == []


def test_the_problem_moves_in_all_configurations_and_the_remedy_in_one(tiny):
    press(tiny, "add")
    move(tiny, "slider", "c.1.cluster.local_steps", 4)
    move(tiny, "slider", "c.1.cluster.grace", 3.0)
    assert [run.cluster.local_steps for run in scene(tiny).runs] == [4, 4]
    assert [run.cluster.grace for run in scene(tiny).runs] == [load_preset("fast").cluster.grace, 3.0]
    move(tiny, "toggle", "together", False)
    move(tiny, "slider", "c.1.cluster.local_steps", 6)
    assert [run.cluster.local_steps for run in scene(tiny).runs] == [4, 6]


def test_what_was_trained_for_the_page_is_not_trained_again_to_warm_up(monkeypatch):
    asked = []
    ask = Desk.ask
    monkeypatch.setattr(Desk, "ask", lambda *args: asked.append(args[1]) or ask(*args))
    open_page(TINY)
    assert asked and "server" not in asked
    open_page()
    assert asked.count("server") == 2  # of the record, so that the first slider finds its program


@pytest.mark.parametrize("panel", ["timeline", "staleness", "momentum", "workers", "data"])
def test_every_panel_shows_a_figure(panel):
    at = open_page(TINY | {"panel": panel})
    assert told(at) == []
    assert len(drawn(at)) >= 3


def test_a_method_without_momentum_has_none_to_show():
    at = open_page(TINY | {"panel": "momentum", "a.outer.method": "sgd"})
    assert [info.value for info in at.info] == ["async SGD keeps no momentum."]


def test_seeds_are_changed_and_bad_ones_told(tiny):
    move(tiny, "text_input", "seeds", "3")
    assert scene(tiny).seeds == (0, 1, 2)
    move(tiny, "text_input", "seeds", "many")
    assert scene(tiny).seeds == (0, 1, 2) and "seeds: expected" in told(tiny)[0]


@pytest.mark.parametrize(
    "query, said",
    [
        ({"preset": "<b>"}, "preset: unknown"),
        ({"a.outer.lr": "-3"}, "outer.lr: must be >= 0"),
        ({"panel": "nothing"}, "panel: cannot be 'nothing'"),
        ({"metric": "x" * 10_000}, "metric: cannot be"),
        ({"edit": "z"}, "edit: cannot be 'z'"),
    ],
)
def test_a_hostile_address_is_told_of_and_the_page_goes_on(query, said):
    at = open_page(TINY | query)
    assert any(said in line for line in told(at))
    assert len(drawn(at)) == 3


@pytest.mark.parametrize("name", ["preset", "seeds", "panel", "a.outer.lr"])
def test_an_address_puts_no_picture_and_no_link_into_a_message(name):
    at = open_page(TINY | {name: "![x](http://example.invalid/x.png)"})
    assert any("example.invalid" in line and r"!\[x](" in line for line in told(at)), told(at)


@pytest.mark.parametrize(
    "query, said",
    [
        ({"a.budget.rounds": "2000000"}, "too many for a page"),
        ({"a.task.hidden": "100000", "a.task.dimension": "100000"}, "too many for a page"),
        ({"a.cluster.sec_per_step": "1e-30 1e30"}, None),
        ({"a.outer.lr": "3e38"}, "diverged"),
        ({"a.cluster.sec_per_step": "1 " * 40}, None),
    ],
)
def test_extreme_values_are_survived(query, said):
    at = sound(open_page(TINY | query))
    assert said is None or any(said in line for line in [*told(at), texts(at)])


def test_the_command_line_of_a_view_is_that_configuration(tiny):
    import shlex

    move(tiny, "selectbox", "c.0.outer.method", "buffered")
    [code] = tiny.code
    items = shlex.split(code.value)
    assert items[:4] == ["toybench", "run", "--preset", "fast"]
    flags, name = {}, ""
    for item in items[4:]:
        if item.startswith("--"):
            flags[name := item.removeprefix("--")] = []
        else:
            flags[name].append(item)
    assert flags.pop("seeds") == ["5:7"]
    assert overlay_text(load_preset("fast"), flags) == scene(tiny).runs[0]


def test_stopped_work_can_begin_again(tiny):
    tiny.session_state["stopped"] = scene(tiny)
    tiny.run()
    assert [info.value for info in tiny.info] == ["Stopped. Change a setting, or begin again."]
    press(tiny, "again")
    assert len(drawn(tiny)) == 3


# Promote


def test_promote_shows_what_is_kept_what_changes_and_what_it_takes():
    at = open_page(TINY | {"b.outer.method": "ormo"}, page="promote")
    assert "21.1 M" in texts(at) and told(at) == []
    taken = bridge.estimate(bridge.promote(scene(at).runs[0], "20m"))
    assert f"{taken.memory / 1e9:.1f} GB" in texts(at) and any(
        taken.footprint.told in caption.value for caption in at.caption
    )
    kept, changed = (element.value for element in at.dataframe)
    before = scene(at).runs[0]
    assert len(kept) == sum(len(dump_run(before)[s]) for s in ("cluster", "outer"))
    assert len(changed) == len(bridge.changes(before, bridge.promote(before, "20m")))
    move(at, "button_group", "w.from", "b")
    assert "ormo" in list(at.dataframe[0].value["value"])
    move(at, "button_group", "w.size", "150m")
    assert "149.8 M" in texts(at) and at.code[0].value == "python -m lm train 150m.toml"


@pytest.mark.parametrize(
    "query, said",
    [
        ({"size": "21m"}, "size: cannot be '21m'"),
        ({"accelerator": "abacus"}, "accelerator: cannot be 'abacus'"),
        ({"utilisation": "0"}, "utilisation: cannot be '0'"),
        ({"from": "zz"}, "from: cannot be 'zz'"),
    ],
)
def test_promote_of_a_hostile_address(query, said):
    at = open_page(TINY | query, page="promote")
    assert told(at) == [said] and len(at.dataframe) == 2


@pytest.mark.parametrize(
    "run, said",
    [
        ("", "Which run?"),
        ("x", "expected the number of a run"),
        ("9" * 30, "expected the number"),
        ("7", "is not there"),
    ],
)
def test_promote_from_a_record_that_cannot_be(run, said, monkeypatch, tmp_path):
    monkeypatch.setenv("TOYBENCH_STORE", str(tmp_path / "runs.sqlite"))
    at = open_page({"from": "record", "run": run}, page="promote")
    assert any(said in line for line in [*told(at), *(info.value for info in at.info)])


def test_promote_from_a_record(monkeypatch, tmp_path):
    from toybench.store import Store
    from toybench.training import train

    path = tmp_path / "runs.sqlite"
    monkeypatch.setenv("TOYBENCH_STORE", str(path))
    run = decode(TINY)[0].runs[0]
    with Store(path) as store:
        store.add(train(run, [5]), {"code": "this"}, seconds=1.0, commit=None)
    at = open_page({"from": "record", "run": "1"}, page="promote")
    assert told(at) == [] and len(at.dataframe) == 2
