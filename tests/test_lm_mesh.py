"""Waves over several devices, four of them faked in a process of its own: the same numbers as on one."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from test_lm_train import BUDGET, Walks, tokens, training

from lm.cli import main
from lm.config import TWIN
from lm.loop import carry_out
from lm.placement import Placement, place
from lm.task import LanguageTask
from lm.train import Training
from tests.corpora import made_of_words
from toybench.config import Cluster, ConfigError, InnerAdamW, Run
from toybench.outer import METHODS
from toybench.runtime import configure
from toybench.store import Store

ROOT = Path(__file__).parent.parent
FOUR = Cluster(sec_per_step=(1.0, 1.7, 3.1, 2.0), local_steps=4)  # all visits as long: fewer programs to compile
LOOKUP = [(4, "1x1"), (4, "2x1"), (4, "4x1"), (1, "1x2"), (4, "2x2")]
TRANSFORMER = [(2, "1x1"), (2, "2x1"), (4, "4x1"), (2, "2x2")]


def table(lanes, mesh, method="delayed_nesterov", dynamic=False):
    workers, data = map(int, mesh.split("x"))
    return training(method, lanes, replace(FOUR, dynamic_steps=dynamic), placement=Placement(workers, data))


def transformer(lanes, mesh):
    workers, data = map(int, mesh.split("x"))
    model, outer = replace(TWIN, vocabulary=11), METHODS["delayed_nesterov"].settings(lr=0.5)
    run = Run(model, FOUR, InnerAdamW(lr=0.005, warmup=2), outer, BUDGET)
    held_out = np.uint32(0), {"held_out": np.asarray(tokens(0, 99))}
    return Training(run, 3, LanguageTask(model, None), Walks(), held_out, lanes, placement=Placement(workers, data))


def carried_out(folder):
    """What the process with four devices does: each case's final state, into a file of its own."""
    jax.config.update("jax_num_cpu_devices", 4)
    assert len(jax.local_devices()) == 4  # from here on there are so many
    configure()
    cases = {f"table-{lanes}-{mesh}": table(lanes, mesh) for lanes, mesh in LOOKUP}
    cases |= {f"heloco-{lanes}-{mesh}": table(lanes, mesh, "heloco") for lanes, mesh in [(4, "1x1"), (4, "4x1")]}
    cases |= {f"dylu-{lanes}-{mesh}": table(lanes, mesh, dynamic=True) for lanes, mesh in [(4, "1x1"), (4, "4x1")]}
    cases |= {f"transformer-{lanes}-{mesh}": transformer(lanes, mesh) for lanes, mesh in TRANSFORMER}
    for name, one in cases.items():
        done = carry_out(one)
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(done.state)]
        np.savez(Path(folder) / name, *leaves, loss=done.curves.metrics["loss"][0])


@pytest.fixture(scope="module")
def four_devices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    command, environment = [sys.executable, __file__, str(folder)], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]

    def found(name):
        with np.load(folder / f"{name}.npz") as arrays:
            return dict(arrays)

    return found


@pytest.mark.parametrize("lanes, mesh", [case for case in LOOKUP if case[1].endswith("x1")])
def test_lanes_over_devices_are_lanes_on_one_bit_for_bit(four_devices, lanes, mesh):
    wanted, found = four_devices("table-4-1x1"), four_devices(f"table-{lanes}-{mesh}")
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])


@pytest.mark.parametrize("case", ["heloco", "dylu"])  # snapshots of each worker's own; visits of several lengths
def test_other_rules_hold_over_devices_bit_for_bit(four_devices, case):
    wanted, found = four_devices(f"{case}-4-1x1"), four_devices(f"{case}-4-4x1")
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])


