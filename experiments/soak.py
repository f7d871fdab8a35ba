"""Does a run over Ray lose or repeat anything when everything that can die does, again and again?

Command:  python -m experiments.soak --seconds 240
Duration: up to three times as long as said, and a minute or two for the runs without faults and the replays. Leave the
sources alone meanwhile: a server that is begun again from others is refused.

A few seeds of a small toy, one after the other. Workers and the server are killed and stopped, the server at any
moment, just after its journal grew and while it writes a checkpoint; pushes come twice, late and after the next; the
server's files may once grow no further; a worker of another version asks to come in. Looked at from outside: what the
workers' own logs say was sent and acknowledged, what the server's folder says was applied, and what is left behind.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy import stats

from experiments.options import out_folder
from experiments.soak_faults import Chaos, Unreliable
from toybench.arguments import Parser
from toybench.config import ConfigError
from toybench.loading import load_run
from toybench.records import plain, provenance
from toybench.runtime import configure, cores
from toybench.timeline import Timeline
from toybench.transports.about import about_of
from toybench.transports.again import again
from toybench.transports.coordinator import read_arrivals, timeline_of
from toybench.transports.live import Live
from toybench.transports.messages import Rules
from toybench.transports.ray import run_ray
from toybench.transports.ray.posts import Care
from toybench.transports.threads import run_threads
from toybench.transports.work import Recipe, toy_recipe

SPEEDS, STEPS, PACE = (1.0, 1.3, 1.7), 10, 0.01
RULES = Rules(pace=PACE, first=20.0, factor=4.0, least=1.5, every=0.4)
CARE = Care(limit=60, pause=0.1, most=1.0)
SHARE = 0.12  # of the local steps that workers without faults would make in the time
JOIN = """
import sys
from pathlib import Path
from experiments.soak_faults import Foreign
from toybench.config import ConfigError
from toybench.transports.ray import join_ray
from toybench.transports.ray.site import key_of
try:
    join_ray(key_of(Path(sys.argv[1])), cpus_per_worker=0.1, around=Foreign)
except ConfigError as error:
    if "no run" not in str(error):
        print(error)
        sys.exit(0)
