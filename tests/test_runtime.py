"""Where compiled programs are kept, and what `configure` does to a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from toybench import runtime
from toybench.runtime import CACHE_SWITCH, cache_folder, cores

# The folder


def test_a_path_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_SWITCH, str(tmp_path))
    assert CACHE_SWITCH == "TOYBENCH_CACHE"
    assert cache_folder().parent == tmp_path
    assert not cache_folder().exists()  # asking makes nothing


@pytest.mark.parametrize("choice", ["off", "OFF", "0", "false", "no"])
def test_switched_off(choice, monkeypatch):
    monkeypatch.setenv(CACHE_SWITCH, choice)
    assert cache_folder() is None


@pytest.mark.parametrize("choice", [None, ""])
def test_a_folder_of_this_user_otherwise(choice, tmp_path, monkeypatch):
    monkeypatch.delenv(CACHE_SWITCH, raising=False)
    if choice is not None:
        monkeypatch.setenv(CACHE_SWITCH, choice)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / name))
    assert cache_folder().parent == tmp_path / "toybench"


def test_a_host_without_platformdirs_keeps_them_where_xdg_says(tmp_path, monkeypatch):
    monkeypatch.delenv(CACHE_SWITCH, raising=False)
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder().parent == tmp_path / "toybench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder().parent == tmp_path / "home" / ".cache" / "toybench"


def test_every_jaxlib_has_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_SWITCH, str(tmp_path))
    here, asked = cache_folder(), []
    assert cache_folder() == here

    def version(name):
        asked.append(name)
        return "99.0"

    monkeypatch.setattr(runtime.metadata, "version", version)
    assert cache_folder() != here and "99.0" in cache_folder().name
    assert set(asked) == {"jaxlib"}


def test_every_kind_of_processor_has_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_SWITCH, str(tmp_path))
    monkeypatch.setattr(runtime.metadata, "version", lambda name: "99.0")

    def on(text):
        def read(path):
            if text is None:
                raise FileNotFoundError(path)
            return text

        with monkeypatch.context() as machine:
            machine.setattr(Path, "read_text", read)
            return cache_folder()

    core = "processor : {}\nmodel name : one\nflags : fpu avx512f\ncpu MHz : {}\n"
    here = on(core.format(0, 2000))
    assert on(core.format(0, 3000) + core.format(1, 1800)) == here  # neither their number nor their clock matters
    others = [on(core.replace(" avx512f", "")), on(core.replace("one", "another")), on("Features : neon"), on(None)]
    assert len({here, *others}) == 5
    assert all(folder.parent == tmp_path for folder in others)


def test_cores():
    assert 1 <= cores() <= os.cpu_count()


# The process

TRAIN = """
import jax.numpy as jnp
from toybench.loading import overlay
from toybench.presets import load_preset
from toybench.training import train

class Small:
    def data(self, key, shards): return jnp.ones(shards)
    def init(self, key): return jnp.zeros(())
    def batch(self, data, shard, step): return data[shard]
    def loss(self, params, batch): return (params - batch) ** 2
    def evaluate(self, params, data): return {"loss": self.loss(params, data[0])}

changes = {"inner.optimizer": "sgd", "outer.method": "sgd", "budget.rounds": 1, "budget.evaluations": 1}
[result] = train(overlay(load_preset("fast"), changes), [0], task=Small())
assert result.final_loss < 1
"""


def in_a_new_process(code, folder, choice):
    """Run it with a user's cache of its own; no setting of jax's is passed on."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_", "XDG_"))}
    own = {CACHE_SWITCH: choice, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(folder)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=kept | own, capture_output=True, text=True, timeout=240, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_compiled_programs_are_kept_and_found_again(tmp_path):
    code = (
        "from toybench.runtime import cache_folder, configure, cores\n"
        "configure()\n"
        "import jax, jax.monitoring\n"
        "assert jax.local_device_count() == cores()\n"
        "events = []\n"
        "jax.monitoring.register_event_listener(lambda event, **more: events.append(event))\n"
        f"{TRAIN}"
        "print(cache_folder(), sum('cache_hits' in event for event in events))\n"
    )
    room = tmp_path / "programs"
    folder, hits = in_a_new_process(code, tmp_path, str(room))
    programs = set(room.rglob("*-cache"))
    assert Path(folder).parent == room and hits == "0"
    assert len(programs) >= 4  # start, open, chunk, evaluate
    assert all(path.is_relative_to(folder) for path in files(tmp_path))

    _, hits = in_a_new_process(code, tmp_path, str(room))
    assert int(hits) >= 4
    assert set(room.rglob("*-cache")) == programs


def test_switched_off_nothing_is_kept(tmp_path):
    code = f"from toybench.runtime import configure\nconfigure()\n{TRAIN}"
    in_a_new_process(code, tmp_path, "off")
    assert files(tmp_path) == []


def test_configuring_a_process_where_jax_is_running_keeps_its_devices(tmp_path):
    code = (
        "import jax\n"
        "before = jax.devices()\n"
        "from toybench.runtime import cache_folder, configure\n"
        "configure()\n"
        "configure()\n"
        "assert jax.devices() == before\n"
        "assert jax.config.jax_compilation_cache_dir == str(cache_folder())\n"
        "print(len(before), float(jax.jit(lambda x: x + 1)(1.0)))\n"
    )
    assert in_a_new_process(code, tmp_path, str(tmp_path)) == ["1", "2.0"]


# Memory


@pytest.mark.parametrize(
    "name, text, wanted",
    [
        ("memory.max", "5000000\n", 5_000_000),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "6000000\n", 6_000_000),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
        ("a/memory.max", "7000000\n", 7_000_000),  # of a group around this process's
        ("memory/a/b/memory.limit_in_bytes", "8000000\n", 8_000_000),
        ("other/memory.max", "5000000\n", None),
    ],
)
def test_memory_is_what_the_control_group_is_given(name, text, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "CGROUPS", tmp_path)
    monkeypatch.setattr(runtime, "_groups", lambda: ["/", "/a/b"])
    whole = runtime.memory()
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    assert runtime.memory() == (wanted or whole)


def test_the_groups_of_this_process_are_looked_at():
    assert runtime._groups()[0] == "/" and all(group.startswith("/") for group in runtime._groups())


@pytest.mark.parametrize(("asked", "given", "devices"), [(None, "3", 3), (1, "3", 1), (None, None, cores())])
def test_the_environment_may_say_how_many_devices_there_are(asked, given, devices):
    code = f"import jax, toybench.runtime as r; r.configure({asked}); print(len(jax.devices()))"
    environment = {key: value for key, value in os.environ.items() if key != "JAX_NUM_CPU_DEVICES"}
    environment |= {} if given is None else {"JAX_NUM_CPU_DEVICES": given}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) == devices
