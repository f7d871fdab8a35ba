"""Whether a run fits this machine, said before anything is compiled, and what would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from lm.config import SIZES, LanguageModel, parameters
from lm.memory import Footprint, footprint
from lm.placement import Placement
from toybench.config import ConfigError, Run


class Machine(NamedTuple):
    """What there is to fit into; None where nobody tells."""

    backend: str  # as jax calls it
    name: str  # of a device
    device: int | None  # bytes of one; on a CPU the host's, which all of its devices share
    host: int | None  # bytes


class Plan(NamedTuple):
    """A run, and how it is laid out."""

    run: Run
    lanes: int
    placement: Placement


Option = tuple[str, Plan]  # as a user asks for it, and what comes of it


def this_machine() -> Machine:
    """The local devices and their host."""
    import jax

    from toybench.runtime import memory

    device, host = jax.local_devices()[0], memory()
    if device.platform == "cpu":
        return Machine("cpu", "this machine", host, host)
    stats = device.memory_stats() or {}
    return Machine(jax.default_backend(), device.device_kind, stats.get("bytes_limit"), host)


def check_fits(plan: Plan, machine: Machine) -> None:
    """Refuse what cannot fit.

    Raises:
        ConfigError: more lanes than workers, which have a visit each in flight; or the run takes more than a device,
            or the host, has; with what would fit.
    """
    most = plan.run.cluster.workers
    if not 1 <= plan.lanes <= most:
        raise ConfigError("lanes", f"must be from 1 to {most}, the run's workers, got {plan.lanes}")

    def fits(other: Plan) -> bool:
        return _lacking(other, _footprint(other, machine), machine) is None

    found = _footprint(plan, machine)
    if (lacking := _lacking(plan, found, machine)) is None:
        return
    needed, name, there = lacking
    said = f"this run takes some {needed / 1e9:.3g} GB ({found.told}), {name} has {there / 1e9:.3g}"
    fitting = " or ".join(what_fits(plan, fits, machine)) or "no model that is known here"
    raise ConfigError("memory", f"{said}; what would fit: {fitting}")


def what_fits(plan: Plan, fits: Callable[[Plan], bool], machine: Machine) -> list[str]:
    """The least change of each kind with which a plan fits; where none alone is enough, several together."""
    alone = [next((said for said, other in kind(plan, machine) if fits(other)), None) for kind in KINDS]
    if found := [said for said in alone if said is not None]:
        return found
    told: list[str] = []
    for kind in KINDS:
        options = kind(plan, machine)
        for said, other in options:
            if fits(other):
                return [" ".join([*told, said])]
        if options:
            said, plan = options[-1]
            told.append(said)
    return []


# Kinds of changes, each with its options, the least first


def _fewer_lanes(plan: Plan, machine: Machine) -> list[Option]:
    each = plan.placement.workers
    return [(f"--lanes {n}", plan._replace(lanes=n)) for n in range(plan.lanes - each, 0, -each)]


def _on_host(plan: Plan, machine: Machine) -> list[Option]:
    if machine.backend == "cpu" or plan.placement.snapshots == "host":
        return []
    return [("--snapshots host", plan._replace(placement=replace(plan.placement, snapshots="host")))]


def _recomputed(plan: Plan, machine: Machine) -> list[Option]:
    # XLA undoes remat on a CPU, unless the layers are a loop.
    wanted = {"remat": True} | ({"scan_layers": True} if machine.backend == "cpu" else {})
    lacking = [name for name in wanted if not getattr(plan.run.task, name)]
    if not lacking:
        return []
    return [(" ".join(f"--task.{name.replace('_', '-')}" for name in lacking), _with_model(plan, **wanted))]


def _rounded(plan: Plan, machine: Machine) -> list[Option]:
    if plan.placement.dtype == "bfloat16":
        return []
    return [("--snapshot-dtype bfloat16", plan._replace(placement=replace(plan.placement, dtype="bfloat16")))]


def _smaller_batch(plan: Plan, machine: Machine) -> list[Option]:
    model: LanguageModel = plan.run.task
    halves = [model.batch >> i for i in range(1, model.batch.bit_length())]
    return [(f"--task.batch {n}", _with_model(plan, batch=n)) for n in halves if n % plan.placement.data == 0]


def _shorter_sequence(plan: Plan, machine: Machine) -> list[Option]:
    model: LanguageModel = plan.run.task
    halves = [model.sequence >> i for i in range(1, model.sequence.bit_length() - 1)]  # two tokens at least
    return [(f"--task.sequence {n}", _with_model(plan, sequence=n)) for n in halves]


def _smaller_size(plan: Plan, machine: Machine) -> list[Option]:
    model: LanguageModel = plan.run.task
    smaller = {
        name: size.model
        for name, size in SIZES.items()
        if parameters(size.model) < parameters(model) and size.model.vocabulary == model.vocabulary
    }
    kept = {name: getattr(model, name) for name in ("data", "batch", "sequence", "remat", "scan_layers")}
    names = sorted(smaller, key=lambda name: -parameters(smaller[name]))
    return [
        (f"size {name}", plan._replace(run=replace(plan.run, task=replace(smaller[name], **kept)))) for name in names
    ]


# Numbers change from the 4th on.
KINDS = (_fewer_lanes, _on_host, _recomputed, _rounded, _smaller_batch, _shorter_sequence, _smaller_size)


def _with_model(plan: Plan, **settings: int | bool) -> Plan:
    return plan._replace(run=replace(plan.run, task=replace(plan.run.task, **settings)))


def _footprint(plan: Plan, machine: Machine) -> Footprint:
    return footprint(plan.run, plan.lanes, plan.placement, machine.backend)


def _lacking(plan: Plan, found: Footprint, machine: Machine) -> tuple[float, str, int] | None:
    """What is needed, of what, and how much of it there is; None if all fits."""
    if machine.backend == "cpu":  # one memory for all
        together = found.device + found.host + found.checkpoint_on_host + (plan.placement.devices - 1) * found.lanes
        needs = [(together, machine.name, machine.host)]
    else:
        needs = [
            (found.device, machine.name, machine.device),
            (found.host + found.checkpoint_on_host, "its host", machine.host),
        ]
    return next(((needed, name, there) for needed, name, there in needs if there and needed > there), None)