sys.exit(3)
"""  # whatever else it ends with, it was not answered: the run had just failed, or it was killed itself


def recipe_of(seconds: float, seed: int) -> Recipe:
    """A run that takes about so long, faults and all."""
    steps = SHARE * seconds * sum(1 / speed for speed in SPEEDS) / PACE
    told = {
        "task": {"points": 4000, "held_out": 1024},
        "cluster": {"sec_per_step": SPEEDS, "local_steps": STEPS},
        "outer": {"method": "nesterov", "lr": 0.05},  # about the toy's best where nobody waits
        "budget": {"rounds": max(2, int(steps / STEPS / len(SPEEDS))), "evaluations": 4},
    }
    return toy_recipe(load_run(told), seed)


# A run through faults


def soaked(recipe: Recipe, folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    """One seed: the run, begun again where it failed, and what was done to it."""
    ledger, said = folder / "server", folder / "said"
    said.mkdir(parents=True)
    chaos, until, failures, foreign = Chaos(ledger, seed, seconds / 4), time.monotonic() + 3 * seconds, [], []
    deaths: Counter[str] = Counter()
    notes: list[str] = []
    while time.monotonic() < until:
        thread = threading.Thread(target=chaos.run, daemon=True)
        chaos.ended.clear()
        last: dict[str, Any] = {}

        def report(told: dict[str, Any], last: dict[str, Any] = last) -> None:
            last.update(told)
            chaos.told.update(told)
            if told["arrivals"] > 20 and (not foreign or foreign[-1].poll() not in (None, 0)):
                command = [sys.executable, "-c", JOIN, str(ledger)]
                foreign.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))

        thread.start()
        around, stop = partial(Unreliable, folder=str(said)), lambda: time.monotonic() > until
        whole = False
        try:
            whole = run_ray(
                recipe, ledger, RULES, workers=len(SPEEDS), cpus_per_worker=cores() / len(SPEEDS) / 2,
                store=100 * 2**20, care=CARE, around=around, report=report, stop=stop,
            )  # fmt: skip
        except ConfigError as error:  # where a run does not even begin, or its server is given up
            last["failed"] = str(error)
        finally:
            chaos.ended.set()
            thread.join()
        chaos.told.clear()
        deaths.update({"workers": last.get("deaths", 0), "servers": last.get("server_deaths", 0)})
        notes += last.get("notes", [])
        if whole:
            break
        failures.append((last.get("failed") or "stopped").replace(str(folder), "FOLDER"))
        print(f"seed {seed}: {failures[-1]}", flush=True)
        if foreign:
            foreign[-1].kill()  # what it has joined is there no more; where it was answered it has ended
        time.sleep(1.0)
    answer = answered(foreign[-1]) if foreign else ""
    return {
        "faults": dict(chaos.counts),
        "deaths": dict(deaths),
        "failed": failures,
        "notes": notes,
        "other version": answer,
    }


def answered(process: subprocess.Popen, seconds: float = 120.0) -> str:
    """What a process said until its end, or until it took too long."""
    try:
        return process.communicate(timeout=seconds)[0].strip()
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0].strip()


# What is found afterwards


def unkilled(told: dict[str, Any]) -> int:
    """Servers that died, beyond those that were killed and one for each run that failed."""
    killed = sum(times for what, times in told["faults"].items() if what.startswith("servers killed"))
    return max(0, told["deaths"].get("servers", 0) - killed - len(told["failed"]))


def logs(folder: Path) -> list[dict[str, Any]]:
    """What workers wrote down; a line that a death cut off is none."""
    found = []
    for path in (folder / "said").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def checked(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Counts and checks of what the server's folder holds, its last journal too."""
    work, said = recipe.make(), logs(folder)
    live = Live(work, folder / "server", RULES, about_of(recipe))
    live.close()
    told = live.coordinator.state()
    arrivals = read_arrivals(told)
    applied = [arrival.id for arrival in arrivals]
    sent = [line["sent"] for line in said if "sent" in line]
    answers = [line for line in said if "verdict" in line]
    acknowledged = {line["id"] for line in answers if line["verdict"] in ("applied", "repeated")}
    first = Counter(line["id"] for line in answers if line["verdict"] == "applied")
    timeline = timeline_of(arrivals, told["stepped"])
    pairs = zip(*map(jax.tree.leaves, (again(work, timeline), live.server.params)))
    differences = [float(np.abs(np.asarray(one) - np.asarray(other)).max()) for one, other in pairs]
    done, lost, lost_steps, given = told["counts"]
    counts = {
        "visits given": given,
        "pushes sent": len(sent),
        "visits pushed": len(set(sent)),
        "applied": len(applied),
        "applied, the answer never read": len(set(applied) - acknowledged),
        "visits lost": lost,
        "steps lost and given out again": lost_steps,
        "local steps": done,
        **{f"how: {how}": n for how, n in Counter(line["how"] for line in answers).items()},
        **{f"answer: {what}": n for what, n in Counter(line["verdict"] or "none" for line in answers).items()},
    }
    reasons = Counter(line["reason"] for line in answers if line["verdict"] == "refused")
    checks = {
        "applied once each": len(applied) == len(set(applied)),
        "answered 'applied' at most once each": max(first.values(), default=0) <= 1,
        "acknowledged is applied": acknowledged <= set(applied),
        "applied was sent": set(applied) <= set(sent),
        "every step of a shard once": gaps(told) == [],
        "replay differs by less than 1e-4": max(differences) < 1e-4,
    }
    points = live.points
    return {
        "counts": counts,
        "refused because": dict(reasons),
        "checks": checks,
        "replay difference": max(differences),
        "loss": points[-1].metrics["loss"] if points[-1].local_steps == done else None,
        "fresh inner states": int(timeline.reset.sum()),
        "loss, inner states kept": work.evaluate(again(work, kept(timeline)))["loss"],
    }


def kept(timeline: Timeline) -> Timeline:
    """The same arrivals, as if no worker had ever lost its inner state."""
    first = np.zeros_like(timeline.reset)
    first[np.unique(timeline.worker, return_index=True)[1]] = True
    return timeline._replace(reset=first)


def gaps(told: dict[str, Any]) -> list[int]:
    """Shards of which some step is not exactly once among what arrived, is being made, or is to be given again."""
    parts = [(a.visit.shard, a.visit.first_step, a.visit.num_steps) for a in read_arrivals(told)]
    parts += [(shard, first, steps) for _, shard, first, steps, _ in told["scheduler"]["running"]]
    parts += [(shard, first, steps) for shard, first, steps in told["scheduler"]["lost"]]
    found = []
    for shard, given in enumerate(told["scheduler"]["shards"]["consumed"]):
        steps = sorted(step for s, first, n in parts if s == shard for step in range(first, first + n))
        found += [] if steps == list(range(given)) else [shard]
    return found


def without_faults(recipe: Recipe, folder: Path) -> float:
    """The final loss of the same run by threads, at half the pace."""
    rules = replace(RULES, pace=PACE / 2, least=20.0)
    work = recipe.make()
    live = Live(work, folder, rules)
    if not run_threads(live, work):
        raise ConfigError("soak", f"the run without faults failed: {live.failed}")
    return live.points[-1].metrics["loss"]


def interval(differences: list[float]) -> dict[str, float]:
    """Mean of paired differences, and its 95 % interval by Student's t."""
    mean, n = float(np.mean(differences)), len(differences)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return {"mean": mean, "low": mean - half, "high": mean + half, "seeds": n}


