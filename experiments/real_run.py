"""Does a real run go as the simulation says? Three real workers train the small language model, synchronously and not.

Each worker is slowed down to a declared speed, so that a small machine can show unequal ones. Beside each real run
stands what was predicted twice: by the cluster model with the declared speeds, before, and with the speeds that were
measured, after. The real run's arrivals are then replayed.

Command:  python -m experiments.real_run [--engine ray]
Duration: about six minutes with the defaults, most of it spent waiting for the slow workers.
Writes:   real.json, real.md and real.png to --out, results/real-run if not given
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.options import out_folder
from lm.config import default_arms
from lm.loop import carry_out as simulate_run
from lm.work import text_recipe, text_work
from toybench.arguments import Parser
from toybench.config import Budget, Cluster, Run
from toybench.plots.style import SIZES, line_style, panels, rendered, styled
from toybench.records import plain, provenance, write_whole
from toybench.runtime import configure, cores
from toybench.transports.drive import Engine, carry_out
from toybench.transports.messages import Rules
from toybench.transports.replaying import replay_record
from toybench.transports.results import read_real

CLUSTER = Cluster(sec_per_step=(1.0, 1.5, 3.0), local_steps=10)


def arms(rounds: int) -> dict[str, Run]:
    """Sync DiLoCo and DN + DyLU as `lm train` has them, on three workers."""
    found = {}
    for name, run in default_arms().items():
        rules = {"barrier": run.cluster.barrier, "dynamic_steps": run.cluster.dynamic_steps}
        found[name] = replace(run, cluster=replace(CLUSTER, **rules), budget=Budget(rounds=rounds, evaluations=10))
    return found


def one(name: str, run: Run, engine: Engine, folder: Path) -> dict[str, Any]:
    """A real run, its two predictions, and its replay."""
    recipe, unit = text_recipe(run, 0), engine.rules.pace
    document = carry_out(recipe, engine, folder, report=lambda told: None)
    assert document is not None
    real, replayed = read_real(folder), replay_record(folder)
    measured = tuple(real.speeds[w] for w in range(run.cluster.workers))
    curves = {"real": [[p.time, p.metrics["loss"]] for p in real.points]}
    began = real.timeline.start.min()
    curves["real"] = [[max(0.0, at - began), loss] for at, loss in curves["real"]]
    for said, speeds in (("declared speeds", run.cluster.sec_per_step), ("measured speeds", measured)):
        model = replace(run, cluster=replace(run.cluster, sec_per_step=speeds))
        found = simulate_run(text_work(text_recipe(model, 0).told).training).curves
        curves[said] = [[t * unit, loss] for t, loss in zip(found.time[0].tolist(), found.metrics["loss"][0].tolist())]
    told = {name: getattr(replayed, name) for name in ("arrivals", "largest", "relative", "loss", "loss_again")}
    return {
        "curves": curves,
        "departures": document["predicted"],
        "first_departure": document["first_departure"],
        "speeds": {"declared": [s * unit for s in run.cluster.sec_per_step], "measured": [s * unit for s in measured]},
        "counts": document["counts"],
        "replay": told,
        "seconds": document["seconds"],
    }


def table(found: dict[str, Any]) -> str:
    """Markdown of all."""
    lines = ["| run | | real | predicted, declared speeds | predicted, measured speeds |", "|---|---|---|---|---|"]
    for name, run in found["runs"].items():
        ends = [run["curves"][side][-1] for side in ("real", "declared speeds", "measured speeds")]
        lines.append(f"| {name} | seconds | {' | '.join(f'{end[0]:.1f}' for end in ends)} |")
        lines.append(f"| {name} | held-out loss | {' | '.join(f'{end[1]:.4f}' for end in ends)} |")
    lines += ["", "| run | | real | predicted, measured speeds |", "|---|---|---|---|"]
    for name, run in found["runs"].items():
        for row in run["departures"]:
            lines.append(f"| {name} | {row['name']} | {row['real']:.6g} | {row['predicted']:.6g} |")
    lines += ["", "| run | arrivals replayed | largest difference of a parameter | relative to what training changed |"]
    lines.append("|---|---|---|---|")
    for name, run in found["runs"].items():
        told = run["replay"]
        lines.append(f"| {name} | {told['arrivals']} | {told['largest']:.2g} | {told['relative']:.2g} |")
    return "\n".join(lines)


def draw(found: dict[str, Any]):
    """Held-out loss against wall time, real and predicted."""
    size = SIZES["screen"]
    figure, axes = panels(size, 1, [4.2])
    for i, (name, run) in enumerate(found["runs"].items()):
        style = {"real": "-", "declared speeds": ":", "measured speeds": "--"}
        for side, dashes in style.items():
            time, loss = np.array(run["curves"][side]).T
            colour = line_style(i)["color"]
            axes[0].plot(
                time, loss, dashes, color=colour, marker="o" if side == "real" else None, label=f"{name}, {side}"
            )
    axes[0].set_xlabel("seconds of the wall clock")
    axes[0].set_ylabel("held-out loss (nats a token)")
    axes[0].legend()
    return figure


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", choices=("threads", "ray"), default="threads")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--pace", type=float, default=0.1, help="seconds that a step of the fastest worker lasts")
    parser.add_argument("--out", type=out_folder, default="results/real-run", metavar="DIR")
    arguments = parser.parse_args()
    configure()
    share = min(1.0, cores() / CLUSTER.workers) if arguments.engine == "ray" else 1.0
    engine = Engine(arguments.engine, Rules(pace=arguments.pace, every=10.0), cpus_per_worker=share)
    found: dict[str, Any] = {"runs": {}, "engine": arguments.engine, "pace": arguments.pace, "rounds": arguments.rounds}
    with tempfile.TemporaryDirectory() as folder:
        for name, run in arms(arguments.rounds).items():
            found["runs"][name] = one(name, run, engine, Path(folder) / name)
    found["provenance"] = provenance()
    write_whole(arguments.out / "real.json", json.dumps(plain(found), indent=1) + "\n")
    words = f"Engine {arguments.engine}, pace {arguments.pace:g} s, {arguments.rounds} rounds; "
    words += "`python -m experiments.real_run`"
    write_whole(arguments.out / "real.md", f"# Real workers beside their simulation\n\n{words}.\n\n{table(found)}\n")
    with styled(SIZES["screen"]):
        write_whole(arguments.out / "real.png", rendered(draw(found), arguments.out / "real.png"))
    print(table(found))


if __name__ == "__main__":
    main()
