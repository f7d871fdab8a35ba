"""Workers and server as processes of Ray: the same run, through deaths, and nothing left behind."""

import importlib.util
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from toybench.config import ConfigError
from toybench.loading import load_run
from toybench.transports.again import again
from toybench.transports.coordinator import read_arrivals, timeline_of
from toybench.transports.ledger import Ledger
from toybench.transports.messages import Rules
from toybench.transports.ray import Needs, join_ray, run_ray
from toybench.transports.ray.crew import DONE, Crew
from toybench.transports.ray.line import plain
from toybench.transports.ray.means import MARK, check_room, knock, marked
from toybench.transports.ray.posts import Care, Deaths, Post
from toybench.transports.ray.site import key_of, site
from toybench.transports.work import toy_recipe

LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
HALF = 0.5  # of a CPU, so that the workers fit on any machine
RULES = Rules(pace=0.01, first=60.0, factor=4.0, least=1.5, every=1.0)


def recipe(rounds=20, speeds=(1.0, 1.5)):
    told = {
        "task": {"points": 1000, "held_out": 128},
        "cluster": {"sec_per_step": [*speeds], "local_steps": 10},
        "budget": {"rounds": rounds, "evaluations": 2},
    }
    return toy_recipe(load_run(told), 0)


def listening(pids):
    """Addresses that these processes listen on, as /proc/net has them: hexadecimal."""
    inodes, found = set(), set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                name = os.readlink(handle)
            except OSError:
                continue
            if name.startswith("socket:["):
                inodes.add(name[8:-1])
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(fields[1].split(":")[0])
    return found


def equals_its_replay(recipe, folder):
    """What the server ended with, and the same arrivals one after the other."""
    frame = Ledger(folder).last()
    state, work = frame.told["coordinator"], recipe.make()
    timeline = timeline_of(read_arrivals(state), state["stepped"])
    leaves = jax.tree.leaves(again(work, timeline))
    for leaf, kept in zip(leaves, frame.arrays):
        np.testing.assert_allclose(leaf, kept, rtol=2e-4, atol=2e-5)
    ids = [arrival.id for arrival in read_arrivals(state)]
    assert len(ids) == len(set(ids))
    covered(state)
    return state


def covered(state):
    """Steps given out of each shard are those that arrived, are being made or are to be given out again: each once."""
    visits = [arrival.visit for arrival in read_arrivals(state)]
    parts = [(v.shard, v.first_step, v.num_steps) for v in visits]
    parts += [(shard, first, steps) for _, shard, first, steps, _ in state["scheduler"]["running"]]
    parts += [(shard, first, steps) for shard, first, steps in state["scheduler"]["lost"]]
    for shard, given in enumerate(state["scheduler"]["shards"]["consumed"]):
        steps = [step for s, first, n in parts if s == shard for step in range(first, first + n)]
        assert sorted(steps) == list(range(given)), shard