def above(runs: list[dict[str, Any]], name: str) -> dict[str, float]:
    """A loss minus the mean of those without faults of the same seed."""
    return interval([run[name] - float(np.mean(run["losses without faults"])) for run in runs]) if runs else {}


def left_behind(before: set[str]) -> list[str]:
    """Processes of a Ray of ours, and files in shared memory that were not there."""
    from experiments.soak_faults import ours

    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*") if int(path.name) != os.getpid()]
    return [f"process {pid}" for pid in pids if ours(pid)] + sorted(set(os.listdir("/dev/shm")) - before)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240.0, help="of all runs through faults, about")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=out_folder, default="results/soak", metavar="DIR")
    asked = parser.parse_args()
    configure()
    memory, runs, began = set(os.listdir("/dev/shm")), [], time.monotonic()
    for seed in range(asked.seeds):
        recipe, folder = recipe_of(asked.seconds / asked.seeds, seed), Path(tempfile.mkdtemp(prefix="toybench-soak-"))
        at = time.monotonic()
        faults = soaked(recipe, folder, asked.seconds / asked.seeds, seed)
        run = {"seed": seed, "seconds": time.monotonic() - at, **faults, **checked(recipe, folder)}
        run["checks"]["no server died that was not killed"] = not unkilled(faults)
        calm = [without_faults(recipe, folder / f"calm {n}") for n in range(2)]  # their arrivals differ too
        runs.append(run | {"losses without faults": calm})
        print(json.dumps(plain(runs[-1]), indent=1), flush=True)
        shutil.rmtree(folder)
    report(asked.out, runs, left_behind(memory), time.monotonic() - began)


def report(out: Path, runs: list[dict[str, Any]], left: list[str], seconds: float) -> None:
    """Write the record; the process fails if a check does."""
    ended = [run for run in runs if run["loss"] is not None]
    calm = [run["losses without faults"] for run in ended]
    total: Counter[str] = Counter()
    for run in runs:
        total.update(run["counts"])
        total.update({f"refused: {why}": n for why, n in run["refused because"].items()})
        total.update({f"fault: {what}": n for what, n in run["faults"].items()})
        total.update({f"deaths of {who}": n for who, n in run["deaths"].items()})
    checks = {name: all(run["checks"][name] for run in runs) for name in runs[0]["checks"]}
    refused = all("is 0.0.0 on the worker" in run["other version"] for run in runs)
    checks |= {"a worker of another version is refused": refused}
    checks |= {"all runs came to their end": len(ended) == len(runs), "nothing is left behind": not left}
    noise = float(np.sqrt(np.mean([(one - other) ** 2 / 2 for one, other in calm]))) if ended else None
    document = {
        "seconds": seconds,
        "machine": {"cores": cores(), "load": os.getloadavg()[0], "system": platform.platform()},
        "checks": checks,
        "total": dict(sorted(total.items())),
        "loss through faults minus without": above(ended, "loss"),
        "the same arrivals with inner states kept": above(ended, "loss, inner states kept"),
        "standard deviation of runs without": noise,
        "largest replay difference": max(run["replay difference"] for run in runs),
        "left": left,
        "runs": runs,
        "provenance": provenance(),
    }
    (out / "soak.json").write_text(json.dumps(plain(document), indent=1) + "\n")
    (out / "readme.md").write_text(page(document))
    print(page(document))
    if not all(checks.values()):
        raise SystemExit(1)


def page(document: dict[str, Any]) -> str:
    """The record for a reader."""
    machine, fresh = document["machine"], sum(run["fresh inner states"] for run in document["runs"])
    through, held = (
        "{mean:+.4f} [{low:+.4f}, {high:+.4f}]".format(**document[name]) if document[name] else "unknown"
        for name in ("loss through faults minus without", "the same arrivals with inner states kept")
    )
    lines = [
        "# A run over Ray through faults",
        "",
        f"`python -m experiments.soak`: {document['seconds']:.0f} s in all, {len(document['runs'])} seeds, on "
        f"{machine['cores']} cores under a load of {machine['load']:.1f}.",
        "",
        "| check | holds |",
        "|---|---|",
        *(f"| {name} | {'yes' if holds else '**no**'} |" for name, holds in document["checks"].items()),
        "",
        f"Largest difference to the replay: {document['largest replay difference']:.2g}. "
        f"Final loss minus that of runs without faults, 95 % interval over the seeds: {through}. A worker whose visit "
        f"was lost begins again with a fresh inner state, {fresh} times here, its first visit among them; the same "
        f"arrivals computed with inner states kept: {held}. Runs without faults of one seed have a standard deviation "
        f"of {document['standard deviation of runs without'] or float('nan'):.1g}.",
        "",
        "| what | times |",
        "|---|---|",
        *(f"| {name} | {number} |" for name, number in document["total"].items()),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