@pytest.mark.parametrize("lanes, mesh", [case for case in LOOKUP if case[1].endswith("x2")])
def test_parts_of_a_batch_make_a_batch(four_devices, lanes, mesh):
    """To single precision: the sums over a batch have another order."""
    wanted, found = four_devices("table-4-1x1"), four_devices(f"table-{lanes}-{mesh}")
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lanes, mesh", TRANSFORMER[1:])
def test_a_transformer_over_devices_is_that_on_one(four_devices, lanes, mesh):
    """To single precision: a program for several devices is compiled otherwise, and sums in another order."""
    wanted, found = four_devices("transformer-2-1x1"), four_devices(f"transformer-{lanes}-{mesh}")
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-3, atol=1e-4)
    assert found["loss"][-1] < found["loss"][0] - 0.1


def test_as_many_lanes_on_each_device_are_the_same_program(four_devices):
    wanted, found = four_devices("transformer-2-2x1"), four_devices("transformer-4-4x1")
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])


def test_results_wait_on_their_devices():
    one = training(lanes=2, placement=Placement(workers=2))
    found = one.visits(one.waves[0], one.begin())
    where = [{next(iter(leaf.devices())) for leaf in jax.tree.leaves(result)} for result in found.values()]
    assert where == [{device} for device in jax.local_devices()[:2]]


# What a user asks for


@pytest.mark.parametrize(
    "lanes, devices, mesh", [(1, 4, "1x1"), (4, 4, "4x1"), (6, 4, "3x1"), (4, 1, "1x1"), (5, 4, "1x1"), (8, 4, "4x1")]
)
def test_lanes_take_the_devices_that_divide_them(lanes, devices, mesh):
    assert place(None, lanes, 8, devices).mesh == mesh


@pytest.mark.parametrize(
    "mesh, lanes, batch, said",
    [
        ("4", 4, 8, "mesh: expected WORKERSxDATA, for instance 4x2, got '4'"),
        ("0x1", 4, 8, "mesh: expected WORKERSxDATA, for instance 4x2, got '0x1'"),
        ("4x2", 4, 8, "mesh: 4x2 needs 8 devices, there are 4"),
        ("4x1", 6, 8, "lanes: must be a multiple of the mesh's 4 over workers, got 6"),
        ("1x4", 1, 6, "task.batch: must be a multiple of the mesh's 4 over data, got 6"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused(mesh, lanes, batch, said):
    with pytest.raises(ConfigError) as refused:
        place(mesh, lanes, batch, 4)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    "lanes, placement, said",
    [
        (64, Placement(workers=64), "mesh: 64x1 needs 64 devices, there are"),
        (3, Placement(workers=2), "lanes: must be a multiple of the mesh's 2 over workers, got 3"),
    ],
)
def test_a_training_that_cannot_be_laid_out_is_refused(lanes, placement, said):
    with pytest.raises(ConfigError, match=said):
        training(lanes=lanes, placement=placement)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return made_of_words(tmp_path_factory.mktemp("text"))


def test_a_run_as_it_is_typed_says_how_it_was_laid_out(data, tmp_path):
    words = ["--mesh", "2x1", "--lanes", "2", "--snapshots", "host", "--snapshot-dtype", "bfloat16"]
    sizes = {"width": 16, "heads": 2, "head-size": 8, "sequence": 16, "batch": 2, "held-out": 4}
    task = [word for name, size in sizes.items() for word in (f"--task.{name}", str(size))]
    budget = ["--cluster.local-steps", "4", "--budget.rounds", "4", "--budget.evaluations", "2"]
    store = tmp_path / "runs.sqlite"
    places = ["--task.data", str(data), "--out", str(tmp_path / "out"), "--store", str(store)]
    assert main(["train", *task, *budget, *places, *words]) == 0
    loss = json.loads((tmp_path / "out" / "run" / "run.json").read_text())["curves"]["loss"]
    assert loss[-1] < loss[0]
    with Store(store, writable=False) as found:
        made_by = found.describe(1)["maker"]
    assert (made_by["lanes"], made_by["mesh"], made_by["snapshot_dtype"]) == ("2", "2x1", "bfloat16")


if __name__ == "__main__":
    carried_out(sys.argv[1])