def folder_of(pid):
    """That of the Ray of ours that a process belongs to."""
    told = dict(one.partition("=")[::2] for one in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    return told[MARK]


@pytest.fixture
def ray():
    """Ray is there; it must be imported by who starts it."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")


def test_a_run_over_ray_equals_its_replay_and_leaves_nothing(ray, tmp_path):
    shm, heard, addresses, folders, others = set(os.listdir("/dev/shm")), [], set(), set(), []

    def report(told):
        heard.append(told)
        if not addresses and told["arrivals"]:
            folders.add(folder_of(told["server_pid"]))  # others on this machine may have a Ray of their own
            addresses.update(listening(marked(*folders)))
            assert stat.S_IMODE(os.stat(*folders).st_mode) == 0o700  # Ray's own are for everybody
            others.append(subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=-1))
            workers.extend(folder_of(pid) for pid in told["pids"].values())

    workers = []

    made = recipe(10)
    assert run_ray(made, tmp_path, RULES, {"own": "1"}, workers=2, cpus_per_worker=HALF, report=report)
    state = equals_its_replay(made, tmp_path)
    assert len(state["arrivals"]) == 20 and heard[-1]["done"] and heard[-1]["counts"]["applied"] == 20
    assert addresses and addresses <= LOOPBACK
    assert others[0].poll() is None  # a child of this process that is no part of it
    others[0].communicate()
    assert set(workers) <= folders
    assert not marked(*folders) and not [name for name in folders if os.path.exists(name)]
    assert set(os.listdir("/dev/shm")) <= shm
    assert not (tmp_path / "ray.json").exists()


@pytest.mark.slow
def test_deaths_of_workers_and_of_the_server_lose_nothing(ray, tmp_path):
    done, made = [], recipe(60)

    def report(told):
        pids, arrivals = told.get("pids", {}), told["arrivals"]
        if arrivals > 10 and not done and pids.get(0):
            done.append(("worker", os.kill(pids[0], signal.SIGKILL)))
        elif 1 <= len(done) <= 2 and arrivals > 25 * len(done):
            done.append(("server", os.kill(told["server_pid"], signal.SIGKILL)))
        last.update(told)

    last = {}
    assert run_ray(made, tmp_path, RULES, workers=2, cpus_per_worker=HALF, report=report)
    assert len(done) == 3 and last["server_deaths"] == 2 and last["deaths"] == 1
    assert len(equals_its_replay(made, tmp_path)["arrivals"]) >= 120


@pytest.mark.slow
def test_a_worker_that_hangs_is_given_up_and_comes_back(ray, tmp_path):
    stopped, made, last = [], recipe(60), {}

    def report(told):
        pid, workers = told.get("pids", {}).get(0), {one["worker"]: one for one in told["workers"]}
        if told["arrivals"] > 10 and not stopped:
            stopped.append(pid)
            os.kill(pid, signal.SIGSTOP)
        elif len(stopped) == 1 and workers[0]["state"] == "gone":
            stopped.append(workers[0]["visits"])
            os.kill(pid, signal.SIGCONT)
        last.update(told)

    assert run_ray(made, tmp_path, RULES, workers=2, cpus_per_worker=HALF, report=report)
    workers = {one["worker"]: one for one in last["workers"]}
    assert len(stopped) == 2 and workers[0]["visits"] > stopped[1]
    assert last["counts"]["late"] == 1 and last["deaths"] == 0
    equals_its_replay(made, tmp_path)


@pytest.mark.slow
def test_a_second_process_adds_workers_and_they_leave(ray, tmp_path):
    made, joined, last = recipe(80, (1.0, 1.0)), [], {}
    code = (
        "import sys; from pathlib import Path\n"
        "from toybench.transports.ray import join_ray\nfrom toybench.transports.ray.site import key_of\n"
        "heard = [{'workers': []}]\n"
        "def stop(): return any(w['worker'] == 1 and w['visits'] > 5 for w in heard[-1]['workers'])\n"
        "print(join_ray(key_of(Path(sys.argv[1])), cpus_per_worker=0.5, report=heard.append, stop=stop))\n"
    )

    def report(told):
        if told["arrivals"] > 5 and not joined:
            joined.append(subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE))
        last.update(told)

    assert run_ray(made, tmp_path, RULES, workers=1, cpus_per_worker=HALF, report=report)
    out = joined[0].communicate(timeout=60)[0].decode()
    workers = {one["worker"]: one for one in last["workers"]}
    assert workers[1]["visits"] > 5, out
    equals_its_replay(made, tmp_path)


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on(ray, tmp_path):
    made, seen = recipe(30), []
    begun = [lambda: len(seen) > 0 and seen[-1]["arrivals"] > 10, lambda: False]
    found = [
        run_ray(made, tmp_path, RULES, workers=2, cpus_per_worker=HALF, report=seen.append, stop=stop) for stop in begun
    ]
    assert found == [False, True]
    equals_its_replay(made, tmp_path)


@pytest.mark.slow
def test_a_server_that_cannot_start_is_told_why_and_not_tried_for_long(ray, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
    with pytest.raises(ConfigError, match=r"server: its process does not start: .*jax.*JAX_PLATFORMS='nonsense'"):
        run_ray(recipe(), tmp_path, RULES, workers=1, cpus_per_worker=HALF)


HOST = """
import os, sys
from toybench.transports.ray import Needs
from toybench.transports.ray.site import site
with site(Needs(1, 0.5), None):
    import ray
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
"""
GUEST = """
import sys
from pathlib import Path
from tests.test_transports_ray import RULES, recipe
from toybench.config import ConfigError
from toybench.transports.ray import run_ray
for made in (recipe(4), recipe(5)):
    try:
        print(run_ray(made, Path(sys.argv[2]), RULES, workers=1, cpus_per_worker=0.5, address=sys.argv[1]))
    except ConfigError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_cluster_that_is_there_is_joined_and_left_as_it_was(ray, tmp_path):
    """With its token; another run in the same folder is told so."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env = plain | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "c0ffee" * 10}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env}
    host = subprocess.Popen([sys.executable, "-c", HOST], **pipes)
    try:
        address = next(line for line in host.stdout if line.startswith("127.")).strip()
        command = [sys.executable, "-c", GUEST, address, str(tmp_path)]
        guest = subprocess.run(command, capture_output=True, text=True, env=env, timeout=200)
        said = guest.stdout.splitlines()
        assert said[0] == "True" and said[1].startswith("resume: the folder holds a run of "), guest
        assert host.poll() is None
    finally:
        host.stdin.close()
        assert host.wait(60) == 0
    equals_its_replay(recipe(4), tmp_path)


OTHERS = """
import os, sys
from pathlib import Path
from tests.test_transports_ray import RULES, recipe
from toybench.config import ConfigError
from toybench.transports.ray import run_ray
from toybench.transports.ray.means import environment
os.environ.update(environment())  # nobody else is let in
import ray
ray.init(num_cpus=2, resources={"TPU": 4, "own": 2}, include_dashboard=False)
report = lambda told: held.append(ray.available_resources().get("own", 0)) if told["arrivals"] else None
held = []
for others in ({"TPU": 3}, {"own": 1}, {"own": 2}):
    try:
        done = run_ray(
            recipe(4), Path(sys.argv[1]), RULES, workers=1 if "TPU" in others else 2, cpus_per_worker=0.5,
            resources_per_worker=others, report=report,
        )
        print(done, min(held) == 0)
    except ConfigError as error:
        print(error)
"""


@pytest.mark.slow
def test_workers_take_other_resources_of_a_cluster(ray, tmp_path):
    """Of which Ray has rules of its own for some."""
    found = subprocess.run([sys.executable, "-c", OTHERS, str(tmp_path)], capture_output=True, text=True, timeout=200)
    refused, done, much = found.stdout.splitlines()
    assert refused.startswith("resources-per-worker: ") and "TPU" in refused, found
    assert done == "True True" and "do not fit: this Ray has 2 CPUs, 0 GPUs, 2 owns" in much, found


# Before anything is started


def test_who_does_not_fit_is_told(tmp_path):
    with pytest.raises(ConfigError, match="1000000 of 1 CPU each do not fit: this machine has"):
        run_ray(recipe(), tmp_path, RULES, workers=1_000_000)
    with pytest.raises(ConfigError, match="expected at least 1"):
        run_ray(recipe(), tmp_path, RULES, workers=0)


def test_a_worker_must_fit_on_one_machine():
    machines = [{"CPU": 3.0}, {"CPU": 3.0, "GPU": 1.0}]
    check_room(machines, Needs(2, 2.0), "here")
    check_room(machines, Needs(2, 1.0, 0.5), "here")
    for needs in (Needs(3, 2.0), Needs(2, 1.0, 1.0)):
        with pytest.raises(ConfigError, match="do not fit: here has 6 CPUs, 1 GPUs"):
            check_room(machines, needs, "here")


def test_an_address_where_nobody_answers(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(ConfigError, match=f"nobody answers at {address}"):
            run_ray(recipe(), tmp_path, RULES, workers=1, address=address)
        taken.listen()  # and says nothing
        with pytest.raises(ConfigError, match="nobody answers"):
            knock(address, 0.5)
        assert time.monotonic() - began < 5


def test_an_address_of_something_else():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def answer():
            with server.accept()[0] as line:
                line.recv(100)
                line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(ConfigError, match="is no Ray"):
            knock(f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize("address", ["", "auto", "ray://127.0.0.1:10001", "127.0.0.1:", "127.0.0.1:70000"])
def test_an_address_that_is_none(address):
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        knock(address)


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "token")
    with pytest.raises(ConfigError, match=r"pip install 'toybench\[ray\]'"), site(Needs(1, HALF), None):
        pass


def test_no_run_to_join(tmp_path):
    with pytest.raises(ConfigError, match="no run is being made over Ray"):
        join_ray(key_of(tmp_path))


def test_who_dies_again_and_again_is_given_up():
    deaths = Deaths(Care(limit=3, pause=1.0, most=4.0))
    waits = [deaths.care.wait(n) for n in range(6)]
    assert waits == [0, 0, 1, 2, 4, 4]
    for done in (1, 1, 5, 5, 5):
        deaths.count(done)
        assert deaths.hopeless == (deaths.total == 5)


def test_a_run_whose_workers_are_done_is_not_given_up():
    """They end before the last evaluation is made."""
    care = Care()
    posts = [Post(worker, Deaths(care), closed=DONE) for worker in range(2)]
    crew = Crew(None, Needs(2), care, plain, posts)
    assert crew.lost == ""
    for post in posts:
        post.closed = "data are not there"
    assert crew.lost == "worker 0: data are not there; worker 1: data are not there"
