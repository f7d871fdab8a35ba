"""What a run takes, from its settings: against what is really there, and what XLA plans; and what is said in time."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_lm_train import BUDGET, CLUSTER, Walks

from lm.cli import main
from lm.config import SIZES, TWIN
from lm.fitting import Machine, Plan, check_fits, this_machine, what_fits
from lm.memory import footprint, inner_copies, outer_copies, step_work, visit_activations, visit_work
from lm.placement import DEFAULT, Placement
from lm.promote import ACCELERATORS, estimate, promote
from lm.task import LanguageTask
from lm.train import Training
from toybench.config import Cluster, ConfigError, InnerAdamW, InnerSGD, Run
from toybench.outer import METHODS
from toybench.presets import load_preset

TINY = SIZES["tiny"].model


def run_of(model=TWIN, method="delayed_nesterov", inner=None, cluster=CLUSTER):
    inner = InnerAdamW(lr=0.05) if inner is None else inner
    return Run(replace(model, vocabulary=max(model.vocabulary, 11)), cluster, inner, METHODS[method].settings(), BUDGET)


def training_of(run, lanes=1, placement=DEFAULT):
    return Training(run, 3, LanguageTask(run.task, None), Walks(), None, lanes, placement=placement)


def size(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


# Against what is there


@pytest.mark.parametrize("method", ["sgd", "delayed_nesterov", "adamw", "halos"])
@pytest.mark.parametrize("inner", [InnerAdamW(), InnerSGD()])
def test_states_are_counted_to_the_byte_but_for_counters(method, inner):
    run = run_of(method=method, inner=inner)
    state, found = training_of(run).begin(), footprint(run)
    assert found.server == pytest.approx(size(state.server), rel=0.01)
    assert found.inner_states == pytest.approx(size(state.inner_states), rel=0.01)
    assert found.snapshots == pytest.approx(size(state.pulled), rel=0.01)
    assert found.host == 0


def test_what_is_kept_on_the_host_or_rounded_is_counted_there():
    run = run_of()
    wide, rounded = footprint(run), footprint(run, 1, Placement(dtype="bfloat16"))
    on_host = footprint(run, 1, Placement(snapshots="host", dtype="bfloat16"))
    assert rounded.snapshots == wide.snapshots / 2
    assert (on_host.snapshots, on_host.inner_states) == (0, 0)
    assert on_host.host == rounded.snapshots + wide.inner_states
    state = training_of(run, 1, Placement(snapshots="host", dtype="bfloat16")).begin()
    kept = {id(leaf): leaf.nbytes for leaf in jax.tree.leaves((state.pulled, state.inner_states))}
    assert sum(kept.values()) <= on_host.host * 1.01  # at first all share a snapshot


# Counted by hand

# 11·16 embedding, two layers of 4·16·16 attention, 2·4·16·16 perceptron and 2·16 norms, 16 at last: 6,400 parameters.
HAND = replace(TWIN, vocabulary=11, layers=2, width=16, heads=2, head_size=8, sequence=16, batch=4)
COPY = 4 * 6400.0
# Floats of a layer and token: 6·16 + 6·16 + 4·4·16 = 448, twice 2·16 of scores; so 2,048 bytes, of two layers and one
# more on 4·16 tokens; and 2.5 of the logits.
ACTIVE = 3 * 2048 * 64 + 2.5 * 4 * 64 * 11
WORKERS = Cluster(sec_per_step=(1.0, 1.0, 2.0, 2.0, 3.0), local_steps=6)
WHOLE = {"server": 3, "snapshots": 5, "inner_states": 10, "work": 7, "host": 0, "checkpoint_on_host": 27}  # in copies


@pytest.mark.parametrize(
    "lanes, placement, model, backend, copies, tokens, activations",
    [
        # Nesterov's server: parameters, momentum, a group's sum. Its step: four, and a new state of three.
        (1, {}, {}, "gpu", {}, 0, ACTIVE),
        # A lane: two states of three copies; of five workers' visits three wait, with three copies each.
        (2, {}, {}, "gpu", {"inner_states": 10 + 9, "work": 12}, 2, 2 * ACTIVE),
        # Two lanes a device on half a batch; one visit waits.
        (4, {"workers": 2, "data": 2}, {}, "gpu", {"inner_states": 10 + 3, "work": 12}, 1, ACTIVE),
        # A quarter of a batch takes less than an evaluation, which is of a whole one but of one layer.
        (1, {"data": 4}, {}, "gpu", {}, 0, 2048 * 64 + 2.5 * 4 * 64 * 11),
        # Each lane brings a snapshot and two of states to the device.
        (
            2,
            {"snapshots": "host"},
            {},
            "gpu",
            {"snapshots": 0, "inner_states": 0, "host": 5 + 10 + 9, "work": 12 + 2 * 3},
            2,
            2 * ACTIVE,
        ),
        # Each lane widens a snapshot.
        (
            2,
            {"dtype": "bfloat16"},
            {},
            "gpu",
            {"snapshots": 2.5, "inner_states": 10 + 9, "work": 12 + 2, "checkpoint_on_host": 23.25},
            2,
            2 * ACTIVE,
        ),
        # Half of 448 floats, no scores, and the weights once more in bfloat16; a CPU computes in float32.
        (1, {}, {"compute": "bfloat16"}, "gpu", {}, 0, 3 * 896 * 64 + 2.5 * 4 * 64 * 11 + COPY / 2),
        (1, {}, {"compute": "bfloat16"}, "cpu", {}, 0, ACTIVE),
    ],
)
def test_bytes_are_those_counted_by_hand(lanes, placement, model, backend, copies, tokens, activations):
    run = run_of(replace(HAND, **model), "nesterov", InnerAdamW(), WORKERS)
    found = footprint(run, lanes, Placement(**placement), backend)._asdict()
    wanted = {name: COPY * times for name, times in (WHOLE | copies).items()}
    wanted["work"] += tokens * 6 * 4 * 17 * 4.0  # visits of six steps, four sequences and 16 tokens with one more
    assert found == wanted | {"activations": activations}


def least(machine, plan):
    """The bytes, to a part in a million, that a machine must have for a plan."""
    low, high = 1.0, 1e12
    while high / low > 1 + 1e-6:
        middle = (low * high) ** 0.5
        try:
            check_fits(plan, machine(int(middle)))
            high = middle
        except ConfigError:
            low = middle
    return high


def test_on_a_cpu_all_devices_and_a_checkpoint_share_the_memory():
    run = run_of(HAND, "nesterov", InnerAdamW(), WORKERS)
    plan = Plan(run, 4, Placement(workers=2, data=2))
    lanes = 12 * COPY + 6 * 4 * 17 * 4 + ACTIVE
    wanted = (3 + 5 + 13 + 27) * COPY + 4 * lanes
    assert least(lambda there: Machine("cpu", "it", there, there), plan) == pytest.approx(wanted, rel=1e-5)


def test_on_an_accelerator_the_host_needs_room_for_a_checkpoint():
    plan = Plan(run_of(HAND, "nesterov", InnerAdamW(), WORKERS), 1, DEFAULT)
    there = least(lambda there: Machine("gpu", "it", None, there), plan)
    assert there == pytest.approx(27 * COPY, rel=1e-5)
    plan = plan._replace(placement=Placement(snapshots="host"))
    there = least(lambda there: Machine("gpu", "it", None, there), plan)
    assert there == pytest.approx((27 + 15) * COPY, rel=1e-5)


@pytest.mark.parametrize(
    "platform, stats, wanted", [("gpu", {"bytes_limit": 7}, 7), ("gpu", None, None), ("cpu", None, 9)]
)
def test_a_machine_is_what_its_devices_and_its_host_tell(platform, stats, wanted, monkeypatch):
    device = SimpleNamespace(platform=platform, device_kind="a device", memory_stats=lambda: stats)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr("toybench.runtime.memory", lambda: 9)
    name = "this machine" if platform == "cpu" else "a device"
    assert this_machine() == Machine(platform, name, wanted, 9)


# Against what XLA plans


def planned(compiled):
    found = compiled.memory_analysis()
    kept = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return kept + found.temp_size_in_bytes


@pytest.mark.parametrize(
    "lanes, change",
    [
        (1, {}),
        (2, {"batch": 2}),
        (1, {"batch": 2, "vocabulary": 8000}),
        (1, {"batch": 4, "layers": 4, "scan_layers": True}),
        (1, {"batch": 4, "layers": 4, "scan_layers": True, "remat": True}),
    ],
)
def test_a_visit_takes_no_more_than_is_said_and_half_of_it_at_least(lanes, change):
    run = run_of(replace(TINY, **change))
    one, model, steps = training_of(run, lanes), run.task, 2
    params = jax.eval_shape(one.task.init, jax.random.key(0))
    state = jax.eval_shape(one.inner.transformation.init, params)
    tokens = jax.ShapeDtypeStruct((steps, model.batch, model.sequence + 1), jnp.int32)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    arguments = params, state, tokens, number, number
    if lanes > 1:
        stack = lambda leaf: jax.ShapeDtypeStruct((lanes, *leaf.shape), leaf.dtype)  # noqa: E731
        arguments = *jax.tree.map(stack, arguments), number
    wanted = planned(one.programs.visit.lower(*arguments).compile())
    begun = 0 if lanes > 1 else 4 * (1 + inner_copies(run.inner)) * sum(map(np.size, jax.tree.leaves(params)))
    said = begun + visit_work(model, inner_copies(run.inner), lanes, lanes > 1)
    said += lanes * visit_activations(model, model.batch, "cpu")
    assert said / 2 <= wanted <= said


@pytest.mark.parametrize("method", ["sgd", "delayed_nesterov", "halos"])
def test_an_arrival_takes_no_more_than_is_said(method):
    run = run_of(replace(TINY, vocabulary=8000), method)
    one = training_of(run)
    state = one.begin()
    row = type(one.rows)(*(column[0] for column in one.rows))
    arguments = state.server, state.pulled[0], row, state.pulled[0]
    begun, outer = footprint(run).server + size(state.pulled[0]), outer_copies(run.outer, 3, False)
    said = begun + step_work(run.task, outer)
    assert said / 2 <= planned(one._arrive.lower(*arguments, one.numbers).compile()) <= said * 1.01  # counters


# Said in time

SMALL = Machine("gpu", "a small device", int(3e9), int(64e9))


def plan_of(lanes=4, placement=DEFAULT, **model):
    run = promote(load_preset(), "20m")
    return Plan(replace(run, task=replace(run.task, **model)), lanes, placement)


def test_what_fits_is_not_stopped():
    check_fits(plan_of(1, batch=8), SMALL)
    check_fits(plan_of(), Machine("gpu", "a device that does not tell", None, None))


@pytest.mark.parametrize("model", [{}, {"batch": 16}, {"batch": 512}])
@pytest.mark.parametrize("there", [1e9, 2e9, 3e9, 6e9])
@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
def test_what_is_said_to_fit_does_and_is_no_smaller_than_it_must_be(model, there, backend):
    machine, tried = Machine(backend, "it", int(there), int(there) if backend == "cpu" else int(64e9)), []

    def fits(plan):
        found = footprint(plan.run, plan.lanes, plan.placement, backend)
        also = found.host + found.checkpoint_on_host if backend == "cpu" else 0
        tried.append((plan, ok := found.device + also <= there))
        return ok

    plan = plan_of(**model)
    if fits(plan):
        return
    said = what_fits(plan, fits, machine)
    assert len(said) == len(set(said)) <= sum(ok for _, ok in tried)
    assert bool(said) == any(ok for _, ok in tried)
    with pytest.raises(ConfigError) as refused:
        check_fits(plan, machine)
    text = str(refused.value)
    assert text.endswith("what would fit: " + (" or ".join(said) or "no model that is known here"))
    assert "\n" not in text and f"it has {there / 1e9:.3g}" in text
    for option in said:
        match option.split():
            case ["--lanes", n]:
                assert fits(plan._replace(lanes=int(n))) and not fits(plan._replace(lanes=int(n) + 1))


def test_a_shorter_sequence_is_thought_of():
    plan = plan_of(1, batch=1, sequence=2**20)
    with pytest.raises(ConfigError, match=r"what would fit: .*--task\.sequence (\d+)") as refused:
        check_fits(plan, SMALL)
    length = int(str(refused.value).partition("--task.sequence ")[2].split()[0])
    check_fits(plan_of(1, batch=1, sequence=length), SMALL)
    with pytest.raises(ConfigError):
        check_fits(plan_of(1, batch=1, sequence=2 * length), SMALL)


@pytest.mark.parametrize("lanes", [0, -1, 5, 1_000_000])
def test_lanes_beyond_the_workers_are_refused_before_anything_is_counted(lanes, monkeypatch):
    monkeypatch.setattr("lm.fitting.footprint", lambda *_: pytest.fail("it was counted"))
    with pytest.raises(ConfigError, match=f"^lanes: must be from 1 to 4, the run's workers, got {lanes}$"):
        check_fits(plan_of(lanes), SMALL)


def test_lanes_stay_a_multiple_of_the_mesh():
    plan = plan_of(8, Placement(workers=2))
    said = what_fits(plan, lambda other: other.lanes <= 5, SMALL)
    assert said == ["--lanes 4"]


def test_the_host_must_have_room_for_what_is_kept_there():
    with pytest.raises(ConfigError, match=r"its host has 0\.1"):
        check_fits(plan_of(1, Placement(snapshots="host"), batch=8), SMALL._replace(host=int(1e8)))


def test_a_model_too_large_for_the_machine_is_one_line_before_anything_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Training, "begin", lambda training: pytest.fail("it began"))
    with pytest.raises(SystemExit) as ended:
        main(["train", "--task.width", "65536", "--task.layers", "64", "--task.batch", "64"])
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.count("\n") == 1
    assert err.startswith("toybench: error: memory: this run takes some ") and "this machine has " in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words, said",
    [
        (["--mesh", "2"], "mesh: expected WORKERSxDATA, for instance 4x2, got '2'"),
        (["--mesh", "999x1", "--lanes", "999"], "mesh: 999x1 needs 999 devices"),
        (["--mesh", "2x1"], "lanes: must be a multiple of the mesh's 2 over workers, got 1"),
        (["--mesh", "1x2", "--task.batch", "3"], "task.batch: must be a multiple of the mesh's 2 over data, got 3"),
        (["--snapshots", "disk"], "snapshots: must be one of device, host, got 'disk'"),
        (["--snapshot-dtype", "int8"], "snapshot_dtype: must be one of float32, bfloat16, got 'int8'"),
    ],
)
def test_a_layout_that_cannot_be_is_one_line_before_anything_is_made(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["train", *words])
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.count("\n") == 1 and said in err
    assert not list(tmp_path.iterdir())


# The same everywhere


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_an_estimate_is_what_is_checked(accelerator):
    run, device = promote(load_preset(), "60m"), ACCELERATORS[accelerator]
    found = estimate(run, accelerator)
    assert found.memory == footprint(run, backend=device.backend).device
    machine = Machine(device.backend, device.name, int(device.memory), None)
    if found.fits:
        check_fits(Plan(run, 1, DEFAULT), machine)
    else:
        with pytest.raises(ConfigError):
            check_fits(Plan(run, 1, DEFAULT), machine)
