"""What is around Ray: numbers, folders, deaths, and who does not answer. No Ray is started, nor is it imported."""

import os
import stat
import sys
import tempfile
import time
from types import SimpleNamespace

import pytest

from lm.cli import main as train
from toybench.cli import main
from toybench.config import ConfigError, ConfigWarning
from toybench.presets import load_preset
from toybench.transports.messages import Rules
from toybench.transports.ray import _end, _reserved, run_ray
from toybench.transports.ray.crew import Chair, Crew, Left, queues
from toybench.transports.ray.force import _placed
from toybench.transports.ray.line import plain
from toybench.transports.ray.means import Needs, check_room, private_folder
from toybench.transports.ray.posts import STILLBORN, Care, Deaths, Post
from toybench.transports.ray.seat import Terms
from toybench.transports.work import Recipe, toy_recipe

QUICK = Care(beat=0.01, silence=0.1, pause=0.0)


@pytest.fixture
def ray(monkeypatch):
    """A module that is no Ray, for what is called of it."""

    class RayError(Exception):
        pass

    class RayTaskError(RayError):
        def __init__(self, cause):
            super().__init__("a traceback\nof many lines")
            self.cause = cause

    class ActorAlreadyExistsError(ValueError, RayError):
        pass

    errors = SimpleNamespace(
        RayError=RayError,
        RayTaskError=RayTaskError,
        ActorUnavailableError=type("ActorUnavailableError", (RayError,), {}),
        ActorAlreadyExistsError=ActorAlreadyExistsError,
    )
    context = SimpleNamespace(get_node_id=lambda: "here")
    fake = SimpleNamespace(exceptions=errors, killed=[], get_runtime_context=lambda: context)
    fake.kill = fake.killed.append
    strategies = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda *told, **more: None)
    for name, module in {
        "ray": fake,
        "ray.exceptions": errors,
        "ray.util": SimpleNamespace(),
        "ray.util.scheduling_strategies": strategies,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    return fake


def chair_of(**more):
    return Chair(Terms(None, "folder", None, {}, "server", 2), QUICK, 0.0, lambda: False, Deaths(QUICK), [], **more)


# Numbers


@pytest.mark.parametrize(
    "numbers, said",
    [
        ({"gpus_per_worker": 1.5}, "gpus-per-worker: expected a part of one or a whole number, got 1.5"),
        ({"gpus_per_worker": -1}, "gpus-per-worker: expected a number >= 0, got -1"),
        ({"cpus_per_worker": 1e-5}, "cpus-per-worker: expected 0 or at least 0.0001, got 1e-05"),
        ({"cpus_per_worker": float("nan")}, "cpus-per-worker: expected a number >= 0, got nan"),
        ({"gpus_for_server": 1.5}, "gpus-for-server: expected a part of one or a whole number, got 1.5"),
        ({"gpus_for_server": -0.5}, "gpus-for-server: expected a number >= 0, got -0.5"),
        ({"resources_per_worker": {"TPU": -4.0}}, "resources-per-worker: TPU: expected a number >= 0, got -4"),
        (
            {"resources_per_worker": {"GPU": 1.0}},
            "resources-per-worker: expected the name of another resource, got 'GPU'",
        ),
    ],
)
def test_numbers_that_ray_refuses_are_told_of_before_it_starts(tmp_path, numbers, said):
    with pytest.raises(ConfigError) as refused:
        run_ray(None, tmp_path, Rules(), workers=1, **numbers)
    assert str(refused.value) == said


def test_numbers_that_ray_takes():
    for needs in (Needs(1, 0.0001), Needs(1, 1.5, 0.25), Needs(1, 0, 2.0, {"TPU": 4.0})):
        needs.check()


def test_other_resources_must_be_there():
    check_room([{"CPU": 2.0, "TPU": 4.0}], Needs(2, 1.0, 0.0, {"TPU": 2.0}), "here")
    with pytest.raises(ConfigError, match="2 of 1 CPU and 4 TPU each do not fit: here has 2 CPUs, 0 GPUs, 4 TPUs"):
        check_room([{"CPU": 2.0, "TPU": 4.0}], Needs(2, 1.0, 0.0, {"TPU": 4.0}), "here")


@pytest.mark.parametrize("command", (["run"], ["join", "."], ["train"], ["sweep", "--grid", "outer.lr=0.1,0.2"]))
def test_a_resource_that_is_none_is_told_of(command, tmp_path, capsys):
    places = {"run": ["--out", str(tmp_path / "out")], "join": [], "sweep": ["--store", str(tmp_path / "s")]}
    (tmp_path / "ray.json").write_text('{"address": "127.0.0.1:1", "name": "server"}')
    words = [*command, *places.get(command[0], places["run"]), "--resources-per-worker", "TPU"]
    words = [str(tmp_path) if word == "." else word for word in words]
    words += [] if command[0] == "join" else ["--engine", "ray"]
    with pytest.raises(SystemExit) as ended:
        (train if command[0] == "train" else main)(words)
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(lines) == 1, lines
    assert "resources-per-worker: expected NAME=NUMBER, as TPU=4, got 'TPU'" in lines[0]


def test_threads_have_no_devices_of_their_own(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", "--engine", "threads", "--resources-per-worker", "TPU=4", "--out", str(tmp_path / "out")])
    assert ended.value.code == 2 and "threads have no address and no devices" in capsys.readouterr().err


def test_everybody_who_waits_for_a_visit_has_a_place():
    assert all(queues(workers)["polls"] > workers for workers in (1, 64, 1000))


# Its folder


def test_nobody_else_can_enter_the_folder_and_sockets_have_room_in_it(tmp_path, monkeypatch):
    for place in ("/tmp", str(tmp_path / ("long" * 30))):
        monkeypatch.setattr(tempfile, "tempdir", place)
        folder = private_folder()
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        assert len(f"{folder}/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store") <= 107
        os.rmdir(folder)


# Processes that end


def test_a_process_that_does_not_start_for_the_same_cause_is_given_up():
    deaths = Deaths(Care(limit=60))
    for unborn in ["no disk", "no disk", "", "no disk", "no jax", *["no disk"] * STILLBORN]:
        assert not deaths.hopeless
        deaths.count(0, unborn)
    assert deaths.hopeless and deaths.why("died", "a visit") == "its process does not start: no disk"


def test_who_dies_after_its_start_is_given_up_later():
    deaths = Deaths(Care(limit=5))
    for _ in range(5):
        assert not deaths.hopeless
        deaths.count(0)
    assert deaths.hopeless and deaths.why("killed", "a visit") == "it died 5 times on end without a visit: killed"


def test_workers_that_cannot_start_are_given_up_with_their_cause(ray):
    """Their processes are not sent again and again; the driver is told what they said."""
    sent = []

    class Died(ray.exceptions.RayError):
        actor_init_failed = True

    def get(future, timeout=None):
        raise Died("The actor died\n  a traceback\njax: does not start\n")

    def actor(needs):
        sent.append(needs)
        return SimpleNamespace(serve=method, pid=method)

    method = SimpleNamespace(remote=lambda *told: "coming")
    ray.exceptions.GetTimeoutError = type("GetTimeoutError", (ray.exceptions.RayError,), {})
    ray.remote = lambda kind: SimpleNamespace(options=lambda **options: SimpleNamespace(remote=actor))
    ray.get, ray.wait = get, lambda futures, timeout: ([], futures)
    terms, care = Terms(Recipe("maker", {}), "folder", None, {}, "server", 1), Care(limit=60, pause=0.0)
    crew = Crew(terms, Needs(1), care, plain, [Post(0, Deaths(care))])
    for _ in range(9):
        crew.look({"workers": [], "settled": False}, lambda worker: None)
    assert len(sent) == STILLBORN and crew.lost == "worker 0: its process does not start: jax: does not start"


def test_only_a_name_that_is_taken_is_waited_for(ray, monkeypatch):
    """What else is wrong with an actor is not said to be another run."""
    tries = []

    def refused(*told):
        tries.append(told)
        raise ValueError("Precision of GPU is off")

    kind = SimpleNamespace(options=lambda **options: SimpleNamespace(remote=refused))
    ray.remote = lambda **groups: lambda seat: kind
    with pytest.raises(ValueError, match="Precision"):
        chair_of()._made()
    assert len(tries) == 1

    def taken(*told):
        tries.append(told)
        if len(tries) < 4:
            raise ray.exceptions.ActorAlreadyExistsError("taken")
        return "handle"

    kind.options = lambda **options: SimpleNamespace(remote=taken)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert chair_of()._made() == "handle"


def test_what_the_server_could_not_write_down_is_told(ray):
    """A last checkpoint on a full disk is not a server that does not answer."""

    def full(coming):
        raise ray.exceptions.RayTaskError(ConfigError("out", "cannot write: No space left"))

    call = SimpleNamespace(remote=lambda *told: "coming")
    handle = SimpleNamespace(close=SimpleNamespace(options=lambda **group: call))
    ray.wait, ray.get = lambda coming, timeout: (coming, []), full
    told = _end(chair_of(handle=handle), Crew(None, Needs(1), QUICK, plain))
    assert told["failed"] == "out: cannot write: No space left" and not told["done"]
    assert ray.killed == [handle]


def test_a_server_that_does_not_answer_is_told(ray, monkeypatch):
    def silent(method, *args):
        raise Left

    chair = chair_of(handle="handle")
    monkeypatch.setattr(chair, "ask", silent)
    assert "does not answer" in _end(chair, Crew(None, Needs(1), QUICK, plain))["failed"]


# Who does not answer


def line_of(*answers):
    left = list(answers)
    return SimpleNamespace(once=lambda *told, **more: left.pop(0) if left else (False, None))


def test_numbers_for_who_joins_are_not_waited_for_without_end():
    numbers = []
    assert _reserved(line_of((True, 3), (False, None), (True, 4)), 2, numbers, QUICK, lambda: False)
    assert numbers == [3, 4]
    with pytest.raises(ConfigError, match=r"join: the run's server has not answered for 0.1 s"):
        _reserved(line_of(), 1, [], QUICK, lambda: False)
    assert not _reserved(line_of(), 1, [], QUICK, lambda: True)


def test_a_sweep_goes_on_with_those_who_find_room(ray):
    actors = [SimpleNamespace(name=n, made_by=SimpleNamespace(remote=lambda n=n: f"asked {n}")) for n in range(3)]
    ray.get = lambda asked: [f"{one}, made" for one in asked]
    ray.wait = lambda asked, num_returns, timeout: (asked[1:2], [asked[0], asked[2]])
    with pytest.warns(ConfigWarning, match="1 of 3 actors found room within 1 s"):
        assert _placed(actors, 1.0) == ([actors[1]], ["asked 1, made"])
    assert ray.killed == [actors[0], actors[2]]
    ray.wait = lambda asked, num_returns, timeout: ([], asked)
    with pytest.raises(ConfigError, match="none of 3 actors found room"):
        _placed(actors, 1.0)


def test_a_recipe_for_a_process_with_its_devices_to_itself_is_one():
    recipe = toy_recipe(load_preset("fast"), 0).spread()
    assert recipe.make().seed == 0
    with pytest.raises(ConfigError, match="expected a table of run, seed"):
        recipe._replace(told=recipe.told | {"spread": 1}).make()
